"""What rollout, flow and weighted patterns read in planted circuits, and what they misread: ``docs/flow.md``."""

from __future__ import annotations

from collections.abc import Callable
import re
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from fpt_viz import testing
from fpt_viz.analysis.attention_flow import attention_flow
from fpt_viz.analysis.attention_rollout import attention_rollout
from fpt_viz.analysis.output_weighted_attention import output_weighted_attention
from fpt_viz.analysis.routing_graph import routing_graph
from fpt_viz.analysis.value_weighted_attention import value_weighted_attention
from fpt_viz.capture import capture_attention
from fpt_viz.records.parts import Head
from fpt_viz.testing.writers import LAYOUTS

pytestmark = pytest.mark.slow  # a minute or so in all

EACH_FAMILY = pytest.mark.parametrize("family", sorted(LAYOUTS))


class Seen(NamedTuple):
    """A circuit on a few examples."""

    circuit: testing.Circuit
    inputs: Tensor
    weights: Tensor
    readout: Tensor
    needed: Tensor
    v: Tensor
    projection: Tensor
    written: Tensor

    def only(self, *heads: Head) -> Tensor:
        """Head weights that leave in nothing but ``heads``."""
        chosen = torch.zeros(self.weights.shape[0], self.weights.shape[2])
        for head in heads:
            chosen[head] = 1.0
        return chosen

    def on_needed(self, maps: Tensor) -> float:
        """Mean over read-out tokens of what is on the token that they need."""
        return float((maps * self.needed).sum(-1).mean())

    def on_each_other(self, maps: Tensor) -> float:
        """Mean of what is on the other tokens that each may see, but for itself."""
        n_tokens = maps.shape[-1]
        own = torch.arange(n_tokens) == self.readout[0, :, None]
        later = torch.arange(n_tokens) > self.readout[0, :, None]
        rest = ~own & ~self.needed & ~(later & self.circuit.model.backbone.causal)
        return float(maps[rest].mean())


@pytest.fixture
def seen(planted) -> Callable[[str], Seen]:
    def look(name: str) -> Seen:
        circuit = planted(name)
        batch = circuit.task.distinct(8, "test")
        layers = range(circuit.model.backbone.n_layers)
        names = [f"blocks.{layer}.attn.hook_{what}" for layer in layers for what in ("v", "result")]
        _, cache = circuit.model.run_with_cache(batch.inputs, names_filter=names)
        readout = circuit.model.readout_tokens(batch.inputs.shape[1])
        needs = circuit.task.needs(batch.inputs)
        return Seen(
            circuit,
            batch.inputs,
            capture_attention(circuit.model, batch, queries=None).weights,
            readout,
            needs[:, readout[0]],
            torch.stack([cache["v", layer] for layer in layers]),
            torch.stack([circuit.model.backbone.projection(layer).detach() for layer in layers]),
            torch.stack([cache["result", layer] for layer in layers]),
        )

    return look


@EACH_FAMILY
def test_rollout_and_value_weights_take_a_decoy_for_a_router_and_output_weights_do_not(seen, family):
    case = seen(f"decoy_{family}")
    decoy, copies = case.circuit.heads["decoy"], case.circuit.heads["copies"]
    rolled = {head: attention_rollout(case.weights, case.readout, heads=case.only(head)) for head in (decoy, copies)}
    by_value = value_weighted_attention(case.weights, case.v).sum((1, 3, 4))
    by_output = output_weighted_attention(case.weights, case.v, case.projection).sum((1, 3, 4))

    assert decoy not in case.circuit.verdicts["ablate_zero"].positive
    assert case.on_needed(rolled[decoy]) == pytest.approx(0.5, abs=1e-3)
    torch.testing.assert_close(rolled[decoy], rolled[copies], rtol=0, atol=1e-3)
    assert by_value[decoy] > 0.5 * by_value[copies]
    assert by_output[decoy] == 0
    assert by_output[copies] == by_output.max()


@EACH_FAMILY
def test_a_route_by_a_third_token_is_read_from_both_heads_together_and_drowns_among_all(seen, family):
    case = seen(f"indirect_{family}")
    first, second = case.circuit.heads["fetches"], case.circuit.heads["hands on"]
    acting = case.only(first, second)

    for head in (first, second):
        alone = attention_rollout(case.weights, case.readout, heads=case.only(head))
        assert case.on_needed(alone) < 0.01
    both = attention_rollout(case.weights, case.readout, heads=acting)
    assert case.on_needed(both) == pytest.approx(0.25, abs=1e-3)
    averaged = attention_rollout(case.weights, case.readout)
    assert case.on_needed(averaged) < 1.3 * case.on_each_other(averaged)

    graph = routing_graph(case.weights, torch.tensor([[7]]), share=0.99, heads=acting)
    edges = list(zip(graph.layer.tolist(), graph.source.tolist(), graph.target.tolist(), strict=True))
    for layer, source, target, (_, head) in ((0, 3, 6, first), (1, 6, 7, second)):
        place = edges.index((layer, source, target))
        assert graph.heads[place, head] == pytest.approx(float(graph.flow[place]), abs=1e-4)
        assert graph.flow[place] > 0.2


@EACH_FAMILY
def test_sink_removal_wipes_out_a_head_that_speaks_by_resting(seen, family):
    case = seen(f"resting_{family}")
    rests = case.only(case.circuit.heads["rests"])
    partner_set = (case.needed.float() @ case.inputs[..., 0, None])[..., 0] > 0

    told = attention_rollout(case.weights, case.readout, heads=rests)[..., 0]
    wiped = attention_rollout(case.weights, case.readout, heads=rests, sink=0)

    assert (told[~partner_set] > 0.49).all()
    assert (told[partner_set] < 0.01).all()
    own = wiped.gather(-1, case.readout.expand(len(wiped), -1)[..., None])
    assert (own > 0.99).all()  # the same whatever the bit, so that nothing is left of what the head says


@EACH_FAMILY
def test_rollout_gives_each_of_a_redundant_pair_its_part_though_either_is_enough(seen, family):
    case = seen(f"redundant_pair_{family}")
    pair = sorted(case.circuit.acting)

    alone = [case.on_needed(attention_rollout(case.weights, case.readout, heads=case.only(head))) for head in pair]
    both = case.on_needed(attention_rollout(case.weights, case.readout, heads=case.only(*pair)))

    assert alone == pytest.approx([0.5, 0.5], abs=1e-3)
    assert both == pytest.approx(0.75, abs=1e-3)


@EACH_FAMILY
def test_attention_flow_tells_needed_tokens_from_others_worse_than_rollout_does(seen, family):
    case = seen(f"partner_bit_{family}")
    rolled = attention_rollout(case.weights, case.readout)
    flow = attention_flow(case.weights, case.readout)

    told_apart = [case.on_needed(maps) / case.on_each_other(maps) for maps in (rolled, flow)]
    assert told_apart[0] > told_apart[1] > 1
    assert case.on_each_other(flow) > 0.4  # with three layers of four heads nearly all can flow from anywhere


@EACH_FAMILY
def test_the_output_weight_of_a_head_that_looks_at_one_token_is_what_it_writes(seen, family):
    case = seen(f"partner_bit_{family}")
    layer, head = case.circuit.heads["copies"]
    rows = case.readout[0]

    found = output_weighted_attention(case.weights, case.v, case.projection)[layer, :, head][:, rows].sum(-1)

    torch.testing.assert_close(found, case.written[layer][:, rows, head].norm(dim=-1), rtol=1e-3, atol=1e-3)


def test_the_page_runs_as_it_stands(repository):
    page = (repository / "docs" / "flow.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}

    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, names)

    assert names["rollout"].shape == (16, 4, 8)
    assert names["flow"].shape == (1, 4, 8)
    assert names["graph"].carried >= 0.8
    assert names["alike"].shape == (3, 4, 3, 4)

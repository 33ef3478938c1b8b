"""What is planted is there, by oracles of its own; every method finds what its column says; in controls, nothing."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from fpt_viz import testing
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.testing.catalogue import KINDS
from fpt_viz.testing.verdicts import every_head
from fpt_viz.testing.writers import LAYOUTS, Writer

pytestmark = pytest.mark.slow  # half a minute or so in all

FAMILIES = ("bert", "gpt2", "llama", "longformer", "t5", "vit")
EACH_CIRCUIT = pytest.mark.parametrize("name", testing.circuits())
EACH_METHOD = pytest.mark.parametrize("method", list(testing.METHODS))
ONE_OF_EACH_KIND = [f"{kind}_{FAMILIES[i % 6]}" for i, kind in enumerate(KINDS)]
"""Each family is among them; the whole table takes about a minute."""
TABLE = [pytest.param(name, marks=() if name in ONE_OF_EACH_KIND else pytest.mark.slow) for name in testing.circuits()]


@torch.no_grad()
def accuracy(model: FrozenPretrainedTransformer, circuit: testing.Circuit) -> float:
    batch = circuit.task.distinct(256, "test")
    answers = model(batch.inputs).argmax(-1)
    return float((answers.flatten(1) == batch.targets.flatten(1)).float().mean())


def without(circuit: testing.Circuit, heads: set[tuple[int, int]]) -> FrozenPretrainedTransformer:
    """A copy of the model whose output matrices hold zeros for ``heads``."""
    model = deepcopy(circuit.model)
    for layer, head in heads:
        output_matrix(model, layer, head).zero_()
    return model


@torch.no_grad()
def output_matrix(model: FrozenPretrainedTransformer, layer: int, head: int) -> Tensor:
    """W_O of a head, ``[hidden d_head]``."""
    width = model.backbone.d_head
    return (
        Writer(model.backbone)
        ._rows(layer, LAYOUTS[model.backbone.provenance.family].out, -1)
        .detach()[:, head * width : (head + 1) * width]
    )


def test_every_kind_is_planted_in_every_family():
    assert set(testing.circuits()) == {f"{kind}_{family}" for kind in KINDS for family in FAMILIES}
    assert len(testing.circuits()) == 48


@EACH_CIRCUIT
def test_the_model_solves_its_task(planted, name):
    circuit = planted(name)

    assert accuracy(circuit.model, circuit) >= circuit.accuracy >= 0.95


@EACH_CIRCUIT
def test_planted_heads_look_where_it_is_said_in_transformers_own_attention(planted, eager, name):
    circuit = planted(name)
    inputs = circuit.task.distinct(16, "test").inputs

    attention = eager(circuit.model, inputs)

    assert set(circuit.looks_at) == set(circuit.heads.values()) - {circuit.heads["control"]}
    for (layer, head), keys_of in circuit.looks_at.items():
        keys = keys_of(inputs)
        on_keys = attention[layer, :, head].gather(-1, keys.clamp(min=0)[..., None])[..., 0]
        assert (keys >= 0).any()
        assert on_keys[keys >= 0].min() > 0.999


@EACH_CIRCUIT
def test_answers_rest_on_the_acting_heads_and_on_no_other(planted, name):
    circuit = planted(name)
    idle = set(every_head(circuit.model)) - circuit.acting

    assert accuracy(without(circuit, set(circuit.acting)), circuit) < 0.65
    assert accuracy(without(circuit, idle), circuit) >= circuit.accuracy


@EACH_CIRCUIT
def test_idle_heads_attend_and_write_so_that_they_are_not_told_by_silence(planted, name):
    circuit = planted(name)

    inputs = circuit.task.distinct(8, "test").inputs
    _, cache = circuit.model.run_with_cache(inputs, names_filter=lambda name: name.endswith(("hook_z", "hook_pattern")))

    for layer, head in set(every_head(circuit.model)) - set(circuit.looks_at):
        z = cache["z", layer][:, :, head]
        assert (z @ output_matrix(circuit.model, layer, head).T).abs().max() > 1e-3
        assert cache["pattern", layer][:, head].std(-1).max() > 0.02


@pytest.mark.parametrize("family", FAMILIES)
def test_the_decoy_writes_nothing(planted, family):
    circuit = planted(f"decoy_{family}")

    assert output_matrix(circuit.model, *circuit.heads["decoy"]).abs().max() == 0
    assert output_matrix(circuit.model, *circuit.heads["copies"]).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_each_of_the_redundant_pair_suffices(planted, family):
    circuit = planted(f"redundant_pair_{family}")

    for head in circuit.acting:
        assert accuracy(without(circuit, {head}), circuit) == 1.0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["indirect", "resting"])
def test_what_the_first_head_writes_is_read_by_the_second_alone(planted, kind, family):
    circuit = planted(f"{kind}_{family}")
    model, layout = circuit.model, LAYOUTS[family]
    first, second = (output_matrix(model, *head) for role, head in circuit.heads.items() if role != "control")
    writer = Writer(model.backbone)
    mlp = torch.cat([writer._rows(layer, layout.gate or layout.up, -1) for layer in range(3)]).detach()

    assert (mlp @ first).abs().max() < 1e-4
    assert (model.output.weight @ first).abs().max() < 1e-5
    assert (mlp @ second).abs().max() > 1


@EACH_METHOD
@pytest.mark.parametrize("name", TABLE)
def test_a_method_finds_what_its_column_says(planted, name, method):
    result = testing.check(planted(name), method)

    assert not result.missed
    assert not result.false_alarms
    assert result.agrees


@pytest.mark.slow
@EACH_METHOD
@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_verdicts_do_not_hang_on_the_seed(name, method):
    assert testing.check(testing.circuit(name, seed=1), method).agrees


@EACH_METHOD
@pytest.mark.parametrize("family", FAMILIES)
def test_no_method_finds_anything_in_a_random_model(family, method):
    control = testing.control(f"indirect_{family}")

    result = testing.check(control, method)

    assert result.expected == frozenset()
    assert result.found == frozenset()
    assert len(control.verdicts[method].among) >= 3


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_kind_has_the_same_verdicts_in_every_family(planted, kind):
    first, *others = (planted(f"{kind}_{family}") for family in FAMILIES)

    assert set(first.verdicts) == set(testing.METHODS)
    assert all(other.verdicts == first.verdicts for other in others)
    assert all(verdict.positive <= set(verdict.among) for verdict in first.verdicts.values())


def test_a_circuit_is_built_the_same_each_time_and_otherwise_with_another_seed():
    once, again, other = (testing.circuit("decoy_llama", seed=seed).model.state_dict() for seed in (0, 0, 1))

    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not torch.equal(once["input.weight"], other["input.weight"])

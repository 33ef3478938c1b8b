"""What BitLab answers to a choice: independent forward passes, hand-made rules, brute force."""

from __future__ import annotations

from itertools import product
import json
import re

import numpy as np
import pytest
import torch

from fpt_viz.backbones import load_backbone
from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import AttentionMaps
from fpt_viz.tasks import load_task
from fpt_viz.widgets._routing_edges import edges_towards
from fpt_viz.widgets.bit_lab import BitLab


def tiny(task=None, family: str = "bert", **options) -> FrozenPretrainedTransformer:
    task = task or load_task("bit_xor", n_bits=3, **options)
    return FrozenPretrainedTransformer(load_backbone(f"{family}-tiny-random", "random"), task).eval()


def memory(**options):
    return load_task("bit_memory", **{"n_strings": 3, "n_bits": 4, "patch_size": 2, **options})


def numbers(packed) -> np.ndarray:
    kinds = {"Float32Array": np.float32, "Int32Array": np.int32}
    return np.frombuffer(packed["data"], dtype=kinds[packed["type"]]).reshape(packed["shape"])


def shares(model, inputs) -> np.ndarray:
    """The probability of a one, from a plain forward pass."""
    with torch.no_grad():
        return model(inputs).softmax(-1)[..., 1].flatten().numpy()


def test_the_prediction_and_the_pattern_are_those_of_a_forward_pass_on_the_flipped_bits():
    model = tiny()
    lab = BitLab(model)
    lab.choose(bits="101011")
    lab.flip("b0")
    inputs = torch.tensor([1.0, 0, 1, 1, 1, 1]).view(1, 6, 1)
    assert torch.equal(lab.inputs, inputs)
    np.testing.assert_allclose(numbers(lab.run["ones"]), shares(model, inputs), atol=1e-6)

    lab.choose(layer=1, head=1)
    _, cache = model.run_with_cache(inputs)
    np.testing.assert_allclose(numbers(lab.pattern["values"]), cache["pattern", 1][0, 1], atol=1e-6)


def test_a_causal_head_shows_nothing_of_later_tokens():
    lab = BitLab(tiny(family="gpt2"))
    assert np.isnan(numbers(lab.pattern["values"])[np.triu_indices(6, 1)]).all()
    assert not np.isnan(numbers(lab.pattern["values"])[np.tril_indices(6)]).any()


@pytest.mark.parametrize("encoding", ["bits", "signs"])
def test_the_right_answer_is_the_xor_of_the_bits_shown(encoding):
    lab = BitLab(tiny(encoding=encoding))
    for bits in ("000000", "101011", "111111", "010001"):
        lab.choose(bits=bits)
        wanted = [int(a) ^ int(b) for a, b in zip(bits[:3], bits[3:], strict=True)]
        assert numbers(lab.run["decided"]).tolist() == wanted


def decided_by_trying_everything(bits: str, n_bits: int) -> list[int]:
    """Every way to fill in the masked bits of the memory, and every string that may then be the one asked for."""
    *memory, query = [bits[i : i + n_bits] for i in range(0, len(bits), n_bits)]
    answers = [set() if bit == "?" else {bit} for bit in query]
    for filled in product(*("01" if bit == "?" else bit for string in memory for bit in string)):
        strings = ["".join(filled[i : i + n_bits]) for i in range(0, len(filled), n_bits)]
        for string in strings:
            if all(shown in ("?", bit) for shown, bit in zip(query, string, strict=True)):
                for i, bit in enumerate(string):
                    answers[i] |= {bit} if query[i] == "?" else set()
    return [int(min(found)) if len(found) == 1 else -1 for found in answers]


@pytest.mark.slow
def test_what_memory_decides_is_what_trying_every_filling_of_the_masked_bits_decides():
    lab = BitLab(tiny(memory()))
    rng = torch.Generator().manual_seed(1)
    n_open = 0
    for _ in range(60):
        memory_bits = "".join(
            "01?"[int(i)] for i in torch.tensor([0, 1, 0, 1, 0, 1, 2])[torch.randint(7, (12,), generator=rng)]
        )
        query = "".join("01?"[int(i)] for i in torch.randint(3, (4,), generator=rng))
        lab.choose(bits=memory_bits + query)
        found = numbers(lab.run["decided"]).tolist()
        assert found == decided_by_trying_everything(memory_bits + query, 4)
        n_open += -1 in found
    assert 0 < n_open < 60


def test_a_memory_bit_can_be_masked_and_flipped_back_and_the_model_reads_a_zero():
    model = tiny(memory())
    lab = BitLab(model)
    before = lab.choice["bits"]
    lab.mask("b1", 1)
    assert lab.inputs[0, 3, 1] == 0
    np.testing.assert_allclose(numbers(lab.run["ones"]), shares(model, lab.inputs), atol=1e-6)
    lab.flip("b1", 1)
    assert lab.choice["bits"][7] == "1"
    lab.undo()
    lab.undo()
    assert lab.choice["bits"] == before


def test_undo_takes_back_examples_too_and_an_example_brings_its_bits():
    lab = BitLab(tiny())
    first = lab.choice["bits"]
    lab.choose(example=3)
    assert lab.choice["bits"] == lab.fixed["examples"][3]
    lab.flip("a1")
    for wanted in (lab.fixed["examples"][3], first, first):
        lab.undo()
        assert lab.choice["bits"] == wanted
    assert lab.choice["example"] == 0


def test_random_bits_are_an_example_of_the_task():
    task = memory()
    lab = BitLab(tiny(task))
    lab.choose(draw=5)
    drawn = task.sample(1, torch.Generator().manual_seed(5), "validation").inputs
    assert torch.equal(lab.inputs, drawn)
    assert lab.choice["draw"] is None


def test_every_edge_drawn_leads_to_a_read_out_token_and_no_larger_one_was_left_out():
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(5), size=(3, 2, 5)).astype(np.float32)
    found = edges_towards(weights, [4], 6)
    assert 0 < len(found) <= 6
    best = weights.max(1)
    for edge in found:
        assert (
            edge.weight
            == best[edge.layer, edge.query, edge.key]
            == weights[edge.layer, edge.head, edge.query, edge.key]
        )
        ends = {4} if edge.layer == 2 else {4} | {one.key for one in found if one.layer > edge.layer}
        assert edge.query in ends
        assert edge.query != edge.key

    def leading(threshold: float) -> int:
        """How many edges of that weight or more lead there, found by walking back from the token."""
        alive, n = {4}, 0
        for layer in (2, 1, 0):
            kept = [(q, k) for q in alive for k in range(5) if q != k and best[layer, q, k] >= threshold]
            alive, n = alive | {k for _, k in kept}, n + len(kept)
        return n

    counts = {float(one): leading(float(one)) for one in best.flatten()}
    assert len(found) == max(n for n in counts.values() if n <= 6)


def test_an_edge_to_a_token_that_nothing_reads_later_is_not_drawn():
    weights = np.zeros((2, 1, 3, 3), dtype=np.float32)
    weights[0, 0, 1, 0] = 0.9  # token 1 reads token 0, and is not read
    weights[0, 0, 2, 0] = 0.3
    weights[1, 0, 2, 0] = 0.5
    assert [edge[:4] for edge in edges_towards(weights, [2], 8)] == [(1, 0, 0, 2), (0, 0, 0, 2)]


def test_the_graph_of_one_head_holds_its_edges_alone():
    lab = BitLab(tiny())
    lab.choose(among="L1H0", towards=5)
    assert {tuple(edge[:2]) for edge in lab.graph["edges"]} == {(1, 0)}
    assert {edge[3] for edge in lab.graph["edges"]} == {5}
    with pytest.raises(ConfigError, match=r"the graph is of all, top, a head such as L0H0; got 'L9H9'"):
        lab.choose(among="L9H9")


def test_the_model_is_left_in_its_mode_and_at_its_place_of_randomness():
    model = tiny().train()
    before = torch.get_rng_state()
    lab = BitLab(model)
    lab.flip("a0")
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert model.leaked_hooks() == []
    np.testing.assert_allclose(numbers(lab.run["ones"]), shares(model.eval(), lab.inputs), atol=1e-6)


def test_a_state_recreates_it():
    model = tiny()
    lab = BitLab(model)
    lab.choose(bits="111000", layer=1, head=1, towards=4, edges=8, among="all")
    state = json.loads(json.dumps(lab.state))
    again = BitLab(model, state=state)
    assert again.choice == lab.choice
    assert again.graph == lab.graph
    assert again.pattern == lab.pattern


def test_a_model_that_was_trained_on_is_said_to_be_another():
    model = tiny()
    lab = BitLab(model)
    shown = lab.run
    with torch.no_grad():
        model.output.weight.mul_(2)
    lab.flip("a0")
    assert lab.notice.startswith("The model has changed")
    assert lab.run is shown


def test_less_than_a_model_of_bits_is_refused_with_what_is_needed():
    maps = AttentionMaps.from_arrays(torch.full((1, 1, 1, 2, 2), 0.5))
    with pytest.raises(ConfigError, match=r"BitLab runs the model, and was given AttentionMaps.*load_model\(record\)"):
        BitLab(maps)
    digits = load_task("digits")
    model = FrozenPretrainedTransformer(load_backbone("bert-tiny-random", "random"), digits)
    with pytest.raises(
        ConfigError, match=r"BitLab flips bits, and the \d+ tokens of digits hold none \(\d+ values? each\)"
    ):
        BitLab(model)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"bits": "10"}, r"bits must be 6 letters 0 or 1: no bit of this task can be masked; got '10' of 2 letters"),
        ({"bits": "10101?"}, r"no bit of this task can be masked; got '10101\?'"),
        ({"layer": 7}, "there is no head L7H"),
        ({"towards": 0}, "there is no read-out token 0 here"),
        ({"example": 99}, "there is no example 99"),
    ],
    ids=["length", "mask", "layer", "towards", "example"],
)
def test_what_cannot_be_shown_is_refused_and_nothing_changes(fields, error):
    lab = BitLab(tiny())
    before = lab.choice
    with pytest.raises(ConfigError, match=error):
        lab.choose(**fields)
    assert lab.choice == before


def test_a_token_that_is_not_there_is_told():
    lab = BitLab(tiny())
    with pytest.raises(UnknownNameError, match="no token 'a9'"):
        lab.flip("a9")
    with pytest.raises(ConfigError, match="no bit of this task can be masked"):
        lab.mask("a0")


def test_the_figure_is_of_what_is_shown_and_its_words_hold_the_numbers(tmp_path):
    model = tiny()
    lab = BitLab(model)
    lab.choose(bits="101011")
    n_right = int(((shares(model, lab.inputs) > 0.5) == np.array([1, 1, 0])).sum())
    path = lab.save(tmp_path / "bits.svg")
    assert f"{n_right} of 3 answers that the bits decide are right" in lab.alt
    assert "101 011" in lab.alt
    assert lab.figure().panels[1].marks[0].z.tolist() == pytest.approx(
        [edge[4] for edge in lab.graph["edges"]], abs=1e-5
    )
    assert path.stat().st_size > 1000


def test_a_saved_page_holds_the_answer_to_every_input_of_few_bits():
    model = tiny()
    page = BitLab(model).to_html()
    [values] = re.findall(r'<script type="application/json" id="values">(.*?)</script>', page, re.DOTALL)
    tables = json.loads(values)["answers"]
    assert len(tables["run"]["table"]) == 64
    assert len(tables["graph"]["table"]) > 64
    assert '["101011",null]' in tables["run"]["table"]

"""Probes read what is written where it is written, and nothing from shuffled labels."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
import torch

from fpt_viz import testing
from fpt_viz.errors import CaptureError, ConfigError, UnknownNameError
from fpt_viz.measures.probe_states import probe_states
from fpt_viz.records import ProbeAccuracy

pytestmark = pytest.mark.slow  # a minute or so in all

FAMILIES = ["bert", "gpt2", "llama", "longformer", "t5", "vit"]
QUICK = {"n_examples": 128, "n_test": 64, "seeds": (0, 1)}


@torch.no_grad()
def test_accuracy_is_that_of_scikit_learn_on_the_states_by_hand(tiny):
    model, task = tiny("gpt2"), tiny("gpt2").task
    train, test = task.distinct(30, "train", 4), task.distinct(16, "test", 4)

    found = probe_states(model, n_examples=30, n_test=16, seeds=[4], batch_size=7)

    for i in range(3):
        states = [model.run_with_cache(batch.inputs)[1]["resid_post", i].numpy() for batch in (train, test)]
        for j in range(3):
            scaler = StandardScaler().fit(states[0][:, 3 + j])
            probe = LogisticRegression(max_iter=1000).fit(scaler.transform(states[0][:, 3 + j]), train.targets[:, j])
            wanted = probe.score(scaler.transform(states[1][:, 3 + j]), test.targets[:, j])
            assert float(found.accuracy[i, j]) == pytest.approx(wanted)
            frequent = int(train.targets[:, j].double().mean() > 0.5)
            assert float(found.majority[j]) == pytest.approx(float((test.targets[:, j] == frequent).double().mean()))


def without_idle_heads(circuit: testing.Circuit):
    """The circuit alone: its other heads have random weights and write noise that nothing reads."""
    return circuit.model.ablated(set(circuit.verdicts["ablate_zero"].among) - circuit.acting)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_is_read_from_the_layer_where_the_circuit_writes_it(family):
    circuit = testing.circuit(f"partner_bit_{family}")

    with without_idle_heads(circuit):
        found = probe_states(circuit.model, **QUICK)

    assert set(found.readable_from(0.9).values()) == {2}
    assert (found.accuracy[:2] < 0.75).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_partner_bit_is_at_the_answers_token_from_the_head_that_copies_it_on(family):
    circuit = testing.circuit(f"partner_bit_{family}")

    def partner(batch):
        return (batch.inputs[:, 2, 0] > 0).long()  # of token 6

    with without_idle_heads(circuit):
        found = probe_states(circuit.model, tokens=[2, 6], label=partner, **QUICK)

    assert found.readable_from(0.9) == {"a2": 0, "b2": 1}
    assert found.label == "partner"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_probe_also_reads_what_the_model_does_not_use(family):
    """Random heads that no answer rests on hold the exclusive or before it is taken: the docs warn of it."""
    circuit = testing.circuit(f"partner_bit_{family}")

    found = probe_states(circuit.model, layers=[0], **QUICK)

    assert float(found.accuracy.mean()) > 0.85
    assert all(layer == 1 for layer, _head in circuit.acting)


def test_a_shuffled_label_control_is_near_chance_where_the_answer_is_read():
    found = probe_states(testing.circuit("partner_bit_bert").model, **QUICK)

    assert (found.accuracy[2] > 0.95).all()
    assert abs(float(found.control.mean()) - 0.5) < 0.06
    assert float(found.control.max()) < 0.75


def test_intervals_hold_the_accuracy_and_seeds_train_probes_of_their_own(tiny):
    found = probe_states(tiny("bert"), n_examples=24, n_test=16, seeds=(0, 1, 2))

    assert (found.interval[..., 0] <= found.accuracy + 1e-6).all()
    assert (found.accuracy <= found.interval[..., 1] + 1e-6).all()
    torch.testing.assert_close(found.by_seed.mean(0), found.accuracy)
    assert not torch.equal(found.by_seed[0], found.by_seed[1])


def test_a_small_budget_reads_the_same_in_more_passes(tiny):
    model, options = tiny("bert"), {"n_examples": 24, "n_test": 16, "seeds": (0,)}

    whole = probe_states(model, **options)
    passes = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    parts = probe_states(model, budget_bytes=2 * 2 * 4 * 24 * 32, **options)
    handle.remove()

    assert torch.equal(whole.by_seed, parts.by_seed)
    assert torch.equal(whole.control, parts.control)
    assert len(passes) == 2 * 5  # nine cells, two at a time


def test_where_examples_differ_in_length_those_without_the_token_are_left_out(tiny, symbols):
    def first(batch):
        return batch.inputs[:, 0] % 2

    found = probe_states(tiny("bert", symbols), tokens=[0, 7], label=first, n_examples=200, n_test=100, seeds=(0,))

    assert float(found.accuracy[0, 0]) > 0.95
    n_with_token = int((symbols.distinct(100, "test", 0).mask.sum(1) == 8).sum())
    eighths = float(found.accuracy[0, 1]) * n_with_token
    assert 0 < n_with_token < 50
    assert eighths == pytest.approx(round(eighths), abs=1e-3)


@torch.no_grad()
def test_read_out_tokens_are_counted_from_the_end_of_each_example(tiny, symbols):
    def own(batch):
        ends = batch.mask.sum(1)
        return (batch.inputs.gather(1, ends[:, None] - 1)[:, 0] > 2).long()

    found = probe_states(tiny("bert", symbols), label=own, n_examples=200, n_test=100, seeds=(0,))

    assert found.places == ("t6", "t7")
    assert float(found.accuracy[0, 1]) > 0.95  # the last token's own symbol
    assert float(found.accuracy[0, 0]) < 0.8


def one_class(batch):
    return torch.full((len(batch),), 3)


def halves(batch):
    return batch.inputs[:, 0, 0] / 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label": one_class}, ConfigError, "labels of 1 class, wanted at least 2.*all of class 3.*raise n_examples"),
        ({"label": halves}, ConfigError, "returned torch.float32 of shape .16,., wanted one whole number"),
        ({"site": "resid_pots"}, UnknownNameError, "mean 'resid_post'"),
        ({"site": "normalized_resid_post"}, UnknownNameError, "There are: attn_out"),
        ({"tokens": "readouts"}, ConfigError, '"readout" or token indices'),
        ({"tokens": [0]}, ConfigError, "bit_xor has 3 answers.*answer=0 to 2"),
        ({"tokens": [9], "answer": 0}, ConfigError, "no token 9"),
        ({"answer": 3}, ConfigError, "no answer 3 of bit_xor"),
        ({"seeds": ()}, ConfigError, "at least one"),
        ({"seeds": (1, 1)}, ConfigError, "each once"),
        ({"strength": 0.0}, ConfigError, "above 0, got 0"),
        ({"split": "train"}, ConfigError, "hold out"),
        ({"budget_bytes": 1000}, CaptureError, "over the budget"),
        ({"layers": [3]}, ConfigError, "no layer 3"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_mistake_in_asking_names_its_cure(tiny, options, error, message):
    with pytest.raises(error, match=message):
        probe_states(tiny("gpt2"), **{"n_examples": 32, **options})


def test_it_is_saved_loaded_and_shown_as_a_table(tiny, tmp_path):
    found = probe_states(tiny("t5"), tokens=[0, 5], answer=1, n_examples=24, n_test=16, seeds=(0,))
    found.save(tmp_path / "found.safetensors")
    again = ProbeAccuracy.load(tmp_path / "found.safetensors")

    assert torch.equal(again.interval, found.interval)
    assert again.places == ("a0 -> b1", "b2 -> b1")
    assert list(again.to_pandas()["layer"]) == [0, 0, 1, 1, 2, 2]
    assert np.allclose(again.to_pandas()["accuracy"], found.accuracy.flatten())


def test_a_layer_counts_as_readable_only_where_all_later_ones_are():
    low = torch.tensor([[0.95, 0.5], [0.4, 0.95], [0.95, 0.96]])
    one, interval = torch.ones(3, 2), torch.stack([low, torch.ones(3, 2)], -1)
    found = ProbeAccuracy(
        accuracy=one, interval=interval, by_seed=one[None], control=one, control_interval=interval,
        majority=one[0], layers=(0, 1, 4), places=("x", "y"), site="resid_post", label="target", seeds=(0,),
        n_train=1, n_test=1, n_classes=2,
    )  # fmt: skip

    assert found.readable_from(0.9) == {"x": 4, "y": 1}
    assert found.readable_from(0.99) == {"x": None, "y": None}

"""The lens reads each state as the trained output layer would, were it the last."""

from __future__ import annotations

import pytest
import torch

from fpt_viz import testing
from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.measures.evaluate import evaluate
from fpt_viz.measures.logit_lens import logit_lens
from fpt_viz.records import LensReadings
from fpt_viz.tasks import load_task


@torch.no_grad()
def test_each_reading_is_that_of_the_network_cut_off_there(tiny, family, eager):
    """Before the final norm, transformers' hidden states are the states between blocks."""
    model = tiny(family)
    batch = model.task.distinct(16, "test")
    found = logit_lens(model, n_examples=16, batch_size=5)

    states = eager(model, batch).hidden_states
    norm = model.backbone.final_norm()
    for i, state in enumerate(states[:-1]):
        shown = state[:, -3:] if norm is None else norm(state[:, -3:])
        logits = model.output(shown)
        right = logits.gather(-1, batch.targets[..., None])[..., 0]
        torch.testing.assert_close(found.accuracy[i], model.task.correct(logits, batch.targets).float().mean(0))
        torch.testing.assert_close(found.logit[i], (2 * right - logits.sum(-1)).mean(0), atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_last_reading_is_the_models_own_also_where_there_is_padding(tiny, family, symbols):
    model = tiny(family, symbols)
    found, whole = logit_lens(model, n_examples=32), evaluate(model, n_examples=32)

    assert found.states == ("input", "0", "1", "2")
    assert float(found.overall[-1]) == pytest.approx(whole.accuracy)
    assert found.overall_interval[-1].tolist() == pytest.approx(whole.interval)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "longformer", "t5", "vit"])
def test_a_planted_answer_is_read_from_the_layer_that_writes_it(family):
    xor, left = (testing.circuit(f"{kind}_{family}") for kind in ("partner_bit", "left_patch"))

    of_xor, of_left = logit_lens(xor.model), logit_lens(left.model)

    assert (of_xor.overall[:3] < 0.75).all()  # the last MLP writes it
    assert of_xor.overall[3] == 1
    assert of_left.overall[0] < 0.75
    assert (of_left.overall[1:] > 0.95).all()  # a head of layer 0 writes it


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_examples": 0}, ConfigError, "at least 1 example"),
        ({"batch_size": 0}, ConfigError, "batch_size must be at least 1, got 0"),
        ({"split": "tset"}, UnknownNameError, "mean 'test'"),
    ],
    ids=["examples", "batch size", "split"],
)
def test_a_mistake_in_asking_is_told(tiny, options, error, message):
    with pytest.raises(error, match=message):
        logit_lens(tiny(), **options)


def test_it_is_saved_loaded_and_shown_as_a_table(tiny, tmp_path):
    found = logit_lens(tiny("gpt2", load_task("bit_memory", n_strings=2, n_bits=8, patch_size=4)), n_examples=8)
    found.save(tmp_path / "found.safetensors")
    again = LensReadings.load(tmp_path / "found.safetensors")

    assert torch.equal(again.logit_interval, found.logit_interval)
    assert len(again.to_pandas()) == 4 * 8
    assert again.answers[:5] == ("q0.0", "q0.1", "q0.2", "q0.3", "q1.0")

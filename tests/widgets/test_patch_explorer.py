"""What the patch explorer shows and answers, through its traits; no browser."""

from __future__ import annotations

from dataclasses import replace

from made_attention import make_maps
import numpy as np
import pytest
import torch

import fpt_viz as fpt
from fpt_viz.analysis.attention_rollout import attention_rollout
from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.widgets.patch_explorer import PatchExplorer


def values(packed: dict) -> np.ndarray:
    return np.frombuffer(packed["data"], dtype=np.float32).reshape(packed["shape"])


@pytest.fixture(scope="module")
def model():
    task = fpt.load_task("digits")
    return fpt.FrozenPretrainedTransformer(fpt.load_backbone("bert-tiny-random", "random"), task).eval()


@pytest.fixture(scope="module")
def causal():
    task = fpt.load_task("digits")
    return fpt.FrozenPretrainedTransformer(fpt.load_backbone("gpt2-tiny-random", "random"), task).eval()


@pytest.fixture
def widget(model):
    return PatchExplorer(model, n_examples=4)


def test_every_heads_row_is_the_captured_one(model, widget):
    batch = model.task.distinct(4, "validation", 0)
    maps = model.capture(batch[2:3], queries=None)
    widget.choose(example=2, query=5)
    np.testing.assert_allclose(values(widget.rows["values"]), maps.weights[:, 0, :, 5], atol=1e-6)


def test_the_image_and_its_boxes_are_the_tasks(model, widget):
    task, images = model.task, widget.fixed["images"]
    batch = task.distinct(4, "validation", 0)
    shown = np.frombuffer(images["data"], dtype=np.uint8).reshape(images["shape"])[..., 0]
    np.testing.assert_array_equal(shown, np.rint(task.to_pixels(batch.inputs).numpy() / 16 * 255))
    for token, (top, left, height, width) in enumerate(widget.fixed["boxes"]):
        assert task.token_at(top, left) == task.token_at(top + height - 1, left + width - 1) == token


def test_covering_patches_is_the_tasks_own_corruption_and_the_prediction_follows(model, widget):
    batch = model.task.distinct(4, "validation", 0)[1:2]
    covered = batch
    for token in (3, 6):
        covered = model.task.corrupted(covered, "occlude", torch.Generator().manual_seed(9), position=token).batch
    widget.choose(example=1, occluded=[6, 3])
    with torch.no_grad():
        wanted = model(covered.inputs).softmax(-1).flatten()
        intact = model(batch.inputs).softmax(-1).flatten()
    np.testing.assert_allclose(widget.predicted["shown"], wanted, atol=1e-6)
    np.testing.assert_allclose(widget.predicted["intact"], intact, atol=1e-6)
    assert widget.predicted["answer"] == int(batch.targets)
    assert widget.choice["occluded"] == [3, 6]
    assert not np.allclose(wanted, intact, atol=1e-6)


def test_which_examples_are_wrong_is_what_evaluating_says(model, widget):
    batch = model.task.distinct(4, "validation", 0)
    with torch.no_grad():
        right = model.task.correct(model(batch.inputs), batch.targets).flatten().tolist()
    assert widget.fixed["right"] == right


def test_the_rollout_is_rooted_at_the_query(model, widget):
    batch = model.task.distinct(4, "validation", 0)
    maps = model.capture(batch[:1], queries=None)
    widget.choose(overlay="rollout", query=7)
    wanted = attention_rollout(maps.weights, torch.tensor([[7]]))[0, 0]
    np.testing.assert_allclose(values(widget.overlaid["values"]), wanted, atol=1e-6)
    assert widget.overlaid["low"] == 0.0


def test_gradient_x_input_is_signed_and_says_that_nothing_checked_it(model, widget):
    widget.choose(overlay="attribution")
    batch = model.task.distinct(4, "validation", 0)[:1]
    inputs = batch.inputs.clone().requires_grad_()
    model(inputs).max().backward()
    np.testing.assert_allclose(values(widget.overlaid["values"]), (inputs.grad * inputs).detach().sum(-1)[0], atol=1e-5)
    assert widget.overlaid["low"] == -widget.overlaid["high"] < 0
    assert "not checked for sanity" in widget.overlaid["words"]


def test_a_causal_model_shows_no_later_patch_and_no_rollout_from_the_first(causal):
    widget = PatchExplorer(causal, n_examples=2)
    widget.choose(query=5)
    rows = values(widget.rows["values"])
    assert np.isnan(rows[..., 6:]).all()
    np.testing.assert_allclose(rows[..., :6].sum(-1), 1, atol=1e-5)
    widget.choose(overlay="rollout", query=0)
    assert "reads no other token" in widget.overlaid["error"]


def test_maps_can_be_looked_at_but_not_asked(model):
    batch = model.task.distinct(3, "validation", 0)
    maps = model.capture(batch, queries=None)
    images = model.task.to_pixels(batch.inputs).numpy()
    widget = PatchExplorer(maps, images=images)
    widget.choose(example=1, query=3)
    np.testing.assert_array_equal(values(widget.rows["values"]), maps.weights[:, 1, :, 3])
    assert widget.predicted is None
    assert widget.fixed["overlays"] == ["attention", "rollout"]
    with pytest.raises(ConfigError, match="covering patches needs the model"):
        widget.choose(occluded=[1])
    arrays = PatchExplorer(maps.weights.numpy(), model.task)
    arrays.choose(example=1, query=3)
    np.testing.assert_array_equal(values(arrays.rows["values"]), maps.weights[:, 1, :, 3])


def test_rows_that_were_not_captured_are_said_to_be_missing(model):
    maps = model.capture(model.task.distinct(2, "validation", 0), queries=[2, 15])
    widget = PatchExplorer(maps)
    assert widget.fixed["queries"] == [2, 15]
    with pytest.raises(ConfigError, match="no query 4 here; there are querys 2, 15|no query 4 here"):
        widget.choose(query=4)


def test_attribution_that_is_given_is_shown_as_it_is(model):
    given = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)
    widget = PatchExplorer(model, n_examples=2, attribution=given)
    widget.choose(overlay="attribution", example=1)
    np.testing.assert_array_equal(values(widget.overlaid["values"]), given[1])
    with pytest.raises(ConfigError, match=r"attribution of shape \(3, 16\) was given for 2 examples"):
        PatchExplorer(model, n_examples=2, attribution=np.zeros((3, 16)))


def test_sources_without_patches_are_refused_with_the_cure(model):
    with pytest.raises(ConfigError, match="use AttentionExplorer"):
        PatchExplorer(make_maps())
    with pytest.raises(ConfigError, match="give the task"):
        PatchExplorer(make_maps().weights)
    maps = model.capture(model.task.distinct(2, "validation", 0), queries=None)
    with pytest.raises(ConfigError, match=r"images of shape \(2, 5, 5\) were given for 2 examples of 8 x 8"):
        PatchExplorer(maps, images=np.zeros((2, 5, 5)))
    with pytest.raises(RecordError):
        PatchExplorer(maps.weights * 2, model.task)


def test_the_models_mode_and_gradients_are_as_before(model):
    model.train()
    model.zero_grad(set_to_none=True)
    widget = PatchExplorer(model, n_examples=2)
    widget.choose(overlay="attribution", occluded=[1])
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()


def test_what_is_on_screen_is_what_is_saved(tmp_path, widget):
    widget.choose(query=6, layer=1, head=2)
    assert "L1H2" in widget.figure().title
    assert widget.save(tmp_path / "patches.pdf").stat().st_size > 1_000
    widget.choose(overlay="rollout")
    assert "rollout" in widget.figure().alt
    assert widget.save(tmp_path / "patches.html").stat().st_size > 10_000
    state = widget.state
    again = PatchExplorer(widget._live, n_examples=4, state=state)
    assert again.overlaid == widget.overlaid


def test_two_heads_with_the_same_weights_are_the_same_bytes(model):
    maps = model.capture(model.task.distinct(1, "validation", 0), queries=None)
    same = replace(maps, weights=maps.weights[:, :, :1].expand_as(maps.weights).contiguous())
    rows = values(PatchExplorer(same).rows["values"])
    assert all(rows[:, 0].tobytes() == rows[:, head].tobytes() for head in range(rows.shape[1]))

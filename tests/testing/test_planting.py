"""The features and writers that circuits are built with, and the tasks that are asked of them."""

from __future__ import annotations

import pytest
import torch

from fpt_viz.errors import ConfigError
from fpt_viz.tasks import Task, load_task
from fpt_viz.testing import LeftPatch, NullXor
from fpt_viz.testing.features import Features
from fpt_viz.testing.plant import Plant
from fpt_viz.testing.writers import LAYOUTS, Writer, small_backbone

pytestmark = pytest.mark.slow  # half a minute or so in all

TASKS = [LeftPatch(), LeftPatch(n_rows=3, n_columns=3), NullXor(), NullXor(n_bits=2)]


def test_features_are_orthonormal_and_of_mean_zero():
    features = Features(16, {"a": 3, "b": 2}, seed=0)

    rows = features.without()

    torch.testing.assert_close(rows @ rows.T, torch.eye(15), atol=1e-6, rtol=0)
    assert rows.sum(1).abs().max() < 1e-5
    assert [len(features[name]) for name in ("a", "b", "junk")] == [3, 2, 10]
    with pytest.raises(ConfigError, match="15 features do not fit into a residual stream of width 16"):
        Features(16, {"a": 15}, seed=0)


def test_two_heads_that_share_keys_cannot_be_planted_apart():
    plant = Plant("llama", NullXor(), seed=0, copy=1)
    shown = plant.features["shown"]
    plant.head((0, 2), plant.by_place(range(9)), value=shown, out=shown)

    with pytest.raises(ConfigError, match="head 2 of layer 0 has the keys of head 3"):
        plant.head((0, 3), plant.by_place(range(9)), value=shown, out=shown)


def test_a_head_that_is_too_wide_and_one_that_looks_ahead_are_refused():
    plant = Plant("llama", NullXor(), seed=0)
    wide = torch.zeros(15, 64)

    with pytest.raises(ConfigError, match="15 dimensions does not fit into 14"):
        plant.head((0, 0), (wide, wide), value=wide, out=wide)
    with pytest.raises(ConfigError, match="cannot look ahead"):
        plant.by_place([1, *range(1, 9)])


@pytest.mark.parametrize("family", LAYOUTS)
def test_an_mlp_adds_what_its_units_say(family):
    backbone = small_backbone(family, seed=0).eval()
    for parameter in backbone.parameters():
        torch.nn.init.zeros_(parameter)
    features = Features(64, {"one": 1, "in": 1, "out": 1}, seed=0)
    units = torch.cat([features["in"], -features["in"]])
    out = features["out"].T @ torch.tensor([[1.0, 3.0]])
    Writer(backbone).mlp(1, units=units, out=out, one=features["one"][0])
    block, x = backbone.blocks[1], torch.tensor([[-2.0], [-1.0], [0.0], [1.0], [2.0]])
    added: list[torch.Tensor] = []
    block.get_submodule(LAYOUTS[family].down).register_forward_hook(lambda _m, _inputs, output: added.append(output))
    stream = x * features["in"] + features["one"]

    if family in ("bert", "longformer"):
        block.output.dense(block.intermediate(stream))
    else:
        (block.layer[1].DenseReluDense if family == "t5" else block.mlp)(stream)

    expected = torch.tensor([6.0, 3.0, 0.0, 1.0, 2.0])  # 1 of relu(x), 3 of relu(-x)
    torch.testing.assert_close(added[0] @ features["out"][0], expected, atol=0.01, rtol=0)


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_splits_share_no_input_and_shapes_are_what_the_task_says(task: Task):
    found = {}
    for split in ("train", "validation", "test"):
        batch = task.distinct(1000, split)
        assert batch.inputs.shape == (task.n_examples(split), task.n_tokens, task.n_values)
        assert batch.targets.shape == (len(batch), task.n_readout)
        assert task.sample(5, torch.Generator().manual_seed(0), split).inputs.shape[0] == 5
        found[split] = {tuple(row) for row in batch.inputs.flatten(1).tolist()}
        assert len(found[split]) == len(batch)
    assert found["train"].isdisjoint(found["validation"] | found["test"])
    assert found["validation"].isdisjoint(found["test"])
    assert len(task.labels(batch.inputs[0])) == len(task.token_names()) == task.n_tokens
    assert load_task(task.name, **task.options()).options() == task.options()


def test_the_left_patch_is_asked_for_by_hand():
    task = LeftPatch(n_rows=2, n_columns=3)
    batch = task.distinct(1000, "train")
    images = batch.inputs.view(-1, 2, 3)

    for image, target in zip(images, batch.targets.view(-1, 2, 3), strict=True):
        for row in range(2):
            for column in range(3):
                assert target[row, column] == int(image[row, max(column - 1, 0)] > 0)
    needs = task.needs(batch.inputs)
    assert [tuple(pair) for pair in needs[0].nonzero().tolist()] == [(1, 0), (2, 1), (4, 3), (5, 4)]
    assert needs.shape == (len(batch), 6, 6)
    assert task.labels(torch.tensor([[1.0], [-1], [1], [1], [1], [1]]))[:2] == ["r0c0=white", "r0c1=black"]
    assert task.geometry().boxes[4] == (4, 4, 4, 4)
    assert task.geometry().image_size == (8, 12)


def test_null_xor_is_xor_behind_a_null_token():
    task = NullXor(n_bits=3)
    batch = task.distinct(1000, "test")
    bits = batch.inputs[:, 1:, 0] > 0

    assert (batch.inputs[:, 0] == 0).all()
    assert torch.equal(batch.targets, (bits[:, :3] ^ bits[:, 3:]).long())
    assert [tuple(pair) for pair in task.needs(batch.inputs)[0].nonzero().tolist()] == [(4, 1), (5, 2), (6, 3)]
    assert task.token_names() == ("null", "a0", "a1", "a2", "b0", "b1", "b2")
    assert task.geometry().group == (0, 1, 1, 1, 2, 2, 2)


@pytest.mark.parametrize(("task", "how"), [(LeftPatch(), "flip_patch"), (NullXor(), "flip_partner")], ids=str)
def test_a_corruption_changes_one_token_and_the_answers_that_hang_on_it(task, how, rng):
    batch = task.distinct(64, "test")
    assert next(iter(task.corruptions)) == how

    found = task.corrupted(batch, how, rng)

    assert (found.changed.sum(1) == 1).all()
    assert torch.equal(found.changed, (found.batch.inputs != batch.inputs).any(-1))
    needing = (task.needs(batch.inputs) & found.changed[:, None]).any(-1)[:, -task.n_readout :]
    differs = found.batch.targets != batch.targets
    if how == "flip_patch":  # the first column answers with its own
        needing |= found.changed & (torch.arange(8) % 4 == 0)
    assert torch.equal(differs, needing)
    assert differs.any(1).all()


def test_a_corruption_can_be_told_its_position(rng):
    flipped = LeftPatch().corrupted(LeftPatch().distinct(8, "test"), "flip_patch", rng, position=5)
    bits = NullXor().corrupted(NullXor().distinct(8, "test"), "flip_partner", rng, position=2)

    assert flipped.changed.nonzero()[:, 1].unique().tolist() == [5]
    assert bits.changed.nonzero()[:, 1].unique().tolist() == [3]  # behind the null token

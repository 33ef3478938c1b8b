"""What every task promises of its corruptions; a new file in ``fpt_viz/tasks`` is checked without an edit here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fpt_viz import registry
from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.tasks import Batch, Corrupted, Task, load_task

SMALL = {"bit_memory": {"n_strings": 3, "n_bits": 12, "patch_size": 3}, "cifar10": {"augment": False}}
N_EXAMPLES = 40


@pytest.fixture(autouse=True)
def _small_data(made_data: Path) -> None:
    """Tasks that read data sets find small made ones, in the published formats."""


@pytest.fixture(params=registry.names("tasks"))
def task(request: pytest.FixtureRequest) -> Task:
    return load_task(request.param, **SMALL.get(request.param, {}))


def batch_of(task: Task) -> Batch:
    return task.distinct(min(N_EXAMPLES, task.n_examples("test") or N_EXAMPLES), "test")


def every_corruption(task: Task, seed: int = 0) -> dict[str, Corrupted]:
    batch = batch_of(task)
    return {how: task.corrupted(batch, how, torch.Generator().manual_seed(seed)) for how in task.corruptions}


def xor_of(inputs: Tensor, n_bits: int) -> list[list[int]]:
    strings = [[int(value > 0) for value in row.flatten().tolist()] for row in inputs]
    return [[sum(row[i::n_bits]) % 2 for i in range(n_bits)] for row in strings]


def value_of(symbols: list[str]) -> int:
    """The value of a ListOps expression, by a stack."""
    reduce = {
        "[MIN": min,
        "[MAX": max,
        "[SM": lambda found: sum(found) % 10,
        "[MED": lambda found: (sorted(found)[(len(found) - 1) // 2] + sorted(found)[len(found) // 2]) // 2,
    }
    stack: list[list] = [[]]
    for symbol in symbols:
        if symbol == "]":
            operator, *arguments = stack.pop()
            stack[-1].append(reduce[operator](arguments))
        elif symbol in reduce:
            stack.append([symbol])
        elif symbol != "pad":
            stack[-1].append(int(symbol))
    [[value]] = stack
    return int(value)


def test_the_first_corruption_is_the_tasks_own_and_resample_is_always_there(task):
    names = list(task.corruptions)
    assert "resample" in names
    assert all(task.corruptions.values())
    assert set(task.placed_corruptions) <= set(names)
    assert names[0] != "resample" or len(names) == 1


def test_shapes_types_and_mask_stay(task):
    before = batch_of(task)
    for how, found in every_corruption(task).items():
        after = found.batch
        assert (after.inputs.shape, after.inputs.dtype) == (before.inputs.shape, before.inputs.dtype), how
        assert (after.targets.shape, after.targets.dtype) == (before.targets.shape, before.targets.dtype), how
        if before.mask is None:
            assert after.mask is None
        else:
            assert torch.equal(after.mask, before.mask)
            assert not found.changed[~before.mask].any()
            assert torch.equal(after.inputs[~before.mask], before.inputs[~before.mask])


def test_changed_tokens_are_those_where_the_inputs_differ_and_most_examples_have_some(task):
    before = batch_of(task)
    for how, found in every_corruption(task).items():
        for example in range(len(before)):
            for token in range(before.inputs.shape[1]):
                same = torch.equal(before.inputs[example, token], found.batch.inputs[example, token])
                assert bool(found.changed[example, token]) != same
        if not (how == "resample" and before.mask is not None):  # of padded inputs, few are as long as another
            assert found.changed.any(1).float().mean() > 0.6, how


def test_the_generator_alone_decides_and_the_batch_given_is_left_as_it_is(task):
    before, global_state = batch_of(task), torch.get_rng_state()
    for how in task.corruptions:
        given = batch_of(task)
        one, same, other = (
            task.corrupted(given, how, torch.Generator().manual_seed(seed)).batch.inputs for seed in (1, 1, 2)
        )
        assert torch.equal(one, same)
        assert torch.equal(given.inputs, before.inputs)
        assert torch.equal(given.targets, before.targets)
        if how == next(iter(task.corruptions)):  # XOR of two strings has but one string to flip
            assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), global_state)


def test_resampled_examples_are_others_of_the_batch_with_other_targets(task):
    before, found = batch_of(task), every_corruption(task)["resample"]
    for i in range(len(before)):
        twins = [
            j
            for j in range(len(before))
            if torch.equal(before.inputs[j], found.batch.inputs[i])
            and torch.equal(before.targets[j], found.batch.targets[i])
        ]
        assert twins
        if found.changed[i].any():
            assert not torch.equal(before.targets[i], found.batch.targets[i])


def test_targets_are_right_for_the_corrupted_input(task):
    before = batch_of(task)
    for how, found in every_corruption(task).items():
        inputs, targets = found.batch.inputs, found.batch.targets
        if task.name == "bit_xor":
            assert targets.tolist() == xor_of(inputs, task.n_bits), how
        elif task.name == "listops":
            labels = [task.labels(row) for row in inputs]
            assert targets[:, 0].tolist() == [value_of(row) for row in labels], how
        elif task.name == "bit_memory":
            strings = inputs.view(len(inputs), task.n_strings + 1, task.n_bits)
            for row, target in zip(strings, targets.flatten(1), strict=True):
                agreeing = [s for s in row[:-1] if all(q in (0, s_bit) for q, s_bit in zip(row[-1], s, strict=True))]
                assert any(torch.equal((s > 0).long(), target) for s in agreeing), how
        elif how != "resample":
            assert torch.equal(targets, before.targets), how


def test_a_position_alone_is_changed(task):
    before = batch_of(task)
    places = task.geometry().position or tuple(range(task.n_tokens))
    for how in task.placed_corruptions:
        found = task.corrupted(before, how, torch.Generator().manual_seed(0), position=2)
        tokens = {int(token) for token in found.changed.any(0).nonzero()}
        assert {places[token] for token in tokens} <= {2}
        assert tokens or how == "replace_digit"  # the third token of an expression may be no digit


def test_what_cannot_be_corrupted_is_an_error(task):
    before, rng = batch_of(task), torch.Generator()
    with pytest.raises(UnknownNameError, match=rf"no corruption of {task.name} 'resampel'. Did you mean 'resample'"):
        task.corrupted(before, "resampel", rng)
    with pytest.raises(ConfigError, match="an empty batch .* at least 1 example"):
        task.corrupted(before[:0], "resample", rng)
    with pytest.raises(ConfigError, match="leave out the position"):
        task.corrupted(before, "resample", rng, position=0)
    for how in task.placed_corruptions:
        with pytest.raises(ConfigError, match=r"no position 9999 in .* they are 0 to \d+"):
            task.corrupted(before, how, rng, position=9999)


# What one task's own corruptions do


def test_a_flipped_partner_is_one_bit_of_the_first_string_and_turns_one_answer():
    for encoding in ("bits", "signs"):
        task = load_task("bit_xor", n_bits=4, encoding=encoding)
        before = task.distinct(60, "test")
        found = task.corrupted(before, "flip_partner", torch.Generator().manual_seed(0))
        assert found.changed.sum(1).tolist() == [1] * len(before)
        assert not found.changed[:, 4:].any()
        assert torch.equal(found.changed[:, :4], found.batch.targets != before.targets)
        assert found.changed.any(0)[:4].all()
        assert set(found.batch.inputs.unique().tolist()) == set(before.inputs.unique().tolist())
        whole = task.corrupted(before, "flip_string", torch.Generator().manual_seed(0))
        assert whole.changed[:, :4].all()
        assert torch.equal(whole.batch.targets, 1 - before.targets)


def test_of_three_strings_either_partner_is_flipped():
    task = load_task("bit_xor", n_bits=3, n_strings=3)
    found = task.corrupted(task.distinct(60, "test"), "flip_partner", torch.Generator().manual_seed(0), position=1)
    assert found.changed.any(0).tolist() == [False, True, False, False, True, False, False, False, False]


def test_memory_is_changed_where_the_query_does_not_look_so_it_still_asks_for_the_same_string():
    task = load_task("bit_memory", n_strings=3, n_bits=12, patch_size=3)
    before = task.distinct(60, "test")
    needed = task.needs(before.inputs)
    for how in ("swap_hidden", "flip_hidden"):
        found = task.corrupted(before, how, torch.Generator().manual_seed(0))
        assert torch.equal(task.needs(found.batch.inputs), needed)
        assert not found.changed[:, -task.n_readout :].any()
        turned = found.batch.targets != before.targets
        assert not turned[before.inputs[:, -task.n_readout :] != 0].any()
        assert turned.any()
    swapped = task.corrupted(before, "swap_strings", torch.Generator().manual_seed(0)).batch
    assert torch.equal(swapped.targets, before.targets)
    assert not torch.equal(task.needs(swapped.inputs), needed)


def test_an_occluded_patch_is_grey_and_the_read_out_patch_is_spared():
    task = load_task("digits", patch_size=2)
    before = task.distinct(50, "test")
    for how, n_most in (("occlude", 1), ("occlude_quarter", 4)):
        found = task.corrupted(before, how, torch.Generator().manual_seed(0))
        pixels = task.to_pixels(found.batch.inputs)
        assert found.batch.inputs[found.changed].unique().tolist() == [0.5]
        assert pixels.max() <= 16
        assert found.changed.sum(1).max() == n_most
        assert not found.changed[:, -1].any()
    asked = task.corrupted(before, "occlude", torch.Generator().manual_seed(0), position=15)
    assert asked.changed[:, -1].any()
    assert not asked.changed[:, :-1].any()


def test_a_quarter_of_the_residues_change_and_stay_residues(made_data):
    task = load_task("remote_homology")
    before = task.distinct(20, "test")
    n_residues = before.mask.sum(1) - 2
    for how in ("replace", "mask"):
        found = task.corrupted(before, how, torch.Generator().manual_seed(0))
        assert found.changed.sum(1).tolist() == [-(-n // 4) for n in n_residues.tolist()]
        letters = {symbol for row in found.batch.inputs for symbol in task.labels(row)}
        assert ("<mask>" in letters) == (how == "mask")


def test_a_replaced_digit_changes_the_value_where_one_digit_can():
    task = load_task("listops")
    before = task.distinct(60, "test")
    found = task.corrupted(before, "replace_digit", torch.Generator().manual_seed(0))
    turned = (found.batch.targets != before.targets)[:, 0]
    assert torch.equal(found.changed.sum(1), turned.long())  # the maximum of two nines no digit changes alone
    assert turned.sum() >= 54
    assert (found.batch.inputs[found.changed] < 10).all()
    assert (before.inputs[found.changed] < 10).all()


def test_expressions_without_brackets_have_no_digit_to_replace():
    assert list(load_task("listops", paper_compatible=True).corruptions) == ["resample"]

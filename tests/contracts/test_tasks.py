"""What every task promises; a new file in ``fpt_viz/tasks`` is checked without an edit here."""

from __future__ import annotations

from itertools import combinations
import json
import math
from pathlib import Path
import tomllib

import numpy as np
import pytest
from scipy.special import log_softmax
import tomli_w
import torch
from torch import Tensor

from fpt_viz import registry
from fpt_viz.backbones import load_backbone
from fpt_viz.config import TrainConfig
from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.tasks import Batch, Task, load_task
from fpt_viz.train import train

SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def _small_data(made_data: Path) -> None:
    """Tasks that read data sets find small made ones, in the published formats."""


@pytest.fixture(params=registry.names("tasks"))
def task(request: pytest.FixtureRequest) -> Task:
    return load_task(request.param)


def unchanged(task: Task) -> Task:
    """The task without random changes of its training examples."""
    return load_task(task.name, **{**task.options(), "augment": False}) if task.options().get("augment") else task


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(batch: Batch) -> list[bytes]:
    """The bytes of each input, without its padding."""
    lengths = [batch.inputs.shape[1]] * len(batch) if batch.mask is None else batch.mask.sum(1).tolist()
    return [row[:length].tobytes() for row, length in zip(batch.inputs.numpy(), lengths, strict=True)]


def logits_of(task: Task, batch: Batch) -> Tensor:
    return torch.randn(len(batch), task.n_readout, *task.output_shape, generator=generator(7))


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)


def test_a_task_has_a_test_file_with_its_own_oracles(task):
    assert (Path(__file__).parents[1] / "producers" / f"test_{task.name}.py").is_file()


@pytest.mark.parametrize("split", SPLITS)
def test_batches_have_the_shapes_that_the_task_says(task, rng, split):
    batch = task.sample(3, rng, split)

    assert (task.n_values is None) != (task.n_symbols is None)
    if task.n_values is not None:
        assert batch.inputs.shape[2:] == (task.n_values,)
        assert batch.inputs.dtype == torch.float32
    else:
        assert batch.inputs.ndim == 2
        assert batch.inputs.min() >= 0
        assert batch.inputs.max() < task.n_symbols
    assert len(batch) == 3
    assert batch.inputs.shape[1] <= task.n_tokens
    assert batch.targets[0].numel() == task.n_readout * math.prod(task.output_shape[:-1])
    assert batch.targets.dtype == torch.int64
    assert batch.targets.min() >= 0
    assert batch.targets.max() < task.n_classes == task.output_shape[-1]


def test_padding_comes_last_and_leaves_the_read_out_tokens(task, rng):
    batch = task.sample(64, rng)

    if batch.mask is not None:
        n_real = batch.mask.sum(1)
        assert n_real.min() >= task.n_readout
        assert torch.equal(batch.mask, torch.arange(batch.mask.shape[1]) < n_real[:, None])


def test_an_input_is_in_one_split_only(task):
    task = unchanged(task)
    seen = {
        split: {*rows(task.distinct(400, split, seed=1)), *rows(task.sample(200, generator(2), split))}
        for split in SPLITS
    }

    for one, other in combinations(SPLITS, 2):
        assert not seen[one] & seen[other]


def test_another_split_seed_gives_another_split(task):
    if "split_seed" in task.options():
        other = load_task(task.name, **{**task.options(), "split_seed": 1})
        assert set(rows(task.distinct(200, "validation"))) != set(rows(other.distinct(200, "validation")))


def test_the_generator_alone_decides_what_is_drawn(task):
    global_state = torch.get_rng_state()
    first, again, other = (task.sample(16, generator(seed)) for seed in (3, 3, 4))

    assert same(first, again)
    assert not same(first, other)
    assert torch.equal(torch.get_rng_state(), global_state)


def test_a_generator_goes_on_where_it_was(task, rng):
    assert not same(task.sample(16, rng), task.sample(16, rng))


@pytest.mark.parametrize("split", SPLITS)
def test_distinct_examples_are_distinct_and_as_many_as_asked_for(task, split):
    n_asked = min(100, task.n_examples(split) or 100)
    batch = task.distinct(n_asked, split, seed=5)

    assert len(set(rows(batch))) == len(batch) == n_asked
    assert same(batch, task.distinct(n_asked, split, seed=5))
    assert not same(batch, task.distinct(n_asked, split, seed=6))


def test_a_task_is_made_without_its_data(task, monkeypatch, tmp_path):
    monkeypatch.setenv("FPT_VIZ_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    elsewhere = load_task(task.name)

    assert len(elsewhere.token_names()) == elsewhere.n_tokens
    assert elsewhere.geometry() == task.geometry()


def test_fewer_distinct_examples_are_the_first_of_more(task):
    assert same(task.distinct(20, "test", seed=1), task.distinct(100, "test", seed=1)[:20])


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_that_holds_fewer_than_asked_for_is_given_whole_and_once(task, split):
    n_examples = task.n_examples(split)
    if n_examples is None:
        assert len(task.distinct(600, split)) == 600
        return
    whole = task.distinct(n_examples + 1, split)

    assert 0 < len(set(rows(whole))) == len(whole) == n_examples
    assert set(rows(unchanged(task).sample(100, generator(0), split))) <= set(rows(whole))


def test_labels_and_names_are_one_a_token(task, rng):
    batch = task.sample(2, rng)
    labels, names = task.labels(batch.inputs[0]), task.token_names()

    assert len(labels) == batch.inputs.shape[1]
    assert len(names) == task.n_tokens == len(set(names))
    assert all(labels)
    if batch.mask is None:  # where examples differ in length, a place alone says nothing of its token
        assert all(label.startswith(name) for label, name in zip(labels, names, strict=False))


def test_the_geometry_places_every_token(task):
    geometry = task.geometry()

    if geometry.image_size is None:
        assert len(geometry.group) == len(geometry.position) == task.n_tokens
        assert set(geometry.group) == set(range(len(geometry.groups)))
        assert len({*zip(geometry.group, geometry.position, strict=True)}) == task.n_tokens
    else:
        covered = np.zeros(geometry.image_size, int)
        for top, left, height, width in geometry.boxes:
            covered[top : top + height, left : left + width] += 1
        assert len(geometry.boxes) == task.n_tokens
        assert (covered == 1).all()


def test_needs_point_from_scored_tokens_to_other_tokens_that_a_causal_query_sees(task, rng):
    batch = task.sample(8, rng)
    needs = task.needs(batch.inputs)
    if needs is None:
        return
    n_tokens = batch.inputs.shape[1]
    earlier = torch.ones(n_tokens, n_tokens).tril(-1).bool()

    assert needs.shape == (8, n_tokens, n_tokens)
    assert needs.dtype == torch.bool
    assert not (needs & ~earlier).any()
    assert needs.any(-1).any(-1).all()
    if batch.mask is not None:
        assert not (needs & ~batch.mask[:, None]).any()


def test_what_the_inputs_decide_is_the_target(task, rng):
    batch = task.sample(64, rng)
    answer = task.answer(batch.inputs)
    if answer is None:
        return
    decided = answer >= 0

    assert answer.shape == batch.targets.shape
    assert decided.any()
    assert torch.equal(answer[decided], batch.targets[decided])


def test_tokens_of_bits_hold_nothing_but_what_stands_for_bits(task, rng):
    if task.bit_values is None:
        return
    assert 2 <= len(set(task.bit_values)) == len(task.bit_values) <= 3
    assert set(task.sample(16, rng).inputs.flatten().tolist()) == set(task.bit_values)


def test_a_random_guesser_has_the_accuracy_of_chance(task, rng):
    batch = task.sample(math.ceil(20_000 / task.sample(1, rng).targets.numel()), rng)
    right = task.correct(logits_of(task, batch), batch.targets)

    assert right.shape == batch.targets.shape
    spread = math.sqrt(task.chance * (1 - task.chance) / right.numel())
    assert abs(right.float().mean().item() - task.chance) < 5 * spread


def test_trivial_solvers_lie_between_chance_and_all_right(task):
    assert all(task.chance <= accuracy < 1 for accuracy in task.trivial.values())


def test_the_loss_is_the_mean_cross_entropy(task, rng):
    batch = task.sample(4, rng)
    logits = logits_of(task, batch)
    flat = log_softmax(logits.numpy().reshape(-1, task.n_classes).astype(float), axis=1)
    expected = -np.mean([row[target] for row, target in zip(flat, batch.targets.flatten().tolist(), strict=True)])

    assert task.loss(logits, batch.targets).item() == pytest.approx(expected, rel=1e-5)
    assert task.loss(torch.zeros_like(logits), batch.targets).item() == pytest.approx(math.log(task.n_classes))


def test_correct_and_logit_difference_are_those_of_a_slow_count(task, rng):
    batch = task.sample(2, rng)
    logits = logits_of(task, batch)
    right, difference = task.correct(logits, batch.targets), task.logit_difference(logits, batch.targets)

    targets = batch.targets.flatten().tolist()
    assert difference.shape == right.shape == batch.targets.shape
    rows_of_logits = logits.reshape(-1, task.n_classes).tolist()
    for row, target, is_right, gap in zip(
        rows_of_logits, targets, right.flatten().tolist(), difference.flatten().tolist(), strict=True
    ):
        best_other = max(value for i, value in enumerate(row) if i != target)
        assert is_right == (row[target] > best_other)
        assert gap == pytest.approx(row[target] - best_other, abs=1e-6)


def test_logits_of_another_shape_are_refused_with_both_shapes(task, rng):
    batch = task.sample(2, rng)
    logits = logits_of(task, batch)[:, :, ..., :-1]

    for ask in (task.loss, task.correct, task.logit_difference):
        with pytest.raises(ConfigError, match=rf"{task.name} wants logits of shape .*, got \(2, "):
            ask(logits, batch.targets)


def test_options_survive_json_and_toml(task):
    assert load_task(task.name, **json.loads(json.dumps(task.options()))) == task
    assert load_task(task.name, **tomllib.loads(tomli_w.dumps(task.options()))) == task


def test_a_task_is_frozen_and_can_be_a_key(task):
    assert {task: 1}[load_task(task.name)] == 1
    with pytest.raises(AttributeError):
        setattr(task, next(iter(task.options())), 1)


def test_an_unknown_option_is_named_with_those_there_are(task):
    known = sorted(task.options())
    with pytest.raises(UnknownNameError, match=f"no option of {task.name} '{known[0]}s'.* Did you mean '{known[0]}'"):
        load_task(task.name, **{f"{known[0]}s": 1})


def test_an_option_of_the_wrong_type_is_refused_by_name(task):
    for option in task.options():
        with pytest.raises(ConfigError, match=f"{option} of {task.name} must be"):
            load_task(task.name, **{option: [1]})


def test_an_unknown_split_is_named_with_those_there_are(task, rng):
    asks = (
        lambda: task.sample(1, rng, "valid"),
        lambda: task.distinct(1, "valid"),
        lambda: task.n_examples("valid"),
    )
    for ask in asks:
        with pytest.raises(UnknownNameError, match=r"no split 'valid'.*There are: test, train, validation"):
            ask()


def test_a_batch_is_cut_by_slice_and_by_index(task, rng):
    batch = task.sample(5, rng)
    index = torch.tensor([4, 0])

    assert torch.equal(batch[1:3].inputs, batch.inputs[1:3])
    assert torch.equal(batch[index].targets, batch.targets[index])
    assert len(batch[index].to("cpu")) == 2


@pytest.mark.parametrize("family", registry.names("backbones"))
def test_a_task_trains_on_a_tiny_model_of_every_family(task, family):
    [preset] = [name for name in registry.load("backbones", family).presets if name.endswith("-tiny-random")]
    model = FrozenPretrainedTransformer(load_backbone(preset, "random"), task)
    ledger = model.ledger()

    steps = list(train(model, task, TrainConfig(n_steps=20, batch_size=2)))

    assert len(steps) == 20
    assert all(math.isfinite(step.loss) for step in steps)
    assert model.verify(ledger) == []

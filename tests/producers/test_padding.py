"""Padded tokens are never attended to, read out or counted, on the tasks whose examples differ in length."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import fpt_viz as fpt
from fpt_viz import registry
from fpt_viz.errors import ConfigError
from fpt_viz.tasks import Batch, Task, load_task

OPTIONS = {"listops": {"max_tokens": 40}, "remote_homology": {"max_tokens": 64}}
SEED = 3


FAMILIES = registry.names("backbones")
ATTENTION = pytest.mark.parametrize(
    "preset", [name for name in FAMILIES if registry.load("backbones", name).has_attention], indirect=True
)
"""For what is asked of heads."""


@pytest.fixture(params=FAMILIES)
def preset(request: pytest.FixtureRequest) -> str:
    [name] = [name for name in registry.load("backbones", request.param).presets if name.endswith("-tiny-random")]
    return str(name)


@pytest.fixture(params=sorted(OPTIONS))
def task(request: pytest.FixtureRequest, made_data: object) -> Task:
    return load_task(request.param, **OPTIONS[request.param])


@pytest.fixture
def model(preset: str, task: Task) -> fpt.FrozenPretrainedTransformer:
    backbone = fpt.load_backbone(preset, "random", seed=1)
    return fpt.FrozenPretrainedTransformer(backbone, task, ("all",), seed=2).eval()


@pytest.fixture
def batch(task: Task) -> Batch:
    """Examples of several lengths, padded to the longest that there may be."""
    found = task.distinct(8, "validation", seed=SEED)
    assert found.mask is not None
    assert len(set(found.mask.sum(1).tolist())) > 3
    assert not found.mask.all(0).all()
    return found


def alone(batch: Batch, i: int) -> Batch:
    """Example ``i`` without any padding."""
    assert batch.mask is not None
    n_tokens = int(batch.mask[i].sum())
    return Batch(batch.inputs[i : i + 1, :n_tokens], batch.targets[i : i + 1])


def with_other_padding(batch: Batch, task: Task) -> Batch:
    """The same examples, with random symbols where the padding is."""
    other = torch.randint(task.n_symbols, batch.inputs.shape, generator=torch.Generator().manual_seed(9))
    return replace(batch, inputs=torch.where(batch.mask, batch.inputs, other))


@torch.no_grad()
def test_a_padded_batch_equals_its_examples_one_by_one(model, batch):
    together = model(batch.inputs, mask=batch.mask)

    for i in range(len(batch)):
        torch.testing.assert_close(together[i], model(alone(batch, i).inputs)[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_trimmed_batch_is_as_long_as_its_longest_example_and_says_the_same(model, batch):
    trimmed = batch.trimmed()
    n_tokens = max(int(mask.nonzero().max()) + 1 for mask in batch.mask)

    assert trimmed.inputs.shape[1] == trimmed.mask.shape[1] == n_tokens < batch.inputs.shape[1]
    assert torch.equal(trimmed.inputs, batch.inputs[:, :n_tokens])
    assert torch.equal(trimmed.targets, batch.targets)
    assert torch.equal(trimmed.mask.sum(1), batch.mask.sum(1))
    torch.testing.assert_close(model(trimmed.inputs, trimmed.mask), model(batch.inputs, batch.mask))


def test_only_padding_is_trimmed(batch):
    longest = int(batch.mask.sum(1).argmax())
    whole = batch[longest : longest + 1].trimmed()

    assert whole.mask.all()
    assert whole.trimmed().inputs.shape == whole.inputs.shape
    unmasked = Batch(batch.inputs, batch.targets)
    assert unmasked.trimmed() is unmasked
    assert len(batch[:0].trimmed()) == 0


@torch.no_grad()
def test_what_stands_in_the_padding_changes_nothing(model, batch, task):
    other = with_other_padding(batch, task)

    assert not torch.equal(other.inputs, batch.inputs)
    torch.testing.assert_close(model(other.inputs, mask=batch.mask), model(batch.inputs, mask=batch.mask))


def test_gradients_of_a_padded_batch_are_those_of_its_examples_one_by_one(model, batch, task):
    task.loss(model(batch.inputs, mask=batch.mask), batch.targets).backward()
    together = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    model.zero_grad()
    for i in range(len(batch)):
        single = alone(batch, i)
        (task.loss(model(single.inputs), single.targets) / len(batch)).backward()

    for name, parameter in model.named_parameters():
        if name in together:
            torch.testing.assert_close(together[name], parameter.grad, atol=1e-5, rtol=1e-3)


def test_the_last_real_token_is_read_out(model, batch):
    ends = [int(mask.nonzero().max()) for mask in batch.mask]

    assert model.readout_tokens(batch.inputs.shape[1], batch.mask)[:, 0].tolist() == ends


@ATTENTION
def test_no_captured_row_looks_at_padding(model, batch):
    weights = fpt.capture_attention(model, batch, queries=None).weights

    padded_keys = ~batch.mask[None, :, None, None, :]
    assert weights.masked_select(padded_keys).abs().max() == 0
    for i in range(len(batch)):
        single = alone(batch, i)
        n_tokens = single.inputs.shape[1]
        expected = fpt.capture_attention(model, single, queries=None).weights[:, 0]
        torch.testing.assert_close(weights[:, i, :, :n_tokens, :n_tokens], expected, atol=1e-6, rtol=1e-4)
        assert weights[:, i, :, n_tokens:].abs().max() == 0  # rows of padding are blank


@ATTENTION
def test_statistics_count_no_padding(model, task):
    n_examples = 10
    found = fpt.head_statistics(model, task, n_examples=n_examples, batch_size=3, seed=SEED)
    batch = task.distinct(n_examples, "validation", seed=SEED)
    patterns = [fpt.capture_attention(model, alone(batch, i), queries=None).weights[:, 0] for i in range(len(batch))]

    n_tokens, n_rows = batch.inputs.shape[1], sum(pattern.shape[2] for pattern in patterns)
    total = torch.zeros(*patterns[0].shape[:2], n_tokens, n_tokens, dtype=torch.float64)
    seen = torch.zeros(n_tokens, n_tokens, dtype=torch.float64)
    sums = {
        name: torch.zeros(patterns[0].shape[:2], dtype=torch.float64) for name in ("entropy", "distance", "sink_mass")
    }
    for pattern in map(torch.Tensor.double, patterns):
        n = pattern.shape[2]
        total[:, :, :n, :n] += pattern
        seen[:n, :n] += 1
        place = torch.arange(n)
        sums["entropy"] += torch.special.entr(pattern).sum((2, 3)) / torch.log(torch.tensor(2.0))
        sums["distance"] += (pattern * (place[:, None] - place).abs()).sum((2, 3))
        sums["sink_mass"] += pattern[..., 0].sum(2)

    torch.testing.assert_close(found.mean_pattern.double(), total / seen.clamp(min=1), atol=1e-5, rtol=1e-4)
    for name, value in sums.items():
        torch.testing.assert_close(getattr(found, name).double(), value / n_rows, atol=1e-4, rtol=1e-4)


@ATTENTION
def test_statistics_compute_no_column_that_is_all_padding(model, task):
    batch, seen = task.distinct(10, "validation", seed=SEED), []
    model.backbone.register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[0].shape[1]))

    found = fpt.head_statistics(model, task, n_examples=10, batch_size=3, seed=SEED)

    assert seen == [int(batch.mask[start : start + 3].sum(1).max()) for start in range(0, 10, 3)]
    assert found.mean_pattern.shape[2:] == (task.n_tokens, task.n_tokens)
    assert found.queries == tuple(range(task.n_tokens))


@ATTENTION
@pytest.mark.parametrize("tokens", [[30, 2], [39]])
def test_rows_that_no_example_of_a_batch_has_are_counted_in_none(preset, tokens):
    task = load_task("listops", **OPTIONS["listops"])
    model = fpt.FrozenPretrainedTransformer(fpt.load_backbone(preset, "random", seed=1), task, seed=2).eval()
    options = {"n_examples": 12, "seed": SEED, "queries": tokens}

    found, expected = (fpt.head_statistics(model, task, batch_size=size, **options) for size in (1, 12))

    torch.testing.assert_close(found.mean_pattern, expected.mean_pattern)
    torch.testing.assert_close(found.entropy, expected.entropy)


@ATTENTION
def test_routing_scores_count_no_padding(preset):
    task = load_task("listops", **OPTIONS["listops"])
    model = fpt.FrozenPretrainedTransformer(fpt.load_backbone(preset, "random", seed=1), task, seed=2).eval()
    found = fpt.head_statistics(model, task, n_examples=10, batch_size=4, seed=SEED)
    batch = task.distinct(10, "validation", seed=SEED)

    total, n_scored, uniform = torch.zeros(model.backbone.n_layers, model.backbone.n_heads), 0, 0.0
    for i in range(len(batch)):
        single = alone(batch, i)
        pattern = fpt.capture_attention(model, single, queries=None).weights[:, 0]
        needs = task.needs(single.inputs)[0]
        for query in needs.any(1).nonzero()[:, 0].tolist():
            total += pattern[:, :, query, needs[query]].sum(-1)
            reach = model.backbone.reach or len(needs)
            visible = range(
                max(0, query - reach), query + 1 if model.backbone.causal else min(len(needs), query + reach + 1)
            )
            uniform += needs[query, visible].sum().item() / len(visible)
            n_scored += 1

    torch.testing.assert_close(found.routing_score, total / n_scored, atol=1e-5, rtol=1e-4)
    assert found.uniform == pytest.approx(uniform / n_scored, rel=1e-5)


def test_the_mean_over_read_out_rows_is_refused_where_they_differ(model, task):
    with pytest.raises(ConfigError, match="the tokens that are read out differ between examples"):
        fpt.head_statistics(model, task, n_examples=10, queries="readout")


def test_accuracy_and_loss_are_those_of_the_examples_one_by_one(model, task):
    found = fpt.evaluate(model, task, n_examples=12, split="test", batch_size=5)
    batch = task.distinct(12, "test")
    with torch.no_grad():
        logits = [model(alone(batch, i).inputs) for i in range(len(batch))]
    losses = [task.loss(one, batch.targets[i : i + 1]).item() for i, one in enumerate(logits)]
    right = [task.correct(one, batch.targets[i : i + 1]).float().mean().item() for i, one in enumerate(logits)]

    assert found.loss == pytest.approx(sum(losses) / len(batch), rel=1e-4)
    assert found.accuracy == pytest.approx(sum(right) / len(batch))


def test_twenty_steps_train_on_ragged_batches(preset, task):
    model = fpt.FrozenPretrainedTransformer(fpt.load_backbone(preset, "random", seed=1), task, seed=2)
    steps = [*fpt.train(model, config=fpt.TrainConfig(n_steps=20, batch_size=8))]

    assert len(steps) == 20
    assert all(torch.isfinite(torch.tensor(step.loss)) for step in steps)

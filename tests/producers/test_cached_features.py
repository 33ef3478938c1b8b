"""Where the output layer alone learns, steps on kept features are those of the plain loop without dropout."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch

import fpt_viz as fpt
from fpt_viz import features as module
from fpt_viz.backbones import load_backbone
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.features import Features
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import Step, store
from fpt_viz.run_folder import RunFolder
from fpt_viz.tasks import Batch, Task, load_task
from fpt_viz.train import run, train

CONFIG = TrainConfig(n_steps=30, batch_size=8, learning_rate=0.01, validate_every=10, n_validation=16, seed=2)
TASKS: dict[str, dict[str, Any]] = {
    "bit_xor": {"n_bits": 4},
    "digits": {"patch_size": 4},
    "remote_homology": {"max_tokens": 48},
    "bit_memory": {"n_strings": 2, "n_bits": 8, "patch_size": 4},
}


@pytest.fixture(params=TASKS)
def task(request, made_data) -> Task:
    return load_task(request.param, **TASKS[request.param])


@pytest.fixture
def xor() -> Task:
    return load_task("bit_xor", n_bits=4)


def model(task: Task, trained: tuple[str, ...] = ("output",), backbone: str = "bert-tiny-random") -> Any:
    return FrozenPretrainedTransformer(load_backbone(backbone, "random"), task, trained, seed=1)


def test_steps_are_those_of_the_plain_loop_without_dropout(task):
    kept, plain = model(task), model(task)

    found = list(train(kept, config=CONFIG))
    wanted = list(train(plain, config=replace(CONFIG, cache_features=False, dropout=0.0)))

    for one, other in zip(found, wanted, strict=True):
        assert one.loss == pytest.approx(other.loss, abs=1e-5)
        assert one.accuracy == pytest.approx(other.accuracy)
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-3)
    torch.testing.assert_close(kept.output.weight, plain.output.weight, atol=1e-4, rtol=0)
    assert not torch.equal(kept.output.weight, model(task).output.weight)


def test_checks_are_the_evaluation_of_the_whole_model(task):
    trained = model(task)
    step = list(train(trained, config=CONFIG))[-1]

    expected = fpt.evaluate(trained, n_examples=16, split="validation")

    assert step.validation.accuracy == expected.accuracy
    assert step.validation.exact == expected.exact
    assert step.validation.loss == pytest.approx(expected.loss, abs=1e-5)
    assert replace(step.validation, loss=expected.loss) == expected


def test_with_dropout_the_loop_is_another(xor):
    kept, dropped = model(xor), model(xor)
    losses = [[step.loss for step in train(one, config=config)] for one, config in (
        (kept, CONFIG), (dropped, replace(CONFIG, cache_features=False)),
    )]  # fmt: skip
    assert losses[0] != pytest.approx(losses[1], abs=1e-4)


def n_passes(one: Any, config: TrainConfig, *, skip: int) -> int:
    """How often the backbone runs from step ``skip`` on."""
    passes: list[None] = []
    steps = train(one, config=config)
    assert len(list(islice(steps, skip))) == skip
    with_hook = one.backbone.register_forward_hook(lambda *_: passes.append(None))
    assert len(list(steps)) == config.n_steps - skip
    with_hook.remove()
    return len(passes)


def test_no_step_runs_the_backbone_once_features_are_kept(xor):
    config = replace(CONFIG, validate_every=5)
    assert n_passes(model(xor), config, skip=5) == 0
    assert n_passes(model(xor), replace(config, cache_features=False), skip=5) >= 25


def test_what_is_kept_is_the_training_split_where_it_will_be_seen_through(xor):
    n_train = xor.n_examples("train")

    def kept(**options) -> int:
        found = Features.of(model(xor), xor, replace(CONFIG, **options))
        assert found is not None
        return found.n_kept

    assert kept() == n_train <= 30 * 8
    assert kept(n_steps=n_train // 8) == n_train
    assert kept(n_steps=n_train // 8 - 1) == 0


def test_short_runs_and_long_ones_take_the_same_first_steps(xor):
    short, long = (
        [step.loss for step in islice(train(model(xor), config=replace(CONFIG, n_steps=n)), 3)] for n in (3, 60)
    )
    assert short == pytest.approx(long, abs=1e-6)


def test_examples_without_end_or_too_many_or_new_each_time_are_not_kept(xor, made_data, monkeypatch):
    images = load_task("fashion_mnist", patch_size=14, n_validation=10, augment=True)
    endless = load_task("bit_memory", **TASKS["bit_memory"])
    many = replace(CONFIG, n_steps=10_000)
    for task in (images, endless):
        found = Features.of(model(task), task, many)
        assert found is not None
        assert found.n_kept == 0
    plain = load_task("fashion_mnist", patch_size=14, n_validation=10)
    assert Features.of(model(plain), plain, many).n_kept == plain.n_examples("train")
    n_values = xor.n_tokens + xor.n_readout * 32
    for missing, kept in ((0, 128), (1, 0)):
        monkeypatch.setattr(module, "BUDGET_BYTES", 4 * 128 * n_values - missing)
        assert Features.of(model(xor), xor, CONFIG).n_kept == kept


def test_augmented_images_train_without_dropout_too(made_data):
    task = load_task("fashion_mnist", patch_size=14, n_validation=10, augment=True)
    losses = [
        [step.loss for step in train(model(task), config=replace(CONFIG, **options))]
        for options in ({}, {"cache_features": False, "dropout": 0.0})
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize("options", [{"cache_features": False}, {"dropout": 0.1}])
def test_features_are_not_kept_where_the_config_says_so(xor, options):
    assert Features.of(model(xor), xor, replace(CONFIG, **options)) is None
    assert Features.of(model(xor), xor, replace(CONFIG, dropout=0.0)) is not None


def test_features_are_not_kept_where_more_than_the_output_layer_learns(xor):
    for trained in (("output", "layer_norm"), ("input",), ("all",)):
        assert Features.of(model(xor, trained), xor, CONFIG) is None
    longer = load_task("bit_xor", n_bits=81)  # the tiny BERT has 160 positions, and new ones always train
    assert Features.of(model(longer), longer, CONFIG) is None


@torch.no_grad()
def test_other_examples_than_those_kept_are_computed(task):
    one = model(task)
    found = Features.of(one, task, replace(CONFIG, n_steps=10_000))
    mixed = [task.distinct(4, "test"), task.distinct(4, "train")]
    masks = None if mixed[0].mask is None else torch.cat([part.mask for part in mixed])
    batch = Batch(torch.cat([part.inputs for part in mixed]), torch.cat([part.targets for part in mixed]), masks)

    torch.testing.assert_close(found(batch), one.eval().features(batch.inputs, batch.mask), atol=1e-5, rtol=0)
    assert found.n_kept == (0 if task.name == "bit_memory" else task.n_examples("train"))


def test_examples_are_told_apart_by_their_real_tokens_whatever_the_padding():
    inputs, targets = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 0, 5]]), torch.zeros(3, 1, dtype=torch.long)
    lengths = torch.tensor([[3], [2], [2]])

    long, short, other_padding = module._keys(Batch(inputs, targets, torch.arange(3) < lengths))
    [narrower] = module._keys(Batch(inputs[:1, :2], targets[:1]))

    assert long != short
    assert short == other_padding == narrower
    assert long == module._keys(Batch(inputs, targets))[0]


def test_the_callers_mode_and_random_state_are_left_alone(xor):
    one = model(xor).train()
    before = torch.get_rng_state()
    assert Features.of(one, xor, CONFIG).n_kept > 0
    assert one.training
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_says_how_many_it_kept_and_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    train_config = replace(CONFIG, checkpoint_every=7)
    config = RunConfig(
        task=TaskConfig(name="bit_xor", options={"n_bits": 4}),
        backbone=BackboneConfig(name="bert-tiny-random", init="random"),
        trained=("output",),
        train=train_config,
    )
    unbroken = run(config, tmp_path / "unbroken")
    add = RunFolder.add

    def stops(folder: RunFolder, step: Step) -> None:
        add(folder, step)
        if step.index == 17:
            raise ZeroDivisionError

    monkeypatch.setattr(RunFolder, "add", stops)
    with pytest.raises(ZeroDivisionError):
        run(config, tmp_path / "cut")
    monkeypatch.undo()
    resumed = run(config, tmp_path / "cut", resume=True)

    one, other = (store.read_tensors(r.path / "adapter.safetensors", "adapter")[0] for r in (unbroken, resumed))
    assert one.keys() == other.keys() == {"output.weight", "output.bias"}
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert unbroken.result["n_cached"] == resumed.result["n_cached"] == 128
    whole = run(replace(config, trained=("output", "input")), tmp_path / "whole")
    assert whole.result["n_cached"] == 0

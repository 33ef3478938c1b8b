"""What a gradient step needs is known before it is taken, and one that cannot fit is refused with the cure."""

from __future__ import annotations

from dataclasses import replace
import re

import pytest
import torch

import fpt_viz as fpt
from fpt_viz import memory
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.errors import ConfigError
from fpt_viz.memory import available_bytes, check_fits, estimate, peak_bytes
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.tasks import load_task
from fpt_viz.training_pass import TrainingPass
from fpt_viz.training_state import TrainingState
from fpt_viz.updates import Updates

CONFIG = TrainConfig(batch_size=32, dropout=0.1)


def make() -> FrozenPretrainedTransformer:
    return FrozenPretrainedTransformer(fpt.load_backbone("bert-tiny-random", init="random"), load_task("bit_xor"))


def weights_of(model: FrozenPretrainedTransformer) -> int:
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


@pytest.mark.parametrize(
    "options", [{}, {"checkpoint_blocks": True}, {"dropout": 0.0}], ids=["kept", "checkpointed", "without-dropout"]
)
def test_the_estimate_is_what_a_whole_step_holds(options):
    model, config = make(), replace(CONFIG, **options)
    model.set_dropout(config.dropout)
    told = estimate(model, config).of(32)
    step = fpt.train(make(), config=config)
    held = weights_of(model) + peak_bytes(lambda: next(step))
    assert told == pytest.approx(held, rel=0.1)


def test_estimating_changes_nothing():
    model = make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    model.eval()
    estimate(model, CONFIG)
    assert torch.equal(torch.rand(3), drawn)
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_low_precision_and_checkpointing_are_in_it():
    plain, low, again = (
        estimate(make(), replace(CONFIG, **options))
        for options in ({}, {"precision": "bfloat16"}, {"checkpoint_blocks": True})
    )
    assert low.fixed_bytes > plain.fixed_bytes  # frozen matrices twice
    assert low.bytes_per_example < plain.bytes_per_example
    assert again.bytes_per_example < 0.6 * plain.bytes_per_example


def test_a_batch_that_does_not_fit_is_refused_before_the_run_begins(tmp_path, monkeypatch):
    needed = estimate(make(), CONFIG)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 10 * needed.bytes_per_example)
    config = RunConfig(
        task=TaskConfig(name="bit_xor"),
        backbone=BackboneConfig(name="bert-tiny-random", init="random"),
        train=replace(CONFIG, n_steps=1),
    )
    with pytest.raises(ConfigError, match="a step of 32 examples at a time needs about") as refused:
        fpt.run(config, tmp_path / "run", progress=False)
    [(n_parts, n_at_once)] = re.findall(r"train\.n_parts=(\d+), which computes (\d+) at a time", str(refused.value))
    assert int(n_at_once) == -(-32 // int(n_parts))
    assert not (tmp_path / "run/config.toml").exists()
    cured = replace(config, train=replace(config.train, n_parts=int(n_parts)))
    assert fpt.run(cured, tmp_path / "run", progress=False).steps


def test_where_not_one_example_fits_that_is_said(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 0)
    with pytest.raises(ConfigError, match="at most 0 fit: train.checkpoint_blocks=true needs much less for each"):
        check_fits(make(), CONFIG)
    with pytest.raises(ConfigError, match="at most 0 fit: choose a smaller backbone or shorter inputs"):
        check_fits(make(), replace(CONFIG, checkpoint_blocks=True))


V1 = {"limit": "memory/memory.limit_in_bytes", "used": "memory/memory.usage_in_bytes", "stat": "memory/memory.stat"}
V2 = {"limit": "memory.max", "used": "memory.current", "stat": "memory.stat"}


@pytest.mark.parametrize(("files", "cache"), [(V1, "total_inactive_file"), (V2, "inactive_file")], ids=["v1", "v2"])
def test_a_containers_limit_counts(files, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    cpu = torch.device("cpu")
    assert available_bytes(cpu) > 3400
    (tmp_path / "memory").mkdir()
    (tmp_path / files["limit"]).write_text("5000\n")
    (tmp_path / files["used"]).write_text("2000\n")
    (tmp_path / files["stat"]).write_text(f"anon 1600\n{cache} 400\n")
    assert available_bytes(cpu) == 3400
    (tmp_path / files["limit"]).write_text("max\n")
    assert available_bytes(cpu) > 3400


def test_examples_count_as_long_as_the_longest_can_be():
    task = load_task("listops", min_tokens=8, max_tokens=96)
    model = FrozenPretrainedTransformer(fpt.load_backbone("bert-tiny-random", init="random"), task)
    told = estimate(model, CONFIG).of(16)
    batch = task.distinct(16, "train")
    assert batch.inputs.shape[1] == task.n_tokens
    state = TrainingState(model, CONFIG)
    passes, updates = TrainingPass(model, CONFIG), Updates(task, state, CONFIG)
    held = weights_of(model) + peak_bytes(lambda: updates.take([batch], passes.of, 1e-3))
    assert told == pytest.approx(held, rel=0.1)


def test_what_is_yet_to_be_made_is_not_counted_as_held(monkeypatch):
    task = load_task("bit_xor")
    model = FrozenPretrainedTransformer(fpt.load_backbone("bert-tiny-random", init="random"), task, ("all",))
    model.set_dropout(0.1)
    needed = estimate(model, CONFIG).of(32)
    monkeypatch.setattr(memory, "available_bytes", lambda device: needed - weights_of(model))
    check_fits(model, CONFIG)
    monkeypatch.setattr(memory, "available_bytes", lambda device: needed - weights_of(model) - 1)
    with pytest.raises(ConfigError, match="a step of 32 examples at a time needs"):
        check_fits(model, CONFIG)

"""A batch is computed in parts where that costs no time, and the step is that of the whole batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import fpt_viz as fpt
from fpt_viz import memory, training_pass
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.errors import ConfigError
from fpt_viz.memory import check_fits, estimate, peak_bytes
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.tasks import load_task
from fpt_viz.tasks.bit_xor import BitXor
from fpt_viz.training_pass import n_parts_of
from fpt_viz.updates import Updates

BATCH, N_BITS = 64, 3
STILL = TrainConfig(dropout=0.0, batch_size=BATCH, n_steps=3)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(training_pass, "PART_TOKENS", 96)  # 64 examples of 6 tokens are four parts


def make(task: str = "bit_xor", **options: Any) -> FrozenPretrainedTransformer:
    options = options or {"n_bits": N_BITS}
    return FrozenPretrainedTransformer(fpt.load_backbone("bert-tiny-random", init="random"), load_task(task, **options))


def sizes_of(monkeypatch) -> list[list[int]]:
    """Of each step that is taken from now on, the examples in its parts."""
    seen: list[list[int]] = []
    take = Updates.take

    def noted(self: Any, parts: Any, *rest: Any) -> Any:
        seen.append([len(part) for part in parts])
        return take(self, parts, *rest)

    monkeypatch.setattr(Updates, "take", noted)
    return seen


@pytest.mark.parametrize(("batch", "wanted"), [(64, [16] * 4), (31, [31]), (40, [20, 20]), (50, [17, 17, 16])], ids=str)
def test_parts_have_about_so_many_tokens(batch, wanted, monkeypatch):
    seen = sizes_of(monkeypatch)
    next(fpt.train(make(), config=replace(STILL, batch_size=batch)))
    assert seen == [wanted]


def test_no_part_is_smaller_than_an_example(monkeypatch):
    monkeypatch.setattr(training_pass, "PART_TOKENS", 1)
    seen = sizes_of(monkeypatch)
    next(fpt.train(make(), config=replace(STILL, batch_size=5)))
    assert seen == [[1] * 5]


@pytest.mark.parametrize("task", ["bit_xor", "listops"])
def test_the_step_is_that_of_the_whole_batch(task):
    options = {"min_tokens": 8, "max_tokens": 24} if task == "listops" else {}
    found = []
    for n_parts in (None, 1):
        model = make(task, **options)
        steps = [*fpt.train(model, config=replace(STILL, n_parts=n_parts))]
        found.append({name: tensor.detach() for name, tensor in model.trained_tensors().items()})
        found[-1]["loss"] = torch.tensor([step.loss for step in steps])
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-5) for name in found[1])


def peak_of(config: TrainConfig) -> int:
    steps = fpt.train(make(), config=config)
    next(steps)
    return peak_bytes(lambda: next(steps))


def test_four_parts_hold_a_quarter():
    assert peak_of(STILL) < 0.3 * peak_of(replace(STILL, n_parts=1))


def whole(model: FrozenPretrainedTransformer) -> bool:
    return n_parts_of(model, STILL) == 1


@dataclass(frozen=True)
class Worst(BitXor):
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none").max()


def test_a_loss_of_the_tasks_own_sees_the_whole_batch():
    assert not whole(make())
    assert whole(
        FrozenPretrainedTransformer(fpt.load_backbone("bert-tiny-random", init="random"), Worst(n_bits=N_BITS))
    )


def test_hooks_and_a_forward_of_ones_own_see_the_whole_batch():
    model = make()
    seen: list[int] = []
    with model.backbone.blocks[0].register_forward_hook(lambda module, given, found: seen.append(len(given[0]))):
        assert whole(model)
        next(fpt.train(model, config=STILL))
    assert seen == [BATCH]
    with model.hooks([("blocks.0.hook_resid_post", lambda x, point: None)]):
        assert whole(model)
    assert not whole(model)

    class Own(FrozenPretrainedTransformer):
        def forward(self, *given: Any, **options: Any) -> Tensor:
            return super().forward(*given, **options)

    assert whole(Own(fpt.load_backbone("bert-tiny-random", init="random"), BitXor(n_bits=N_BITS)))


def test_a_loss_of_the_tasks_own_counts_whichever_task_the_model_was_made_with(monkeypatch):
    seen = sizes_of(monkeypatch)
    next(fpt.train(make(), Worst(n_bits=N_BITS), config=STILL))
    assert seen == [[BATCH]]


def test_parts_are_decided_once_when_training_starts(monkeypatch):
    seen = sizes_of(monkeypatch)
    model = make()
    steps = fpt.train(model, config=STILL)
    next(steps)
    with model.backbone.blocks[0].register_forward_hook(lambda module, given, found: None):
        next(steps)
    next(steps)
    assert seen == [[16] * 4] * 3


def test_a_run_records_the_parts_that_it_used(tmp_path):
    config = RunConfig(
        task=TaskConfig(name="bit_xor", options={"n_bits": N_BITS}),
        backbone=BackboneConfig(name="bert-tiny-random", init="random"),
        train=replace(STILL, n_steps=1),
    )
    assert fpt.run(config, tmp_path, progress=False).result["n_parts"] == 4
    assert "n_parts" not in (tmp_path / "config.toml").read_text()


def test_other_devices_than_the_cpu_take_the_whole_batch():
    assert whole(make().to("meta"))


def test_what_is_asked_for_is_done(monkeypatch):
    seen = sizes_of(monkeypatch)
    next(fpt.train(make(), config=replace(STILL, n_parts=2)))
    assert seen == [[32, 32]]
    with pytest.raises(ConfigError, match=r"train.n_parts must be at least 1, got 0"):
        TrainConfig(n_parts=0)


def test_a_batch_whose_parts_fit_is_not_refused(monkeypatch):
    model = make()
    needed = estimate(model, STILL)
    monkeypatch.setattr(memory, "available_bytes", lambda device: needed.of(20))
    check_fits(model, STILL)
    with pytest.raises(ConfigError, match="a step of 64 examples at a time"):
        check_fits(model, replace(STILL, n_parts=1))

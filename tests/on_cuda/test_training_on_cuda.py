"""Training on a CUDA device: the CPU's numbers, and a host that does not wait."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import fpt_viz as fpt
from fpt_viz.config import TrainConfig
from fpt_viz.errors import TrainingError
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.training_pass import replays_graphs

pytestmark = pytest.mark.cuda

FAMILIES = ("bert", "gpt2", "llama", "vit", "t5", "longformer", "lstm")
TASKS = {"bit_xor": {"n_bits": 3}, "listops": {"min_tokens": 8, "max_tokens": 24}}
LISTOPS = pytest.param("listops", id="padded")


def make(device: str, family: str = "bert", task: str = "bit_xor") -> FrozenPretrainedTransformer:
    torch.manual_seed(0)
    backbone = fpt.load_backbone(f"{family}-tiny-random", init="random")
    return FrozenPretrainedTransformer(backbone, fpt.load_task(task, **TASKS[task])).to(device)


def losses(model: FrozenPretrainedTransformer, n_steps: int = 4, **options: Any) -> torch.Tensor:
    """Loss and norm of the gradient at each step, read at the end."""
    config = TrainConfig(**{"n_steps": 100, "batch_size": 8, "dropout": 0.0, "n_validation": 16} | options)
    steps = fpt.train(model, config=config)
    measured = [next(steps).measured for _ in range(n_steps)]
    return torch.tensor([[float(each["loss"]), float(each["grad_norm"])] for each in measured])


@pytest.mark.parametrize("task", ["bit_xor", LISTOPS])
@pytest.mark.parametrize("family", FAMILIES)
def test_steps_are_those_of_the_cpu(family, task):
    torch.testing.assert_close(
        losses(make("cuda", family, task)), losses(make("cpu", family, task)), atol=1e-4, rtol=1e-3
    )


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5"])
def test_steps_in_bfloat16_are_near_those_in_float32(family):
    low, exact = losses(make("cuda", family), precision="auto"), losses(make("cuda", family))
    assert (low != exact).any()  # it was bfloat16
    torch.testing.assert_close(low, exact, atol=0.02, rtol=0.05)


@pytest.mark.parametrize("options", [{"checkpoint_blocks": True}, {"n_parts": 2}], ids=str)
def test_options_change_no_number(options):
    torch.testing.assert_close(losses(make("cuda"), **options), losses(make("cuda")), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.1, "validate_every": 2}, {"precision": "auto"}], ids=str)
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_compiled_steps_are_the_plain_ones(family, options, caplog):
    """On a pretended device nothing can be compiled, so there this is the fall-back, which the log tells."""
    plain = losses(make("cuda", family), **options)
    with caplog.at_level("WARNING"):
        compiled = losses(make("cuda", family), compile=True, **options)
    torch.testing.assert_close(compiled, plain, atol=1e-3, rtol=1e-2)
    refused = [record.getMessage() for record in caplog.records if record.name == "fpt_viz.compiled"]
    assert len(refused) == (torch.version.cuda is None), refused


def test_graphs_are_replayed_of_short_sequences_in_whole_batches():
    short, cpu = make("cuda"), make("cpu")
    long = FrozenPretrainedTransformer(
        fpt.load_backbone("bert-tiny-random", init="random"), fpt.load_task("bit_xor", n_bits=65)
    ).to("cuda")
    assert replays_graphs(short, TrainConfig())
    assert not replays_graphs(short, TrainConfig(n_parts=2))
    assert not replays_graphs(cpu, TrainConfig())
    assert not replays_graphs(make("cuda", task="listops"), TrainConfig())  # of many lengths
    assert not replays_graphs(long, TrainConfig())


@pytest.mark.parametrize("task", ["bit_xor", LISTOPS])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "longformer"])
def test_the_host_does_not_wait_for_a_step(family, task, silent):
    steps = fpt.train(make("cuda", family, task), config=TrainConfig(n_steps=100, batch_size=8, precision="auto"))
    next(steps)  # the first makes what the others use
    with silent():
        for _ in range(3):
            next(steps)


def test_a_reading_is_noticed(silent):
    number = torch.ones((), device="cuda")
    with pytest.raises((AssertionError, RuntimeError)), silent():
        float(number)


def test_tensors_in_two_places_are_noticed():
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(3, device="cuda") + torch.ones(3)


def test_dropout_draws_on_the_device_what_its_seed_says():
    def trained() -> torch.Tensor:
        steps = fpt.train(make("cuda"), config=TrainConfig(n_steps=100, batch_size=8, dropout=0.3))
        return torch.stack([next(steps).measured["loss"].cpu() for _ in range(3)])

    first = trained()
    torch.rand(7, device="cuda")  # the caller's draws are the caller's
    assert torch.equal(trained(), first)
    assert not torch.equal(first, losses(make("cuda"), 3)[:, 0])


def test_a_step_that_is_not_finite_is_told_at_the_next_look_and_changes_nothing():
    model = make("cuda")
    steps = fpt.train(model, config=TrainConfig(n_steps=100, batch_size=8))
    next(steps)
    with torch.no_grad():
        model.output.weight[0, 0] = float("nan")
    before = {name: tensor.detach().clone() for name, tensor in model.trained_tensors().items()}
    with pytest.raises(TrainingError, match="at step 1"):
        list(itertools.islice(steps, 20))
    after = {name: tensor.detach() for name, tensor in model.trained_tensors().items()}
    torch.testing.assert_close(after, before, equal_nan=True)

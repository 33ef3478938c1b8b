"""What each measure of ``fpt.train`` saves: a step with it switched off, over a step with all of them.

Measures: kernels (GPT-2's GELU as one operation), dropout (four values to a random word, a byte kept for each),
attention (the plain product of softmax in training), narrow (the last feed-forward on read-out tokens alone),
optimizer (fused Adam), parts (a batch in parts of about a thousand tokens) and packed (frozen weights laid out for the
processor beforehand, with few tokens at a time); on CUDA, where torch's own kernels are used: kernels, narrow
and precision (bfloat16). Bytes are those of tensors alive at the peak, counted exactly: of
parts on the batch that is timed, of the others on a batch of 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers.activations import NewGELUActivation

from benchmarks import _machine
from benchmarks._measured import Measured
from benchmarks._timing import medians
import fpt_viz as fpt
from fpt_viz import dropout, kernel, plain_attention, prepacked, training_pass
from fpt_viz.memory import peak_bytes

PIXELS = ("digits", {"patch_size": 1})
SIZES: dict[str, tuple[str, tuple[str, dict[str, Any]], int]] = {
    "minilm": ("minilm", PIXELS, 64),
    "gpt2": ("gpt2", PIXELS, 16),
    "gpt2, 10 tokens": ("gpt2", ("bit_xor", {}), 16),
}
"""As it is printed -> backbone, task and examples in a timed step; digits are 64 tokens of a pixel each."""
OFF = {
    "cpu": ("kernels", "dropout", "attention", "narrow", "optimizer", "parts", "packed"),
    "cuda": ("kernels", "narrow", "precision"),  # and fused Adam, which leaves out steps that are not finite
}


def measure() -> Iterator[Measured]:
    """Times a step and its peak of bytes grow without each measure."""
    measures = OFF[_machine.device().type]
    for name, (backbone, task, n_examples) in SIZES.items():
        steps = {off: _machine.done(_step(backbone, task, n_examples, off)) for off in ("", *measures)}
        found = medians(steps, n_rounds=5)
        held = {off: peak_bytes(_step(backbone, task, 4, off)) for off in ("", *measures)}
        whole, in_parts = (peak_bytes(_step(backbone, task, n_examples, off)) for off in ("parts", ""))
        held["parts"] = held[""] * whole / in_parts
        yield Measured(name=f"{name}: a step", value=found[""], unit="s")
        for off in measures:
            ratio = found[off] / found[""]
            yield Measured(name=f"{name}: without {off}", value=ratio, unit="x the time", better="neither")
            ratio = held[off] / held[""]
            yield Measured(name=f"{name}: without {off}, peak", value=ratio, unit="x the bytes", better="neither")


def _step(backbone: str, of: tuple[str, dict[str, Any]], n_examples: int, off: str) -> Callable[[], None]:
    """A training step with the measure ``off`` switched off."""
    task = fpt.load_task(of[0], **of[1])
    model = fpt.FrozenPretrainedTransformer(fpt.load_backbone(backbone, init="random"), task).to(_machine.device())
    if off == "kernels":
        _unfuse(model)
    adam = torch.optim.Adam
    with patch.object(
        torch.optim,
        "Adam",
        lambda *given, fused, **options: adam(*given, fused=fused and off != "optimizer", **options),
    ):
        steps = fpt.train(model, config=_config(n_examples, off))
        with _without(off):
            next(steps)

    def step() -> None:
        with _without(off):
            next(steps)

    return step


def _config(n_examples: int, off: str) -> fpt.TrainConfig:
    return fpt.TrainConfig(
        n_steps=10_000,
        batch_size=n_examples,
        n_parts=1 if off == "parts" else None,
        precision="float32" if off == "precision" else "auto",
    )


def _unfuse(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if isinstance(module, nn.GELU) and module.approximate == "tanh":
                setattr(parent, name, NewGELUActivation())


@contextlib.contextmanager
def _without(off: str) -> Iterator[None]:
    """The library without the measure ``off``, within the block."""

    def plain(values: Tensor, rate: float, *, training: bool) -> Tensor:
        return nn.functional.dropout(values, rate, training)

    with contextlib.ExitStack() as undo:
        if off == "dropout":
            undo.enter_context(patch.object(dropout, "dropout", plain))
            undo.enter_context(patch.object(plain_attention, "draw_kept", _drawn_by_torch))
        if off == "attention":
            undo.enter_context(patch.object(kernel, "_plain_is_faster", lambda *given: False))
        if off == "packed":
            undo.enter_context(patch.object(prepacked, "MAX_ROWS", 0))
        if off == "narrow":
            undo.enter_context(patch.object(training_pass, "_looked_at", lambda model: True))
        yield


def _drawn_by_torch(shape: torch.Size, rate: float) -> tuple[Tensor, float]:
    return torch.empty(shape).bernoulli_(1 - rate), 1 / (1 - rate)

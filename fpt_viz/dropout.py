"""Dropout that draws its mask four values at a time and keeps it as one byte a value.

What torch does on the CPU draws a float for each value, in one thread, and keeps it for the backward pass: a fifth of a
training step of MiniLM on 64 tokens, and as much memory as the values themselves. Elsewhere torch's own is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LEVELS = 1 << 16
"""Values of the 16 bits that decide over one value: rates are exact to one part in so many."""


class _Masked(torch.autograd.Function):
    """A tensor times a mask and a factor; keeps the mask alone."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, keep: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.factor = factor
        return (values * keep).mul_(factor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return (gradients[0] * keep).mul_(ctx.factor), None, None


def dropout(values: Tensor, rate: float, *, training: bool) -> Tensor:
    """``values`` with a share ``rate`` of them zero, and the rest scaled up to the same mean (Srivastava et al., 2014).

    Args:
        values: Of any shape.
        rate: From 0 to below 1; on the CPU rounded to a 65,536th.
        training: Where not, ``values`` come back as they are.
    """
    if not training or rate == 0:
        return values
    if values.device.type != "cpu":
        return nn.functional.dropout(values, rate, training)
    found: Tensor = _Masked.apply(values, *draw_kept(values.shape, rate))  # type: ignore[no-untyped-call]
    return found


def draw_kept(shape: torch.Size, rate: float) -> tuple[Tensor, float]:
    """What :func:`dropout` keeps of values of ``shape`` on the CPU, True or False, and the factor of what is kept."""
    n_values = shape.numel()
    n_dropped = min(round(rate * LEVELS), LEVELS - 1)
    words = torch.empty(-(-n_values // 4), dtype=torch.int64).random_(-(1 << 63), None)
    bits = words.view(torch.int16)[:n_values].view(shape)
    return bits >= n_dropped - LEVELS // 2, LEVELS / (LEVELS - n_dropped)


class Dropout(nn.Dropout):
    """:func:`dropout` as a module."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name that torch gives it)
        """``input`` with a share ``p`` of it zero while training."""
        return dropout(input, self.p, training=self.training)

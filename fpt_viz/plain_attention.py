"""One layer's attention as a plain product of softmax, for training on the CPU.

Forwards the same as torch's; for the backward pass it keeps queries, keys, values, the pattern and a byte a weight of
what dropout left, where torch keeps the pattern twice and a float for each weight.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fpt_viz.dropout import draw_kept


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *numbers: float) -> Tensor:
        scaling, rate = numbers
        scores = (query * scaling) @ key.transpose(2, 3)
        if mask is not None and mask.dtype == torch.bool:
            scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
        elif mask is not None:
            scores = scores + mask
        pattern = scores.softmax(-1).to(query.dtype)
        keep, ctx.factor = draw_kept(pattern.shape, rate) if rate else (None, 1.0)
        ctx.scaling = scaling
        ctx.save_for_backward(query, key, value, pattern, keep)
        z = (pattern if keep is None else pattern * keep) @ value
        return z if keep is None else z.mul_(ctx.factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, pattern, keep = ctx.saved_tensors
        of_z = gradients[0] if keep is None else gradients[0] * ctx.factor
        of_value = (pattern if keep is None else pattern * keep).transpose(2, 3) @ of_z
        of_pattern = of_z @ value.transpose(2, 3)
        if keep is not None:
            of_pattern.mul_(keep)
        # Of softmax: the pattern times what exceeds the pattern's own mean; in float32, since the two are nearly equal.
        weights, of_pattern = pattern.float(), of_pattern.float()
        mean = (of_pattern * weights).sum(-1, keepdim=True)
        of_scores = ((of_pattern - mean) * weights).mul_(ctx.scaling).to(query.dtype)
        return of_scores @ key, of_scores.transpose(2, 3) @ query, of_value, None, None, None


def plain_attention(
    query: Float[Tensor, "batch head query d_head"],
    key: Float[Tensor, "batch head key d_head"],
    value: Float[Tensor, "batch head key d_head"],
    mask: Tensor | None,
    *,
    scaling: float,
    rate: float,
) -> Float[Tensor, "batch head query d_head"]:
    """Each head's z, with a gradient for queries, keys and values.

    Args:
        query: Of each head.
        key: As many heads.
        value: As many heads.
        mask: True where a query sees a key, or what is added to the scores; broadcast to ``[batch head query key]``.
            Has no gradient.
        scaling: What scores are multiplied by before the mask.
        rate: Of dropout on the pattern, from 0 to below 1.
    """
    z: Tensor = _Attention.apply(query, key, value, mask, scaling, rate)  # type: ignore[no-untyped-call]
    return z

"""How far a head looks."""

from __future__ import annotations

from jaxtyping import Float, Int
import torch
from torch import Tensor

__all__ = ["attention_distance"]


def attention_distance(
    weights: Float[Tensor, "layer batch head query key"], queries: Int[Tensor, "batch query"]
) -> Float[Tensor, "layer batch head query"]:
    r"""Attention-weighted distance between each query and its keys, in tokens: $\sum_k w_{qk} |q - k|$.

    0 where the query looks at itself alone; at most the number of tokens minus 1. Costs one product with ``weights``
    and no copy of it.

    Args:
        weights: Post-softmax attention; sums to 1 over ``key``.
        queries: The token that each row reads for; -1 where there is none: leave such rows out before averaging.

    Reference:
        Vig and Belinkov, 2019, https://arxiv.org/abs/1906.04284.
    """
    keys = torch.arange(weights.shape[-1], device=weights.device)
    distance = (queries[..., None] - keys).abs().to(weights.dtype)
    return torch.einsum("lbhqk,bqk->lbhq", weights, distance)

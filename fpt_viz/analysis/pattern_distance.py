"""How far two models' attention is apart on the same examples."""

from __future__ import annotations

from jaxtyping import Float
import torch
from torch import Tensor

from fpt_viz.records import AttentionMaps

__all__ = ["pattern_distance"]


def pattern_distance(maps: AttentionMaps, other: AttentionMaps) -> Float[Tensor, "layer batch head"]:
    r"""Total variation distance between the rows of two captures, averaged over the real queries of each example.

    $\frac{1}{2} \sum_k |w_{qk} - w'_{qk}|$: 0 where both heads attend alike, 1 where they share no key; it is the
    share of attention that would have to move.

    Args:
        maps: Of one model, or of one step of training.
        other: Of another, on the same examples, layers, heads and queries.

    Raises:
        RecordError: They were captured on other examples, tokens, layers, heads or queries.
    """
    maps.check_comparable(other)
    rows = (maps.weights.double() - other.weights.double()).abs().sum(-1) / 2
    real = (maps.queries >= 0)[None, :, None]
    n_real = real.sum(-1).clamp(min=1)
    return (torch.where(real, rows, 0.0).sum(-1) / n_real).to(maps.weights.dtype)

"""What corruptions of several tasks share: tokens drawn at random, and another example for each."""

from __future__ import annotations

from jaxtyping import Bool, Int, Shaped
import torch
from torch import Tensor


def some_of(
    allowed: Bool[Tensor, "batch seq"], n: int | Int[Tensor, " batch"], rng: torch.Generator
) -> Bool[Tensor, "batch seq"]:
    """Of each row, ``n`` of the ``allowed`` entries, drawn at random; all of them where there are fewer."""
    scores = torch.rand(allowed.shape, generator=rng, dtype=torch.float64).masked_fill(~allowed, -1.0)
    rank = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    wanted = torch.as_tensor(n).expand(len(allowed))
    return (rank < wanted[:, None]) & allowed


def others(
    targets: Int[Tensor, " batch *target"], mask: Bool[Tensor, "batch seq"] | None, rng: torch.Generator
) -> Int[Tensor, " batch"]:
    """For each example, a random other one that is as long and has other targets; itself where there is none."""
    _, answer = targets.flatten(1).unique(dim=0, return_inverse=True)
    length = torch.zeros_like(answer) if mask is None else mask.sum(1)
    fits = (answer[:, None] != answer) & (length[:, None] == length)
    chosen: Shaped[Tensor, "batch batch"] = some_of(fits, 1, rng).byte()
    return torch.where(fits.any(1), chosen.argmax(1), torch.arange(len(targets)))

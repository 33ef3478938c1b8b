"""Shapley values of a game whose every coalition was played."""

from __future__ import annotations

from math import factorial

from jaxtyping import Float64
import torch
from torch import Tensor


def shapley(values: Float64[Tensor, " coalition *rest"]) -> Float64[Tensor, " player *rest"]:
    r"""What each player adds, averaged over every order in which the players can join.

    $\phi_i = \sum_{S \not\ni i} \frac{|S|!\,(n - |S| - 1)!}{n!} (v(S \cup \{i\}) - v(S))$; they add up to
    $v(\text{all}) - v(\emptyset)$.

    Args:
        values: Of each coalition; player ``i`` is in coalition ``c`` where bit ``i`` of ``c`` is set, so there are
            two to the power of the number of players.

    Reference:
        Shapley, 1953, "A value for n-person games".
    """
    n = len(values).bit_length() - 1
    found = []
    for player in range(n):
        without = [c for c in range(len(values)) if not c >> player & 1]
        sizes = [c.bit_count() for c in without]
        weights = torch.tensor([factorial(s) * factorial(n - s - 1) / factorial(n) for s in sizes], dtype=values.dtype)
        gain = values[[c | 1 << player for c in without]] - values[without]
        found.append(torch.tensordot(weights, gain, dims=1))
    return torch.stack(found)

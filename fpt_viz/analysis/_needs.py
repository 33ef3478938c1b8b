"""Which rows of attention are scored against needs, and what a score is."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
import torch
from torch import Tensor


class RoutingScore(NamedTuple):
    """Scores of each example, to be averaged with ``n_scored`` as weights."""

    score: Float[Tensor, "*axes"]
    """Mean over the scored queries of the example, 0 to 1; 0 where there are none. ``[layer batch head]``, or
    ``[batch]`` where it is the same for every head."""
    n_scored: Int[Tensor, " batch"]
    """Scored queries of each example."""


def own_keys(queries: Int[Tensor, "batch query"], n_keys: int) -> Bool[Tensor, "batch query key"]:
    """True where the key is the query itself."""
    return queries[..., None] == torch.arange(n_keys, device=queries.device)


def needed_keys(
    needs: Bool[Tensor, "batch query key"], queries: Int[Tensor, "batch query"]
) -> Bool[Tensor, "batch query key"]:
    """The tokens that each row's query needs other than itself; a row with none, or of no token, is not scored."""
    return needs & ~own_keys(queries, needs.shape[-1]) & (queries >= 0)[..., None]


def scored_attention(
    weights: Float[Tensor, "layer batch head query key"],
    target: Float[Tensor, "batch query key"],
    n_scored: Int[Tensor, " batch"],
) -> RoutingScore:
    """Attention on ``target``, summed over keys and averaged over the ``n_scored`` queries of each example."""
    rows = torch.einsum("lbhqk,bqk->lbhq", weights, target.to(weights.dtype))
    scored = target.any(-1)[:, None]
    total = torch.where(scored, rows, 0).sum(-1)  # a row of no token may hold anything, NaN too
    return RoutingScore(total / n_scored.clamp(min=1)[:, None], n_scored)

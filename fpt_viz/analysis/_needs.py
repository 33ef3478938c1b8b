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


def others_share(
    needs: Bool[Tensor, "batch query key"],
    queries: Int[Tensor, "batch query"],
    visible: Bool[Tensor, "batch query key"],
) -> tuple[Float[Tensor, "batch query key"], Int[Tensor, " batch"]]:
    """How often each key is needed by the example's other scored queries, over their number; 0 for what is not scored.

    And the number of scored queries of each example, 0 where there are fewer than two.
    """
    needed = needed_keys(needs, queries)
    scored = needed.any(-1)
    n_scored = scored.sum(-1)
    n_others = (n_scored - 1).clamp(min=0)
    of_others = needed.sum(1, keepdim=True) - needed.int()
    counted = visible & ~own_keys(queries, needs.shape[-1]) & scored[..., None]
    return counted * of_others / n_others.clamp(min=1)[:, None, None], n_scored * (n_others > 0)


def attention_on(
    weights: Float[Tensor, "layer batch head query key"], target: Float[Tensor, "batch query key"]
) -> Float[Tensor, "layer batch head query"]:
    """Attention of each row on ``target``, summed over keys; 0 in a row without any, whatever it holds."""
    rows = torch.einsum("lbhqk,bqk->lbhq", weights, target.to(weights.dtype))
    return torch.where(target.any(-1)[:, None], rows, 0)  # a row of no token may hold anything, NaN too


def scored_attention(
    weights: Float[Tensor, "layer batch head query key"],
    target: Float[Tensor, "batch query key"],
    n_scored: Int[Tensor, " batch"],
) -> RoutingScore:
    """Attention on ``target``, summed over keys and averaged over the ``n_scored`` queries of each example."""
    total = attention_on(weights, target).sum(-1)
    return RoutingScore(total / n_scored.clamp(min=1)[:, None], n_scored)

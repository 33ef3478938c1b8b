"""The routing score of a head that attends to every visible key alike."""

from __future__ import annotations

from jaxtyping import Bool, Int
import torch
from torch import Tensor

from fpt_viz.analysis._needs import RoutingScore, needed_keys

__all__ = ["uniform_routing_score"]


def uniform_routing_score(
    needs: Bool[Tensor, "batch query key"],
    visible: Bool[Tensor, "batch query key"],
    queries: Int[Tensor, "batch query"] | None = None,
) -> RoutingScore:
    r"""Needed keys over visible keys, averaged over the scored queries of each example.

    $\frac{1}{|S|} \sum_{q \in S} |N_q \cap V_q| / |V_q|$, where $N_q$ are the tokens that query $q$ needs other than
    itself and $V_q$ those it sees, itself among them. For bit XOR of 5 + 5 bits: 1/10 where every token is seen, and
    the mean of 1/6 to 1/10, 0.129, under causality.

    Args:
        needs: True where the row's query needs that token.
        visible: True where the row's query may see that token: a real one, and under causality no later one.
        queries: The token that each row reads for, -1 where there is none. None says that every row is a token's and
            that none needs itself.

    Returns:
        ``score`` and ``n_scored``, both ``[batch]``.
    """
    if queries is None:
        queries = torch.full(needs.shape[:2], needs.shape[2], device=needs.device)  # no key's index
    needed = needed_keys(needs, queries)
    n_scored = needed.any(-1).sum(-1)
    share = (needed & visible).sum(-1) / visible.sum(-1).clamp(min=1)
    return RoutingScore(share.sum(-1) / n_scored.clamp(min=1), n_scored)

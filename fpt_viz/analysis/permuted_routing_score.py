"""The routing score against the wrong answers: what a head scores by its habits, whichever query asks."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

from fpt_viz.analysis._needs import RoutingScore, others_share, scored_attention

__all__ = ["permuted_routing_score"]


def permuted_routing_score(
    weights: Float[Tensor, "layer batch head query key"],
    needs: Bool[Tensor, "batch query key"],
    queries: Int[Tensor, "batch query"],
    visible: Bool[Tensor, "batch query key"],
) -> RoutingScore:
    r"""The attention of each scored query on what the *other* scored queries of its example need, averaged over them.

    With $S$ the scored queries of an example and $N_q$ what query $q$ needs other than itself:
    $\frac{1}{|S|(|S|-1)} \sum_{q \neq r \in S} \sum_{k \in N_r \cap V_q} w_{qk}$, where $V_q$ are the keys visible to
    $q$ without $q$ itself. 0 to 1. A head that looks at the needed string, but at no particular token of it, scores as
    much here as in :func:`routing_score`; one that picks the right token scores less here.

    Args:
        weights: Post-softmax attention; sums to 1 over ``key``.
        needs: True where the row's query needs that token.
        queries: The token that each row reads for; -1 where there is none, and the row is then left out.
        visible: True where the row's query may see that token: a real one, and under causality no later one.

    Returns:
        ``score`` ``[layer batch head]`` and ``n_scored`` ``[batch]``, both 0 for an example with fewer than two scored
        queries: it has no such baseline. Costs one pass over ``weights``.
    """
    share, n_scored = others_share(needs, queries, visible)
    return scored_attention(weights, share.to(weights.dtype), n_scored)

"""How much of its attention a head spends on the tokens that hold the answer."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

from fpt_viz.analysis._needs import RoutingScore, needed_keys, scored_attention

__all__ = ["routing_score"]


def routing_score(
    weights: Float[Tensor, "layer batch head query key"],
    needs: Bool[Tensor, "batch query key"],
    queries: Int[Tensor, "batch query"],
) -> RoutingScore:
    r"""Mean attention of each head on the tokens that a query needs other than itself, example by example.

    With $N_q$ the needed tokens of query $q$ without $q$, and $S$ the queries whose $N_q$ is not empty:
    $\frac{1}{|S|} \sum_{q \in S} \sum_{k \in N_q} w_{qk}$. 0 for a head that looks elsewhere, 1 for one that looks
    nowhere else. The score of a data set is the mean over its examples with ``n_scored`` as weights.

    Args:
        weights: Post-softmax attention; sums to 1 over ``key``.
        needs: True where the row's query needs that token.
        queries: The token that each row reads for; -1 where there is none, and the row is then left out.

    Returns:
        ``score`` ``[layer batch head]``, free of NaN, and ``n_scored`` ``[batch]``. Costs one pass over ``weights``.

    Reference:
        Defined here, for tasks whose answer is known to lie in certain tokens. The paper shows such attention as a
        picture: Lu et al., 2021, https://arxiv.org/abs/2103.05247, section 3.5.
    """
    needed = needed_keys(needs, queries)
    return scored_attention(weights, needed.to(weights.dtype), needed.any(-1).sum(-1))

"""How much attention a head parks on the first token."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

__all__ = ["sink_mass"]


def sink_mass(weights: Float[Tensor, "layer batch head query key"]) -> Float[Tensor, "layer batch head query"]:
    """Attention of each query on the first token, 0 to 1; a view into ``weights``.

    Language models look there when they have nothing to look for. The first token's own row counts like any other
    (under causality it is 1). Rows of no token are to be left out before averaging.

    Args:
        weights: Post-softmax attention; sums to 1 over ``key``.

    Reference:
        Xiao et al., 2023, https://arxiv.org/abs/2309.17453.
    """
    return weights[..., 0]

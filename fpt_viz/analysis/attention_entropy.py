"""How widely a head spreads its attention."""

from __future__ import annotations

import math

from jaxtyping import Float
import torch
from torch import Tensor

__all__ = ["attention_entropy"]


def attention_entropy(
    weights: Float[Tensor, "layer batch head query key"],
) -> Float[Tensor, "layer batch head query"]:
    r"""Entropy of each row of attention, in bits: $-\sum_k w_k \log_2 w_k$, with $0 \log 0 = 0$.

    0 where the query looks at one key; $\log_2 n$ where it looks at $n$ keys alike. Rows of zeros (no token) get 0:
    leave them out before averaging. Needs as much memory again as ``weights``.

    Args:
        weights: Post-softmax attention; sums to 1 over ``key``.

    Reference:
        Clark et al., 2019, https://arxiv.org/abs/1906.04341.
    """
    entropy: Tensor = torch.special.entr(weights).sum(-1)
    return entropy / math.log(2)

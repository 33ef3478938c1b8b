"""How widely a head spreads its attention."""

from __future__ import annotations

import math

from jaxtyping import Float
import torch
from torch import Tensor

__all__ = ["attention_entropy"]

IN_CACHE = 1 << 16
"""Weights at a time: logarithms that stay in a core's cache took a third of the time of those that do not."""


def attention_entropy(
    weights: Float[Tensor, "layer batch head query key"],
) -> Float[Tensor, "layer batch head query"]:
    r"""Entropy of each row of attention, in bits: $-\sum_k w_k \log_2 w_k$, with $0 \log 0 = 0$.

    0 where the query looks at one key; $\log_2 n$ where it looks at $n$ keys alike. Rows of zeros (no token) get 0:
    leave them out before averaging. Needs a megabyte beside ``weights`` on the CPU, and a copy of them where they are
    not contiguous; elsewhere, as much memory again.

    Args:
        weights: Post-softmax attention; sums to 1 over ``key``.

    Reference:
        Clark et al., 2019, https://arxiv.org/abs/1906.04341.
    """
    rows = weights.flatten(0, -2)
    if rows.device.type != "cpu":
        nats: Tensor = torch.special.entr(rows).sum(-1)
    else:
        n_rows = max(1, IN_CACHE // max(1, rows.shape[1]))
        nats = torch.cat([_nats(part) for part in rows.split(n_rows)])
    return nats.view(weights.shape[:-1]) / math.log(2)


def _nats(rows: Float[Tensor, "row key"]) -> Float[Tensor, " row"]:
    """As the sum of ``torch.special.entr``, in a third of the time; NaN where that is infinite, for weights below 0."""
    exact = rows if rows.dtype == torch.float64 else rows.float()
    logarithms = (exact + torch.finfo(exact.dtype).tiny).log()  # changes no weight but 0
    nats = 0.0 - (logarithms * exact).sum(-1)
    return nats.to(rows.dtype) if rows.is_floating_point() else nats

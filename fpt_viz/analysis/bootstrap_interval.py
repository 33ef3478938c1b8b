"""How far a mean over examples would move with other examples."""

from __future__ import annotations

from jaxtyping import Float, Shaped
import numpy as np
import torch
from torch import Tensor

from fpt_viz.errors import ConfigError

__all__ = ["bootstrap_interval"]

CHUNK_VALUES = 2**22
"""Most draws held at a time: 64 MB with their counts."""


def bootstrap_interval(
    values: Shaped[Tensor, " example *rest"],
    *,
    counts: Shaped[Tensor, " example"] | None = None,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Float[Tensor, "*rest 2"]:
    """Percentile bootstrap interval of the mean over the examples, for each entry of ``rest`` alone.

    Every entry is resampled alike, so for a paired comparison give the differences by example.

    Args:
        values: One value an example, such as whether it was right, or a head's score on it.
        counts: Weight of each example in the mean, such as its number of scored queries; None: all alike.
        confidence: Share of the resampled means inside the interval.
        n_resamples: Times that as many examples as there are get drawn with replacement.
        seed: Of the draws; the same seed draws the same examples whatever the values.

    Returns:
        Low and high in float64, on the CPU. Costs ``n_resamples`` x examples x entries multiplications: 0.02 s
        for 512 examples of 72 heads.

    Raises:
        ConfigError: There are no examples, or none has weight.

    Reference:
        Efron and Tibshirani, 1993, An Introduction to the Bootstrap, chapter 13; equals ``scipy.stats.bootstrap`` with
        ``method="percentile"`` up to the draws.
    """
    n_examples = len(values)
    weight = torch.ones(n_examples).double() if counts is None else counts.detach().cpu().double()
    if not weight.any():
        raise ConfigError(f"a bootstrap interval wants examples with weight, got none among {n_examples}")
    flat = values.detach().cpu().double().reshape(n_examples, -1)
    table = torch.cat([flat * weight[:, None], weight[:, None]], dim=1)
    rng = torch.Generator().manual_seed(seed)
    means = []
    for n_rows in _chunks(n_resamples, max(1, CHUNK_VALUES // n_examples)):
        drawn = torch.randint(n_examples, (n_rows, n_examples), generator=rng)
        times = torch.zeros(n_rows, n_examples, dtype=torch.float64)
        times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
        sums = times @ table
        sums = sums[sums[:, -1] > 0]  # a resample without weight has no mean
        means.append(sums[:, :-1] / sums[:, -1:])
    tail = (1 - confidence) / 2
    bounds = np.quantile(torch.cat(means).numpy(), [tail, 1 - tail], axis=0)
    return torch.from_numpy(bounds).T.reshape(*values.shape[1:], 2)


def _chunks(total: int, size: int) -> list[int]:
    """``total`` as parts of ``size`` and one smaller."""
    return [min(size, total - start) for start in range(0, total, size)]

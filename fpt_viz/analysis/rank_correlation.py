"""Whether one number of each head goes up with another."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
import numpy as np
from scipy.stats import rankdata
from torch import Tensor

from fpt_viz.errors import ConfigError

__all__ = ["rank_correlation"]

CHUNK_VALUES = 2**22
"""Most ranks held at a time: 32 MB."""


class RankCorrelation(NamedTuple):
    """Of two numbers of each head."""

    value: float
    """From -1 to 1; NaN where one of the numbers is the same for all."""
    interval: tuple[float, float]
    """95 % bootstrap interval over heads."""
    p: float
    """Share of the permutations of heads whose correlation is as large in size, itself counted."""


def rank_correlation(
    numbers: Float[Tensor, " head"],
    others: Float[Tensor, " other"] | Float[Tensor, "repeat other"],
    *,
    strata: Int[Tensor, " stratum_of"] | None = None,
    n_permutations: int = 10_000,
    n_resamples: int = 2_000,
    seed: int = 0,
) -> RankCorrelation:
    """Spearman's rank correlation over heads, with a bootstrap interval and the p of a permutation test.

    Args:
        numbers: One a head, such as its role in language. Heads without one (NaN) are left out.
        others: One a head, such as its routing score; or several times, such as over seeds, whose correlations are
            averaged. Heads are what is permuted and resampled, alike in every repeat: repeats of the same heads are no
            further heads.
        strata: Of each head, such as its layer: heads are then ranked, permuted and resampled among those of their
            stratum alone, so what only tells strata apart counts for nothing.
        n_permutations: Of heads.
        n_resamples: Of heads.
        seed: Of both.

    Raises:
        ConfigError: Fewer than 3 heads, or arrays of different sizes.

    Reference:
        Spearman, 1904; equals ``scipy.stats.spearmanr`` where there are one repeat and no strata.
    """
    repeats = others[None] if others.ndim == 1 else others
    if repeats.shape[1] != len(numbers) or (strata is not None and len(strata) != len(numbers)):
        raise ConfigError(f"numbers of {len(numbers)} heads have no rank correlation with those of {repeats.shape[1]}")
    kept = ~(numbers.isnan() | repeats.isnan().any(0))
    if int(kept.sum()) < 3:
        raise ConfigError(f"a rank correlation wants at least 3 heads, got {int(kept.sum())}")
    x, y = numbers[kept].double().numpy(), repeats[:, kept].double().numpy()
    groups = np.zeros(len(x), dtype=int) if strata is None else strata[kept].numpy()
    rng = np.random.default_rng(seed)
    every = np.arange(len(x))[None]
    value = float(_correlations(x, y, groups, every, every)[0])
    if np.isnan(value):
        return RankCorrelation(value, (value, value), value)
    n_rows = max(1, CHUNK_VALUES // (len(x) * len(y)))
    permuted = [
        _correlations(x, y, groups, _draws(groups, n, rng, replace=False), every)
        for n in _chunks(n_permutations, n_rows)
    ]
    size = np.abs(np.concatenate(permuted)) if permuted else np.zeros(0)
    drawn = [_draws(groups, n, rng, replace=True) for n in _chunks(n_resamples, n_rows)]
    resampled = np.concatenate([_correlations(x, y, groups, at, at) for at in drawn])
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    p = (1 + int((size >= abs(value) - 1e-12).sum())) / (1 + len(size))
    return RankCorrelation(value, (float(low), float(high)), p)


def _draws(groups: np.ndarray, n: int, rng: np.random.Generator, *, replace: bool) -> np.ndarray:
    """``[draw head]``: of each place, the head that is put there, of the same group."""
    found = np.empty((n, len(groups)), dtype=int)
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        if replace:
            found[:, own] = own[rng.integers(len(own), size=(n, len(own)))]
        else:
            found[:, own] = own[rng.random((n, len(own))).argsort(axis=1)]
    return found


def _correlations(x: np.ndarray, y: np.ndarray, groups: np.ndarray, x_at: np.ndarray, y_at: np.ndarray) -> np.ndarray:
    """Of each draw, the correlation of the ranks within groups, mean over repeats."""
    left = _ranks(x[x_at], groups)
    found = []
    for repeat in y:
        right = _ranks(repeat[y_at], groups)
        scale = np.sqrt((left**2).sum(1) * (right**2).sum(1))
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(np.where(scale > 1e-9, (left * right).sum(1) / scale, np.nan))
    return np.asarray(np.mean(found, axis=0))


def _ranks(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Ranks among those of the same group, centred there and divided by their number: groups count alike by head."""
    found = np.empty(values.shape)
    for group in np.unique(groups):
        own = groups == group
        ranks = rankdata(values[:, own], axis=1)
        found[:, own] = (ranks - ranks.mean(1, keepdims=True)) / own.sum()
    return found


def _chunks(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]

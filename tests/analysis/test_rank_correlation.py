"""Rank correlations: scipy's, by hand within strata, and permutations that are counted one by one."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr
import torch

from fpt_viz import analysis
from fpt_viz.errors import ConfigError


def numbers(n: int, seed: int) -> torch.Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(seed))


def test_it_is_spearmans_with_ties_too():
    x, y = numbers(40, 0), numbers(40, 1) + numbers(40, 0)
    x[:10] = 0.5
    found = analysis.rank_correlation(x, y)
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    assert found.interval[0] < found.value < found.interval[1]
    assert found.p < 0.01


def test_over_repeats_it_is_the_mean_and_repeats_are_no_further_heads():
    x, y = numbers(12, 0), torch.stack([numbers(12, 1), numbers(12, 2), numbers(12, 3)])
    found = analysis.rank_correlation(x, y)
    assert found.value == pytest.approx(np.mean([spearmanr(x, one).statistic for one in y]))
    thrice = analysis.rank_correlation(x, y[:1].repeat(3, 1))
    once = analysis.rank_correlation(x, y[0])
    assert thrice.value == pytest.approx(once.value)
    assert thrice.p == pytest.approx(once.p, abs=0.02)


def test_p_is_the_share_of_all_permutations_that_are_as_far_from_0():
    x, y = torch.arange(6.0), torch.tensor([1.0, 0.0, 2.0, 5.0, 3.0, 4.0])
    own = abs(spearmanr(x, y).statistic)
    every = [abs(spearmanr(x, torch.tensor(order)).statistic) >= own - 1e-9 for order in permutations(range(6))]
    assert analysis.rank_correlation(x, y).p == pytest.approx(np.mean(every), abs=0.01)


def test_within_strata_what_only_tells_strata_apart_counts_for_nothing():
    strata = torch.arange(4).repeat_interleave(12)
    by_stratum = strata.float()
    x, y = by_stratum + 0.1 * numbers(48, 0), by_stratum + 0.1 * numbers(48, 1)
    free, within = analysis.rank_correlation(x, y), analysis.rank_correlation(x, y, strata=strata)
    assert free.value > 0.9
    assert free.p < 0.001
    inside = [spearmanr(x[strata == s], y[strata == s]).statistic for s in range(4)]
    assert within.value == pytest.approx(np.mean(inside))  # strata of one size, no ties
    assert within.p > 0.05


def test_heads_without_a_number_are_left_out_and_a_constant_has_no_correlation():
    x, y = numbers(20, 0), numbers(20, 1)
    with_gap = x.clone()
    with_gap[3] = torch.nan
    kept = [i for i in range(20) if i != 3]
    assert analysis.rank_correlation(with_gap, y).value == pytest.approx(spearmanr(x[kept], y[kept]).statistic)
    assert np.isnan(analysis.rank_correlation(torch.ones(20), y).value)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (5, 6)], ids=["too_few", "other_size"])
def test_too_few_heads_or_other_heads_are_refused(n, m):
    with pytest.raises(ConfigError, match="at least 3 heads, got 2|numbers of 5 heads have no rank correlation"):
        analysis.rank_correlation(numbers(n, 0), numbers(m, 1))

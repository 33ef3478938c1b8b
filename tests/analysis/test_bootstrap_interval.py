from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
import torch

from fpt_viz.analysis.bootstrap_interval import bootstrap_interval
from fpt_viz.errors import ConfigError


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_intervals_are_those_of_scipy_up_to_the_draws(rng, confidence):
    values = torch.rand(200, 3, 2, generator=rng) ** 2
    found = bootstrap_interval(values, confidence=confidence, n_resamples=5000)
    expected = stats.bootstrap(
        (values.numpy(),),
        np.mean,
        axis=0,
        method="percentile",
        confidence_level=confidence,
        n_resamples=5000,
        random_state=1,
    ).confidence_interval

    assert found.shape == (3, 2, 2)
    width = (found[..., 1] - found[..., 0]).mean().item()
    np.testing.assert_allclose(found[..., 0], expected.low, atol=0.06 * width)
    np.testing.assert_allclose(found[..., 1], expected.high, atol=0.06 * width)


def test_weighted_examples_give_the_interval_of_scipy_for_a_ratio_of_means(rng):
    values = torch.rand(300, generator=rng)
    counts = torch.randint(0, 4, (300,), generator=rng)
    found = bootstrap_interval(values, counts=counts, n_resamples=5000)
    expected = stats.bootstrap(
        ((values * counts).numpy(), counts.numpy()),
        lambda total, n, axis: total.mean(axis) / n.mean(axis),
        paired=True,
        method="percentile",
        n_resamples=5000,
        random_state=1,
    ).confidence_interval

    width = expected.high - expected.low
    np.testing.assert_allclose(found, [expected.low, expected.high], atol=0.06 * width)


def test_about_95_of_100_intervals_hold_the_true_mean():
    # A table of 2,000 independent experiments, each of 200 fair bits
    bits = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (200, 2000))).double()
    low, high = bootstrap_interval(bits, n_resamples=500).unbind(-1)

    coverage = ((low <= 0.5) & (high >= 0.5)).double().mean().item()
    assert coverage == pytest.approx(0.95, abs=0.03)


def test_paired_differences_that_do_not_vary_leave_no_doubt(rng):
    with_heads = torch.rand(50, generator=rng)
    difference = with_heads - (with_heads - 0.25)

    torch.testing.assert_close(bootstrap_interval(difference), torch.tensor([0.25, 0.25]).double(), rtol=0, atol=1e-7)


def test_the_seed_alone_decides_and_the_global_generator_is_left_alone(rng):
    values = torch.rand(40, 2, generator=rng)
    state = torch.get_rng_state()
    first = bootstrap_interval(values, seed=1)

    assert torch.equal(first, bootstrap_interval(values, seed=1))
    assert not torch.equal(first, bootstrap_interval(values, seed=2))
    assert torch.equal(torch.get_rng_state(), state)


def test_drawing_in_parts_changes_nothing(rng, monkeypatch):
    values = torch.rand(30, generator=rng)
    whole = bootstrap_interval(values, n_resamples=100)
    monkeypatch.setitem(bootstrap_interval.__globals__, "CHUNK_VALUES", 30 * 7)

    assert torch.equal(bootstrap_interval(values, n_resamples=100), whole)


def test_bits_and_counts_may_be_of_any_type():
    right = torch.tensor([True, True, False, True])

    low, high = bootstrap_interval(right, counts=torch.tensor([1, 2, 3, 4])).tolist()
    assert 0 <= low < 0.7 < high <= 1


@pytest.mark.parametrize("counts", [torch.zeros(3), None])
def test_no_example_with_weight_is_an_error(counts):
    values = torch.rand(0 if counts is None else 3)
    with pytest.raises(ConfigError, match="wants examples with weight, got none among"):
        bootstrap_interval(values, counts=counts)

"""Linear CKA against its definition by kernels between examples, biased and not."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
from sklearn.metrics.pairwise import linear_kernel
from sklearn.preprocessing import KernelCenterer
import torch
from torch import Tensor

from fpt_viz.analysis import linear_cka as namespace_entry
from fpt_viz.analysis.linear_cka import linear_cka
from fpt_viz.errors import ConfigError


def related(seed: int, n: int = 30, features: int = 5, others: int = 7) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, features)) * rng.uniform(0.1, 4, features) + rng.normal(size=features) * 10
    y = x @ rng.normal(size=(features, others)) + rng.normal(size=(n, others)) * 3
    return torch.from_numpy(x), torch.from_numpy(y)


def by_kernels(x: Tensor, y: Tensor) -> float:
    """With scikit-learn's centring of kernels."""
    one, other = (KernelCenterer().fit_transform(linear_kernel(rows.numpy())) for rows in (x, y))
    return float((one * other).sum() / np.sqrt((one * one).sum() * (other * other).sum()))


def by_unbiased_kernels(x: Tensor, y: Tensor) -> float:
    """Song et al., equation 4, term by term."""
    n, ones = len(x), np.ones(len(x))

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        together = np.trace(a @ b) + (ones @ a @ ones) * (ones @ b @ ones) / ((n - 1) * (n - 2))
        return float(together - 2 / (n - 2) * (ones @ a @ b @ ones)) / (n * (n - 3))

    one, other = (linear_kernel(rows.numpy()) * (1 - np.eye(n)) for rows in (x, y))
    return hsic(one, other) / np.sqrt(hsic(one, one) * hsic(other, other))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(4, 40))
def test_it_is_what_the_kernels_give(seed, n):
    x, y = related(seed, n)

    assert linear_cka(x, y) == pytest.approx(by_kernels(x, y), rel=1e-9)
    assert linear_cka(x, y, debiased=True) == pytest.approx(by_unbiased_kernels(x, y), rel=1e-7, abs=1e-9)


def test_two_features_on_three_examples_may_be_worked_out_by_hand():
    x = torch.tensor([[0.0], [1.0], [2.0]])
    y = torch.tensor([[1.0], [0.0], [2.0]])

    assert linear_cka(x, y) == pytest.approx(0.25)  # of one feature each it is the squared correlation, (1 / 2)^2


@pytest.mark.parametrize("debiased", [False, True])
def test_turning_shifting_and_scaling_change_nothing(debiased):
    x, y = related(0)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q

    value = linear_cka(x, y, debiased=debiased)

    assert linear_cka(3 * x @ turn + 100, y, debiased=debiased) == pytest.approx(value, rel=1e-9)
    assert linear_cka(x, x @ turn, debiased=debiased) == pytest.approx(1, rel=1e-12)
    assert linear_cka(y, x, debiased=debiased) == pytest.approx(value, rel=1e-12)


def test_stretching_one_feature_does_change_it():
    x, y = related(0)

    assert abs(linear_cka(x * torch.tensor([9.0, 1, 1, 1, 1]), y) - linear_cka(x, y)) > 0.01


def test_few_unrelated_examples_look_alike_unless_debiased():
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 256, generator=rng), torch.randn(32, 256, generator=rng)

    assert linear_cka(x, y) > 0.8
    assert abs(linear_cka(x, y, debiased=True)) < 0.1


@pytest.mark.parametrize("debiased", [False, True])
def test_chunks_give_the_same_as_the_whole(debiased):
    x, y = related(3)

    streamed = linear_cka((part for part in x.split(7)), (part for part in y.split(7)), debiased=debiased)

    assert streamed == pytest.approx(linear_cka(x, y, debiased=debiased), rel=1e-10)


@pytest.mark.parametrize("debiased", [False, True])
def test_a_large_common_offset_costs_no_digits(debiased):
    x, y = related(1)

    assert linear_cka(x + 1e6, y, debiased=debiased) == pytest.approx(linear_cka(x, y, debiased=debiased), rel=1e-6)


X, Y = related(0)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: linear_cka(X, Y[:20]), "x has 30 examples and y has 20"),
        (lambda: linear_cka(iter(X.split(10)), iter(Y.split(15))), "a chunk of x has 10 and that of y 15"),
        (lambda: linear_cka(iter(X.split(10)), iter(Y[:20].split(10))), "a chunk of x has 10 and that of y none"),
        (lambda: linear_cka(X[:1], Y[:1]), "wants 2 examples or more, got 1"),
        (lambda: linear_cka(X[:3], Y[:3], debiased=True), "without bias wants 4 examples or more, got 3"),
        (lambda: linear_cka(X * torch.nan, Y), "x has values that are not finite"),
        (lambda: linear_cka(X, torch.ones(30, 2)), "y is the same on all 30 examples"),
        (lambda: linear_cka(iter([X[None]]), iter([Y])), r"chunk of x has 1 and that of y 30"),
        (lambda: linear_cka(iter([X[None]]), iter([Y[:1]])), r"x has the shape \(1, 30, 5\), wanted"),
        (lambda: linear_cka(iter([]), iter([])), "wants 2 examples or more, got 0"),
    ],
    ids=["numbers", "chunks", "fewer chunks", "one", "three", "nan", "constant", "tokens", "three axes", "none"],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(ask, message):
    with pytest.raises(ConfigError, match=message):
        ask()


def test_the_folder_finds_it_by_name():
    assert namespace_entry is linear_cka

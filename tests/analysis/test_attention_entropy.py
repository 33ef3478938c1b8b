from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
import torch

from fpt_viz.analysis.attention_entropy import attention_entropy


def test_entropy_is_that_of_scipy_in_bits(rng):
    weights = torch.rand(2, 3, 4, 5, 6, generator=rng).softmax(-1)

    np.testing.assert_allclose(attention_entropy(weights), stats.entropy(weights, base=2, axis=-1), rtol=1e-5)


def test_entropy_is_0_bits_for_one_key_and_3_for_eight_alike_and_no_nan_where_keys_are_masked():
    weights = torch.zeros(1, 1, 1, 3, 16)
    weights[..., 0, 5] = 1
    weights[..., 1, :8] = 1 / 8  # the last row is of no token

    assert attention_entropy(weights).flatten().tolist() == pytest.approx([0, 3, 0], abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 2, 40, 700), (1, 0, 2, 3, 4), (2, 1, 1, 1, 1)], ids=str)
def test_entropy_in_pieces_is_that_of_the_whole(shape, rng):
    weights = torch.randn(shape, generator=rng).softmax(-1)
    for given in (weights, weights.transpose(0, 2), weights.double()):
        wanted = torch.special.entr(given).sum(-1) / math.log(2)
        torch.testing.assert_close(attention_entropy(given), wanted, atol=1e-5, rtol=1e-5)


def test_entropy_of_small_weights_in_half_precision_and_of_weights_below_0():
    alike = torch.full((1, 1, 1, 1, 1 << 15), 2.0**-15)
    assert attention_entropy(alike.half()).item() == 15
    assert attention_entropy(torch.tensor([1.5, -0.5]).expand(1, 1, 1, 1, 2)).isnan().all()
    assert not attention_entropy(torch.tensor([1.0, 0.0]).expand(1, 1, 1, 1, 2)).signbit().any()

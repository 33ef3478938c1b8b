from __future__ import annotations

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

from __future__ import annotations

import numpy as np
import torch

from fpt_viz.analysis.attention_distance import attention_distance


def test_distance_is_the_weighted_mean_of_a_slow_loop(rng):
    weights = torch.rand(2, 2, 3, 2, 6, generator=rng).softmax(-1)
    queries = torch.tensor([[4, 5], [2, 3]])
    found = attention_distance(weights, queries)

    for layer, example, head, row in np.ndindex(2, 2, 3, 2):
        query = queries[example, row].item()
        expected = sum(weights[layer, example, head, row, key].item() * abs(query - key) for key in range(6))
        np.testing.assert_allclose(found[layer, example, head, row], expected, rtol=1e-5)


def test_distance_is_0_on_the_query_itself_and_5_on_the_partner_bit_of_xor():
    rows = torch.arange(5, 10)[None]
    itself, partner = torch.zeros(2, 1, 1, 1, 5, 10)
    itself[..., range(5), range(5, 10)] = 1
    partner[..., range(5), range(5)] = 1

    assert attention_distance(itself, rows).unique().tolist() == [0]
    assert attention_distance(partner, rows).unique().tolist() == [5]

"""Patterns weighted by values and by what is written, against loops over single vectors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fpt_viz.analysis._values import values_by_head
from fpt_viz.analysis.output_weighted_attention import _check_projection, output_weighted_attention
from fpt_viz.analysis.value_weighted_attention import value_weighted_attention
from fpt_viz.errors import ConfigError


def case(n_kv: int = 2, n_heads: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Two layers, three examples, five keys of which three queries are kept, ``n_heads`` heads on ``n_kv`` values."""
    weights = torch.randn(2, 3, n_heads, 3, 5).softmax(-1)
    return weights, torch.randn(2, 3, 5, n_kv, 6), torch.randn(2, n_heads, 6, 8)


@pytest.mark.parametrize("n_kv", [4, 2, 1])
def test_each_weight_is_the_length_of_one_vector(n_kv):
    weights, v, projection = case(n_kv)

    by_value = value_weighted_attention(weights, v)
    by_output = output_weighted_attention(weights, v, projection)

    for layer, example, head, query, key in torch.cartesian_prod(*map(torch.arange, weights.shape)).tolist():
        read = weights[layer, example, head, query, key] * v[layer, example, key, head // (4 // n_kv)]
        place = layer, example, head, query, key
        torch.testing.assert_close(by_value[place], read.norm())
        torch.testing.assert_close(by_output[place], (read @ projection[layer, head]).norm())


def test_what_two_keys_write_may_be_worked_out_by_hand():
    weights = torch.tensor([0.25, 0.75])[None, None, None, None]
    v = torch.tensor([[3.0, 4.0], [0.0, 0.0]])[None, None, :, None]
    keeps_the_second = torch.tensor([[0.0, 0.0], [0.0, 2.0]])[None, None]

    assert value_weighted_attention(weights, v).flatten().tolist() == [1.25, 0.0]
    assert output_weighted_attention(weights, v, keeps_the_second).flatten().tolist() == [2.0, 0.0]


def test_a_head_that_writes_nothing_weighs_nothing_though_it_reads():
    weights, v, projection = case()
    projection[1, 2] = 0.0

    assert (output_weighted_attention(weights, v, projection)[1, :, 2] == 0).all()
    assert (value_weighted_attention(weights, v)[1, :, 2] > 0).all()


def test_half_precision_stays_what_it_is():
    weights, v, projection = case()

    assert value_weighted_attention(weights.half(), v).dtype == torch.float16
    assert output_weighted_attention(weights.half(), v, projection).dtype == torch.float16


def test_values_and_output_matrices_of_something_else_are_refused_with_both_shapes():
    weights, v, projection = case()
    three = v[:, :, :, :1].expand(-1, -1, -1, 3, -1)

    with pytest.raises(ConfigError, match=r"shape \(2, 3, 5, 3, 6\) were given beside patterns of shape \(2, 3, 4, 3"):
        value_weighted_attention(weights, three)
    with pytest.raises(ConfigError, match=r"output matrices of shape \(2, 2, 3, 8\) were given, wanted \[2 4 6 hidden"):
        _check_projection(values_by_head(weights, v), projection[:, :2, :3])

"""Attention flow against networkx in exact fractions, and against bottlenecks seen by eye."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings, strategies as st
import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor

from fpt_viz.analysis import attention_flow as namespace_entry
from fpt_viz.analysis._max_flow import LayeredGraph
from fpt_viz.analysis.attention_flow import attention_flow
from fpt_viz.errors import ConfigError


def random_patterns(rng: np.random.Generator, *shape: int, causal: bool = False) -> Tensor:
    scores = rng.normal(size=(*shape, shape[-1])) * 2
    if causal:
        scores[..., ~np.tri(shape[-1], dtype=bool)] = -np.inf
    return torch.from_numpy(scores).softmax(-1)


def networkx_flow(weights: Tensor, source: int, root: int, share: float = 0.5) -> float:
    """Of one example ``[layer head query key]``, with no rounding at all."""
    n_tokens = weights.shape[-1]
    graph = nx.DiGraph()
    for layer, matrix in enumerate(weights.mean(1).tolist()):
        for query in range(n_tokens):
            total = sum(map(Fraction, matrix[query]))
            for key in range(n_tokens):
                capacity = (1 - Fraction(share)) * Fraction(matrix[query][key]) / total
                capacity += Fraction(share) if query == key else 0
                graph.add_edge((layer, key), (layer + 1, query), capacity=capacity)
    return float(nx.maximum_flow_value(graph, (0, source), (len(weights), root)))


def test_the_flow_is_bounded_by_the_narrowest_place_and_not_by_the_product():
    weights = torch.zeros(2, 1, 1, 4, 4, dtype=torch.float64)
    weights[0, 0, 0] = torch.eye(4)
    weights[0, 0, 0, 1] = torch.tensor([0.625, 0.375, 0, 0])  # token 0 to token 1: 0.625
    weights[0, 0, 0, 2] = torch.tensor([0.125, 0.0, 0.875, 0])  # and to token 2: 0.125
    weights[1, 0, 0] = torch.eye(4)
    weights[1, 0, 0, 3] = torch.tensor([0.0, 0.5, 0.3125, 0.1875])  # token 1 to the root: 0.5; token 2: 0.3125

    found = attention_flow(weights, torch.tensor([[3]]), residual_share=0.0)

    assert found[0, 0].tolist() == [0.5 + 0.125, 0.375, 0.3125, 0.1875]  # by product 0.352 from token 0


def test_the_flow_through_one_layer_is_its_row():
    weights = random_patterns(np.random.default_rng(0), 1, 2, 3, 5)

    found = attention_flow(weights, torch.tensor([[4, 1], [0, 2]]))

    rows = 0.5 * weights[0].mean(1) + 0.5 * torch.eye(5)
    expected = torch.stack([rows[0, [4, 1]], rows[1, [0, 2]]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), causal=st.booleans(), share=st.sampled_from([0.0, 0.25, 0.5]))
def test_the_flow_equals_networkx(seed, causal, share):
    rng = np.random.default_rng(seed)
    n_layers, n_batch, n_heads, n_tokens = rng.integers([1, 1, 1, 2], [5, 3, 4, 6])
    weights = random_patterns(rng, n_layers, n_batch, n_heads, n_tokens, causal=causal)
    root = n_tokens - 1

    found = attention_flow(weights, torch.tensor([[root]]), residual_share=share)

    for example in range(n_batch):
        expected = [networkx_flow(weights[:, example], source, root, share) for source in range(n_tokens)]
        assert found[example, 0].tolist() == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("causal", [False, True])
def test_the_flow_of_a_model_of_six_layers_on_ten_tokens_equals_networkx(causal):
    weights = random_patterns(np.random.default_rng(1), 6, 1, 12, 10, causal=causal)

    found = attention_flow(weights, torch.tensor([[9]]))

    expected = [networkx_flow(weights[:, 0], source, 9) for source in range(10)]
    assert found[0, 0].tolist() == pytest.approx(expected, abs=1e-13)


def test_capacities_that_no_32_bits_hold_are_still_exact():
    tiny = 2.0**-50
    matrix = np.array([[1 - tiny, tiny], [3 * tiny, 1 - 3 * tiny]])

    graph = LayeredGraph([matrix, matrix], root=1)

    assert graph.largest_flow(0) == 6 * tiny  # 3 by token 0 and then 3 of it, and 3 by token 1
    assert graph.largest_flow(1) == 1 - 3 * tiny + tiny


def test_what_many_edges_leave_over_is_more_than_one_edge_can_carry_in_the_next_digits():
    n_tokens, width = 256, (2**20 * 2**23 + 2**23 - 1) * 2.0**-52  # all bits of the later digits are set
    to_hub, from_hub, to_root = (np.zeros((n_tokens, n_tokens)) for _ in range(3))
    to_hub[0, 5] = 1.0
    from_hub[:, 0] = width
    to_root[7] = width

    assert LayeredGraph([to_hub, from_hub, to_root], root=7).largest_flow(5) == n_tokens * width


def test_what_flows_forth_in_one_digit_may_be_sent_back_in_the_next():
    """Many graphs, since whether a digit misleads depends on how they round."""
    rng = np.random.default_rng(5)
    for _ in range(30):
        matrices = [rng.random((3, 3)) * 2.0 ** -rng.integers(0, 40, (3, 3)) for _ in range(3)]
        graph = nx.DiGraph()
        for layer, matrix in enumerate(matrices):
            for (query, key), value in np.ndenumerate(matrix):
                cut = Fraction(int(value * 2**52), 2**52)
                graph.add_edge((layer, key), (layer + 1, query), capacity=cut)
        expected = nx.maximum_flow_value(graph, (0, 0), (3, 2))
        assert LayeredGraph(matrices, root=2).largest_flow(0) == float(expected)


def test_padding_is_no_way_through_and_rows_of_no_token_are_zero():
    weights = random_patterns(np.random.default_rng(2), 3, 1, 2, 4)
    padded = torch.full((3, 1, 2, 6, 6), torch.nan, dtype=torch.float64)
    padded[..., :4, :] = 0.0
    padded[..., :4, :4] = weights
    mask = torch.tensor([[True] * 4 + [False] * 2])

    found = attention_flow(padded, torch.tensor([[-1, 3]]), mask=mask)

    torch.testing.assert_close(found[0, 1, :4], attention_flow(weights, torch.tensor([[3]]))[0, 0])
    assert (found[0, 0] == 0).all()
    assert (found[0, 1, 4:] == 0).all()


def test_later_tokens_of_a_causal_model_reach_nothing_and_a_blank_root_is_refused():
    weights = random_patterns(np.random.default_rng(0), 3, 2, 2, 4, causal=True)

    assert (attention_flow(weights, torch.tensor([[2]]))[..., 3] == 0).all()
    with pytest.raises(ConfigError, match="token 0 of example 1 .*first real token"):
        attention_flow(weights, torch.tensor([[2], [0]]))


def test_a_flow_that_would_take_minutes_is_refused_with_the_estimate_before_anything_is_computed():
    weights = torch.zeros(1, 1, 1, 1, 1).expand(12, 4, 12, 1024, 1024)

    with pytest.raises(ConfigError, match=r"takes about [\d,]{5,} s \(40,960 flows\), over max_seconds=60.*rollout"):
        attention_flow(weights, torch.arange(10)[None])


def test_the_folder_finds_it_by_name():
    assert namespace_entry is attention_flow

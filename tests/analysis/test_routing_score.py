"""The routing score and its two baselines, against hand-built attention, closed forms and slow loops."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
import torch
from torch import Tensor

from fpt_viz.analysis.permuted_routing_score import permuted_routing_score
from fpt_viz.analysis.routing_score import routing_score
from fpt_viz.analysis.uniform_routing_score import uniform_routing_score

N_BITS = 5
N_TOKENS = 2 * N_BITS


def xor_needs(n_examples: int) -> Tensor:
    """Of all tokens of bit XOR with 5 + 5 bits, written out token by token."""
    needs = torch.zeros(n_examples, N_TOKENS, N_TOKENS, dtype=torch.bool)
    for query, key in ((5, 0), (6, 1), (7, 2), (8, 3), (9, 4)):
        needs[:, query, key] = True
    return needs


def all_queries(n_examples: int, n_tokens: int = N_TOKENS) -> Tensor:
    return torch.arange(n_tokens).repeat(n_examples, 1)


def seen(n_examples: int, n_tokens: int = N_TOKENS, *, causal: bool) -> Tensor:
    whole = torch.ones(n_examples, n_tokens, n_tokens, dtype=torch.bool)
    return whole.tril() if causal else whole


def uniform(visible: Tensor) -> Tensor:
    """Attention of one layer and one head that looks at all visible keys alike."""
    return (visible / visible.sum(-1, keepdim=True))[None, :, None]


@st.composite
def cases(draw):
    """Random attention on chosen rows, with padded keys, rows of no token, and needs that may name the query itself."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_examples, n_keys = draw(st.integers(1, 3)), draw(st.integers(2, 6))
    n_rows = draw(st.integers(1, n_keys))
    needs = torch.from_numpy(rng.random((n_examples, n_rows, n_keys)) < draw(st.sampled_from([0.1, 0.4])))
    queries = torch.from_numpy(np.stack([rng.permutation(n_keys)[:n_rows] for _ in range(n_examples)]))
    queries[torch.from_numpy(rng.random(queries.shape) < 0.2)] = -1
    visible = torch.from_numpy(rng.random((n_examples, n_rows, n_keys)) < 0.7)
    visible |= queries[..., None] == torch.arange(n_keys)
    weights = torch.from_numpy(rng.random((2, n_examples, 3, n_rows, n_keys))).float()  # on unseen keys too
    weights = weights / weights.sum(-1, keepdim=True)
    weights = torch.where((queries >= 0)[:, None, :, None], weights, torch.nan)
    return weights, needs, queries, visible


def needed_of(needs: Tensor, queries: Tensor, example: int) -> dict[int, set[int]]:
    """Row -> keys, of the rows that are scored; in plain Python."""
    rows = {}
    for row, query in enumerate(queries[example].tolist()):
        keys = {k for k in range(needs.shape[2]) if needs[example, row, k] and k != query}
        if query >= 0 and keys:
            rows[row] = keys
    return rows


def test_attention_on_exactly_what_is_needed_scores_1():
    needs = xor_needs(3)
    score, n_scored = routing_score(needs[None, :, None].float(), needs, all_queries(3))

    assert torch.equal(score, torch.ones(1, 3, 1))
    assert n_scored.tolist() == [5, 5, 5]


def test_attention_on_the_query_itself_scores_0_even_where_it_needs_itself():
    itself = torch.eye(N_TOKENS)[None, None, None]
    needs = xor_needs(1) | torch.eye(N_TOKENS, dtype=torch.bool)
    score, n_scored = routing_score(itself, needs, all_queries(1))

    assert score.item() == 0
    assert n_scored.item() == 5


@pytest.mark.parametrize(("causal", "expected"), [(False, 0.1), (True, (1 / 6 + 1 / 7 + 1 / 8 + 1 / 9 + 1 / 10) / 5)])
def test_uniform_attention_scores_what_the_closed_form_says(causal, expected):
    needs, visible, queries = xor_needs(2), seen(2, causal=causal), all_queries(2)

    for score, n_scored in (
        routing_score(uniform(visible), needs, queries),
        uniform_routing_score(needs, visible, queries),
        uniform_routing_score(needs, visible),
    ):
        torch.testing.assert_close(score.flatten(), torch.full((2,), expected))
        assert n_scored.tolist() == [5, 5]


def test_padding_counts_among_the_visible_keys_of_no_query():
    real = torch.tensor([True] * 8 + [False] * 2)
    needs = torch.zeros(1, N_TOKENS, N_TOKENS, dtype=torch.bool)
    needs[0, 7, 3] = True

    assert uniform_routing_score(needs, real.expand(1, N_TOKENS, -1)).score.item() == pytest.approx(1 / 8)


def test_a_head_that_looks_at_the_whole_other_string_scores_as_much_against_any_answer():
    needs, queries, visible = xor_needs(1), all_queries(1), seen(1, causal=True)
    weights = torch.zeros(1, 1, 1, N_TOKENS, N_TOKENS)
    weights[..., :N_BITS] = 1 / N_BITS

    assert routing_score(weights, needs, queries).score.item() == pytest.approx(0.2)
    assert permuted_routing_score(weights, needs, queries, visible).score.item() == pytest.approx(0.2)


def test_a_head_that_picks_the_needed_token_scores_0_against_other_answers():
    needs, queries = xor_needs(1), all_queries(1)
    score, n_scored = permuted_routing_score(needs[None, :, None].float(), needs, queries, seen(1, causal=False))

    assert score.item() == 0
    assert n_scored.item() == 5


def test_one_scored_query_has_no_permuted_baseline_and_two_have():
    queries, visible = all_queries(2), seen(2, causal=False)
    needs = xor_needs(2)
    needs[0, 6:] = False
    needs[1, 7:] = False
    score, n_scored = permuted_routing_score(uniform(visible), needs, queries, visible)

    assert n_scored.tolist() == [0, 2]
    assert score[0, 0, 0] == 0
    assert score[0, 1, 0].item() == pytest.approx(0.1)


def test_a_chosen_subset_of_rows_scores_as_among_all_rows(rng):
    needs, visible = xor_needs(4), seen(4, causal=True)
    weights = torch.rand(2, 4, 3, N_TOKENS, N_TOKENS, generator=rng)
    rows = torch.arange(N_BITS, N_TOKENS)
    queries = rows.repeat(4, 1)

    torch.testing.assert_close(
        routing_score(weights[..., rows, :], needs[:, rows], queries), routing_score(weights, needs, all_queries(4))
    )
    torch.testing.assert_close(
        permuted_routing_score(weights[..., rows, :], needs[:, rows], queries, visible[:, rows]),
        permuted_routing_score(weights, needs, all_queries(4), visible),
    )


@settings(max_examples=100, deadline=None)
@given(cases())
def test_the_score_is_that_of_a_slow_loop(case):
    weights, needs, queries, _ = case
    score, n_scored = routing_score(weights, needs, queries)

    for example in range(len(needs)):
        rows = needed_of(needs, queries, example)
        assert n_scored[example] == len(rows)
        for layer, head in np.ndindex(2, 3):
            on_needed = [weights[layer, example, head, row, k].item() for row, keys in rows.items() for k in keys]
            assert score[layer, example, head].item() == pytest.approx(sum(on_needed) / max(1, len(rows)), abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_the_permuted_baseline_is_that_of_a_slow_loop_over_pairs_of_queries(case):
    weights, needs, queries, visible = case
    score, n_scored = permuted_routing_score(weights, needs, queries, visible)

    for example in range(len(needs)):
        rows = needed_of(needs, queries, example)
        assert n_scored[example] == (len(rows) if len(rows) > 1 else 0)
        for layer, head in np.ndindex(2, 3):
            against = [
                sum(
                    weights[layer, example, head, row, k].item()
                    for k in rows[other]
                    if visible[example, row, k] and k != queries[example, row]
                )
                for row, other in permutations(rows, 2)
            ]
            expected = sum(against) / len(against) if against else 0
            assert score[layer, example, head].item() == pytest.approx(expected, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_the_uniform_baseline_is_the_score_of_uniform_attention(case):
    _, needs, queries, visible = case
    by_formula = uniform_routing_score(needs, visible, queries)
    by_attention = routing_score(uniform(visible), needs, queries)

    torch.testing.assert_close(by_formula.score, by_attention.score[0, :, 0])
    assert torch.equal(by_formula.n_scored, by_attention.n_scored)

"""Heads paired between models, against all pairings tried one by one, and how alike each two are."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
import torch
from torch import Tensor

from fpt_viz.analysis import _head_pairs
from fpt_viz.analysis.head_matching import head_matching
from fpt_viz.analysis.head_similarity import head_similarity
from fpt_viz.analysis.pattern_distance import pattern_distance
from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.records import AttentionMaps


def maps_of(weights: Tensor, queries: Tensor | None = None, **changes: object) -> AttentionMaps:
    n_layers, n_batch, n_heads, n_queries, n_keys = weights.shape
    fields = {
        "weights": weights,
        "layers": tuple(range(n_layers)),
        "heads": tuple(range(n_heads)),
        "queries": torch.arange(n_queries).repeat(n_batch, 1) if queries is None else queries,
        "labels": tuple(tuple(f"t{key}" for key in range(n_keys)) for _ in range(n_batch)),
        "mask": torch.ones(n_batch, n_keys, dtype=torch.bool),
        "causal": False,
        "source": {"inputs": "0123456789abcdef"},
    }
    return AttentionMaps(**(fields | changes))


def random_weights(seed: int, n_layers: int = 2, n_heads: int = 3, n_batch: int = 4) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(n_layers, n_batch, n_heads, 5, 6, generator=rng)).softmax(-1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), within=st.booleans())
def test_a_permutation_of_the_heads_is_recovered(seed, within):
    rng = np.random.default_rng(seed)
    weights = random_weights(seed % 1000)
    flat = weights.transpose(1, 2).flatten(0, 1)  # a head a row
    order = np.concatenate([rng.permutation(3), 3 + rng.permutation(3)]) if within else rng.permutation(6)
    noisy = (flat + 0.01 * torch.rand(flat.shape))[torch.from_numpy(order)]
    shuffled = (noisy / noisy.sum(-1, keepdim=True)).unflatten(0, (2, 3)).transpose(1, 2)

    found = head_matching(maps_of(weights), maps_of(shuffled), within_layers=within)

    assert found.heads == ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2))
    assert [order[3 * layer + head] for layer, head in found.partners] == list(range(6))
    assert (found.distance < 0.05).all()
    assert (found.unmatched > found.distance).all()


@pytest.mark.parametrize("seed", range(5))
def test_no_other_pairing_is_closer(seed):
    ours, theirs = maps_of(random_weights(seed, 1, 4)), maps_of(random_weights(seed + 100, 1, 4))

    found = head_matching(ours, theirs)

    apart = (1 - head_similarity(ours, theirs))[0, :, 0]
    best = min(sum(apart[i, j] for i, j in enumerate(order)) for order in permutations(range(4)))
    torch.testing.assert_close(found.distance.sum(), best)
    torch.testing.assert_close(found.unmatched, apart.mean(1))


def test_models_of_other_sizes_match_as_many_heads_as_the_smaller_has():
    ours, theirs = maps_of(random_weights(0, 1, 2)), maps_of(random_weights(0, 3, 2)[1:], layers=(4, 7))

    found = head_matching(ours, theirs)

    assert found.heads == ((0, 0), (0, 1))
    assert len(set(found.partners)) == 2
    assert {layer for layer, _ in found.partners} <= {4, 7}
    with pytest.raises(ConfigError, match=r"there are layers \[0\] and \[4, 7\]"):
        head_matching(ours, theirs, within_layers=True)


def test_within_layers_no_head_leaves_its_layer_however_alike_others_are():
    weights = random_weights(0)

    found = head_matching(maps_of(weights), maps_of(weights.flip(0)), within_layers=True)

    assert [head[0] for head in found.heads] == [head[0] for head in found.partners]
    assert len(found.heads) == 6
    assert (found.distance > 0.05).all()
    across = head_matching(maps_of(weights), maps_of(weights.flip(0)))
    assert (across.distance < 1e-6).all()


def test_similarity_is_the_attention_that_two_heads_share():
    one = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    other = torch.tensor([[0.25, 0.25, 0.5], [0.0, 0.0, 1.0]])

    found = head_similarity(maps_of(torch.stack([one, other])[None, None]))

    assert found[0, :, 0].tolist() == [[1.0, 0.25], [0.25, 1.0]]


def test_a_head_and_itself_in_another_model_are_as_far_apart_as_pattern_distance_says(monkeypatch):
    queries = torch.arange(5).repeat(4, 1)
    queries[0, 2:] = -1
    queries[2] = -1
    ours, theirs = random_weights(0), random_weights(1)
    for weights in (ours, theirs):
        weights.masked_fill_((queries < 0)[None, :, None, :, None], torch.nan)
    ours, theirs = maps_of(ours, queries), maps_of(theirs, queries)
    each = pattern_distance(ours, theirs)[:, [0, 1, 3]].mean(1)  # no row of example 2 is that of a token

    together = head_similarity(ours, theirs)
    monkeypatch.setattr(_head_pairs, "CHUNK_VALUES", 1)
    row_by_row = head_similarity(ours, theirs)

    torch.testing.assert_close(1 - torch.einsum("lhlh->lh", together), each.double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(row_by_row, together)


@pytest.mark.parametrize("compare", [head_matching, head_similarity])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": {"inputs": "another"}}, "other examples.*0123456789abcdef and another"),
        ({"labels": tuple(("a", "b", "c", "d", "e", "f") for _ in range(4))}, "other tokens.*'t0'.*'a'"),
        ({"queries": torch.arange(1, 6).repeat(4, 1)}, "other queries"),
    ],
    ids=["examples", "tokenisation", "queries"],
)
def test_another_probe_batch_is_refused_with_both_values(compare, changes, message):
    weights = random_weights(0)

    with pytest.raises(RecordError, match=message):
        compare(maps_of(weights), maps_of(weights, **changes))


def test_maps_without_a_token_are_refused():
    weights, none = random_weights(0), torch.full((4, 5), -1)

    with pytest.raises(ConfigError, match="no row of a token"):
        head_similarity(maps_of(weights, none))

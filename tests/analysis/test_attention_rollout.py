"""Attention rollout against maps worked out by hand and explicit matrix products."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
import torch
from torch import Tensor

from fpt_viz.analysis import _mixing
from fpt_viz.analysis._mixing import Mixing
from fpt_viz.analysis.attention_rollout import attention_rollout
from fpt_viz.errors import ConfigError

ALL_OF_FOUR = torch.tensor([[0, 1, 2, 3]])


def pattern(*rows: list[float]) -> Tensor:
    """One layer and example of one head."""
    return torch.tensor(rows).float()[None, None, None]


def random_patterns(rng: np.random.Generator, *shape: int, causal: bool = False) -> Tensor:
    scores = rng.normal(size=(*shape, shape[-1])) * 2
    if causal:
        scores[..., ~np.tri(shape[-1], dtype=bool)] = -np.inf
    return torch.from_numpy(scores).softmax(-1)


def product_of(weights: Tensor, fused, share: float = 0.5) -> Tensor:
    """The whole rollout of each example by whole matrices; ``fused`` makes one of a layer's heads."""
    n_tokens = weights.shape[-1]
    maps = []
    for example in range(weights.shape[1]):
        chain = np.eye(n_tokens)
        for layer in range(len(weights)):
            matrix = fused(layer, weights[layer, example].double().numpy())
            matrix = matrix / matrix.sum(1)[:, None]
            chain = (share * np.eye(n_tokens) + (1 - share) * matrix) @ chain
        maps.append(torch.from_numpy(chain))
    return torch.stack(maps)


def test_rollout_of_three_causal_layers_is_what_a_hand_finds():
    first = pattern([1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0])  # each token looks one back
    second = pattern([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0.5, 0.5, 0, 0])  # the last looks at the first two
    third = pattern([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0])  # the last looks one back

    found = attention_rollout(torch.cat([first, second, third]), torch.tensor([[3]]))

    # After layer 2, token 3 is 1/2 token 3, 1/2 token 2. Through layer 2, token 3's half is 1/4 token 3, 1/8 token 0
    # and 1/8 token 1. Through layer 1 halves go one back: 3 -> 1/8 + 1/8 to 2; 2 -> 1/4 + 1/4 to 1; 1 -> 1/16 + 1/16.
    assert found[0, 0].tolist() == [1 / 8 + 1 / 16, 1 / 4 + 1 / 16, 1 / 8 + 1 / 4, 1 / 8]


def test_without_a_residual_share_rollout_follows_the_heads_alone():
    back = pattern([1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0])

    found = attention_rollout(torch.cat([back, back]), torch.tensor([[3, 2]]), residual_share=0.0)

    assert found[0].tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]


FUSIONS = {
    "mean": lambda layer, heads: heads.mean(0),
    "max": lambda layer, heads: heads.max(0),
    "min": lambda layer, heads: heads.min(0),
}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("heads", sorted(FUSIONS))
def test_rollout_is_the_product_of_the_layers_matrices(heads, share):
    weights = random_patterns(np.random.default_rng(0), 4, 3, 5, 6)

    found = attention_rollout(weights, torch.arange(6)[None], heads=heads, residual_share=share)

    torch.testing.assert_close(found, product_of(weights, FUSIONS[heads], share))


def test_head_weights_choose_heads_and_only_their_ratios_count():
    weights = random_patterns(np.random.default_rng(1), 2, 2, 3, 5)
    chosen = torch.tensor([[0.0, 6.0, 2.0], [1.0, 1.0, 0.0]])

    found = attention_rollout(weights, torch.arange(5)[None], heads=chosen)

    expected = product_of(weights, lambda layer, heads: np.tensordot(chosen[layer].double().numpy(), heads, 1))
    torch.testing.assert_close(found, expected)
    assert torch.equal(found, attention_rollout(weights, torch.arange(5)[None], heads=chosen * 4))


def test_a_layer_whose_heads_all_weigh_nothing_moves_nothing():
    weights = random_patterns(np.random.default_rng(1), 3, 1, 2, 4)
    silent = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])

    found = attention_rollout(weights, torch.tensor([[3]]), heads=silent)

    torch.testing.assert_close(found, attention_rollout(weights[[0, 2]], torch.tensor([[3]])))


def test_the_attention_on_a_sink_goes_to_the_other_keys_of_each_row():
    weights = pattern([0.6, 0.4, 0.0, 0.0], [0.5, 0.5, 0, 0], [0.8, 0.1, 0.1, 0], [1.0, 0.0, 0.0, 0.0])

    found = attention_rollout(weights, torch.tensor([[0, 2]]), sink=0)[0]

    assert found[0].tolist() == pytest.approx([0.8, 0.2, 0, 0])  # what the sink reads stays
    assert found[1].tolist() == pytest.approx([0, 0.25, 0.75, 0])


def test_a_row_with_nothing_but_the_sink_stays_with_its_own_token():
    second = pattern([1, 0, 0], [1, 0, 0], [0, 1, 0])
    first = pattern([0, 0, 1], [0, 0, 1], [1, 0, 0])

    found = attention_rollout(torch.cat([first, second]), torch.tensor([[2]]), sink=0, residual_share=0.5)

    # Layer 2: half token 2, half token 1. Layer 1: token 2 has only the sink and stays, token 1 gives half to token 2.
    assert found[0, 0].tolist() == [0, 1 / 4, 3 / 4]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    causal=st.booleans(),
    heads=st.sampled_from(["mean", "max", "min"]),
    share=st.floats(0, 0.9),
    sink=st.sampled_from([None, 0]),
)
def test_rows_sum_to_one_and_under_causality_the_upper_triangle_stays_zero(seed, causal, heads, share, sink):
    rng = np.random.default_rng(seed)
    n_layers, n_batch, n_heads, n_tokens = rng.integers([1, 1, 1, 3], [4, 3, 4, 7])
    weights = random_patterns(rng, n_layers, n_batch, n_heads, n_tokens, causal=causal).float()
    roots = torch.arange(2, n_tokens)[None]

    found = attention_rollout(weights, roots, heads=heads, residual_share=share, sink=sink)

    torch.testing.assert_close(found.sum(-1), torch.ones(n_batch, n_tokens - 2))
    assert (found >= 0).all()
    if causal:
        later = torch.arange(n_tokens) > roots[0, :, None]
        assert (found.masked_select(later) == 0).all()
    if sink is not None:
        assert (found[..., sink] == 0).all()


def test_padding_on_either_side_changes_nothing_whatever_its_rows_hold():
    rng = np.random.default_rng(3)
    whole = random_patterns(rng, 3, 1, 2, 4)
    padded = torch.full((3, 2, 2, 6, 6), torch.nan, dtype=torch.float64)
    padded[:, 0, :, :4] = 0
    padded[:, 0, :, :4, :4] = whole[:, 0]
    padded[:, 1, :, 2:] = 0.1  # on padding too
    padded[:, 1, :, 2:, 2:] = whole[:, 0]
    mask = torch.tensor([[True] * 4 + [False] * 2, [False] * 2 + [True] * 4])

    found = attention_rollout(padded, torch.tensor([[3, -1], [5, 4]]), mask=mask)
    alone = attention_rollout(whole, torch.tensor([[3, 2]]))[0]

    torch.testing.assert_close(found[0], torch.stack([torch.cat([alone[0], torch.zeros(2)]), torch.zeros(6)]).double())
    torch.testing.assert_close(found[1, :, 2:], alone)
    assert (found[1, :, :2] == 0).all()


def test_layers_may_come_one_by_one_and_in_half_precision():
    weights = random_patterns(np.random.default_rng(0), 3, 2, 4, 5)
    roots = torch.tensor([[4], [2]])

    together = attention_rollout(weights, roots)

    assert torch.equal(attention_rollout(tuple(weights), roots), together)
    halves = attention_rollout(weights.half(), roots)
    assert halves.dtype == torch.float32
    torch.testing.assert_close(halves.double(), together, atol=2e-3, rtol=0)


def test_examples_in_chunks_give_the_same_and_patterns_are_left_as_they_were(monkeypatch):
    weights = random_patterns(np.random.default_rng(0), 2, 5, 3, 4)
    before = weights.clone()
    together = attention_rollout(weights, ALL_OF_FOUR, sink=1)

    monkeypatch.setattr(_mixing, "CHUNK_VALUES", 2 * 4**2)

    assert torch.equal(attention_rollout(weights, ALL_OF_FOUR, sink=1), together)
    assert torch.equal(weights, before)


@pytest.mark.parametrize(
    ("root", "sink", "mask", "reason"),
    [
        (0, None, [True] * 4, "token 0 of example 1 .*first real token, and in a causal model"),
        (1, None, [False] + [True] * 3, "token 1 of example 1 .*first real token, and in a causal model"),
        (1, 0, [True] * 4, "token 1 of example 1 .*the sink 0 being left out"),
    ],
    ids=["first token", "first after padding", "only the sink before it"],
)
def test_a_root_that_a_causal_model_leaves_blank_is_refused_with_the_reason(monkeypatch, root, sink, mask, reason):
    weights = random_patterns(np.random.default_rng(0), 3, 2, 2, 4, causal=True)
    monkeypatch.setattr(_mixing, "CHUNK_VALUES", 1)  # example 1 is then in a chunk of its own
    masks = torch.tensor([[True] * 4, mask])

    with pytest.raises(ConfigError, match=reason):
        attention_rollout(weights, torch.tensor([[3], [root]]), sink=sink, mask=masks)


SOME = random_patterns(np.random.default_rng(0), 2, 2, 3, 4)
LAST = torch.tensor([[3]])


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: attention_rollout(SOME[:, :, :, 2:], LAST), r"as many queries as keys.*queries=None"),
        (lambda: attention_rollout((SOME[0], SOME[1, :1]), LAST), r"\(1, 3, 4, 4\), \(2, 3, 4, 4\)"),
        (lambda: attention_rollout((), LAST), "no attention was given"),
        (lambda: attention_rollout(SOME, torch.tensor([[4]])), "no token 4: examples have 4 tokens"),
        (lambda: attention_rollout(SOME, LAST, mask=torch.tensor([[True] * 3 + [False]] * 2)), "is padding"),
        (lambda: attention_rollout(SOME, LAST, residual_share=1.0), "below 1, got 1.0"),
        (lambda: attention_rollout(SOME, LAST, sink=4), "no sink token 4"),
        (
            lambda: _mixing._check_mixing(Mixing(heads=torch.ones(3, 2)), 2, 3, 4),
            r"\(3, 2\) were given, wanted \(2, 3\)",
        ),
        (lambda: attention_rollout(SOME, LAST, heads=-torch.ones(2, 3)), "0 or more, got -1"),
        (lambda: attention_rollout(SOME.log(), LAST), "layer 1 .*scores before the softmax"),
        (lambda: attention_rollout(SOME * torch.nan, LAST), "values down to nan"),
    ],
    ids=["rows", "sizes", "none", "token", "padding", "share", "sink", "head weights", "negative", "scores", "nan"],
)
def test_what_cannot_be_rolled_out_is_refused_with_both_values(ask, message):
    with pytest.raises(ConfigError, match=message):
        ask()

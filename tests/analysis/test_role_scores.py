"""Role scores: patterns made by hand for each role, and the definitions of TransformerLens, written out plainly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fpt_viz import analysis
from fpt_viz.errors import ConfigError

CLS, SEP, COMMA = 1, 2, 3
WORDS = torch.tensor([[CLS, 10, 11, COMMA, 10, 12, COMMA, 11, 13, SEP]])
"""A piece in which words 10 and 11 and the comma come twice."""
SPECIAL = (WORDS == CLS) | (WORDS == SEP)
PUNCTUATION = WORDS == COMMA
N = WORDS.shape[1]


def scores(weights: Tensor, *, causal: bool = False, **options: int) -> dict[str, Tensor]:
    """By role, ``[layer head]`` of the one piece."""
    found = analysis.role_scores(
        weights, WORDS, special=SPECIAL, punctuation=PUNCTUATION, causal=causal, **{"max_offset": 4, **options}
    )
    return {role: found.score[i, :, 0] for i, role in enumerate(found.roles)}


def looking_at(keys: dict[int, int], *, causal: bool = False) -> Tensor:
    """One head, each query on one key; queries not named look at themselves."""
    weights = torch.zeros(1, 1, 1, N, N)
    for query in range(N):
        weights[..., query, keys.get(query, query)] = 1.0
    assert not causal or not weights.triu(1).any()
    return weights


PLANTED = {
    "previous_token": ({q: q - 1 for q in range(1, N)}, False),
    "duplicate_token": ({1: 4, 4: 1, 2: 7, 7: 2, 3: 6, 6: 3}, False),
    "induction": ({4: 2, 6: 4, 7: 3}, True),
    "sink": (dict.fromkeys(range(N), 0), False),
    "delimiter": (dict.fromkeys(range(N), 9), False),
}


@pytest.mark.parametrize("role", PLANTED)
def test_a_head_planted_for_a_role_scores_1_in_it_and_next_to_nothing_in_the_others(role):
    keys, causal = PLANTED[role]
    found = scores(looking_at(keys, causal=causal), causal=causal)
    assert found[role].item() == pytest.approx(1.0)
    assert all(score.item() <= 0.34 for other, score in found.items() if other != role), found


def test_punctuation_counts_as_a_delimiter_and_a_token_never_counts_for_itself():
    on_first_comma = looking_at(dict.fromkeys(range(N), 3))
    assert scores(on_first_comma)["delimiter"].item() == pytest.approx(7 / 8)  # the comma itself has others to look at
    itself = looking_at({})
    assert all(score.item() == 0 for score in scores(itself).values())
    assert all(score.item() == 0 for score in scores(itself, causal=True).values())


def test_a_causal_model_has_induction_and_sees_earlier_duplicates_alone():
    assert "induction" not in scores(looking_at({}))
    later = looking_at({1: 4, 2: 7, 3: 6})
    assert scores(later)["duplicate_token"].item() == pytest.approx(3 / 6)
    earlier = looking_at({4: 1, 7: 2, 6: 3}, causal=True)
    assert scores(earlier, causal=True)["duplicate_token"].item() == pytest.approx(1.0)


def test_offsets_are_told_from_query_to_key():
    found = analysis.role_scores(
        looking_at({q: q - 3 for q in range(3, N)}), WORDS, special=SPECIAL, punctuation=PUNCTUATION, causal=False,
        max_offset=4,
    )  # fmt: skip
    assert found.offsets == tuple(range(-4, 5))
    at = dict(zip(found.offsets, found.by_offset[:, 0, 0, 0].tolist(), strict=True))
    assert at[-3] == pytest.approx(1.0)
    assert at[0] == pytest.approx(2 / 8)  # words 1 and 2 have nothing so far back
    assert sum(value > 0 for value in at.values()) == 2
    assert found.n_at[found.offsets.index(-3)].tolist() == [6]


def test_even_attention_scores_what_uniform_says():
    even = torch.full((1, 1, 1, N, N), 1 / N)
    found = analysis.role_scores(even, WORDS, special=SPECIAL, punctuation=PUNCTUATION, causal=False, max_offset=2)
    torch.testing.assert_close(found.score[:, 0, :, 0], found.uniform)
    torch.testing.assert_close(found.by_offset[:, 0, :, 0], found.uniform_at)
    below = torch.ones(N, N).tril()
    causal = (below / below.sum(-1, keepdim=True))[None, None, None]
    found = analysis.role_scores(causal, WORDS, special=SPECIAL, punctuation=PUNCTUATION, causal=True, max_offset=2)
    torch.testing.assert_close(found.score[:, 0, :, 0], found.uniform)
    torch.testing.assert_close(found.by_offset[:, 0, :, 0], found.uniform_at)


def detection_patterns(tokens: list[int]) -> dict[str, Tensor]:
    """As TransformerLens's ``head_detector`` defines them, cell by cell."""
    n = len(tokens)
    found = {name: torch.zeros(n, n) for name in ("previous_token", "duplicate_token", "induction")}
    for q in range(n):
        for k in range(q + 1):
            found["previous_token"][q, k] = k == q - 1
            found["duplicate_token"][q, k] = k != q and tokens[k] == tokens[q]
            found["induction"][q, k] = k > 0 and k - 1 != q and tokens[k - 1] == tokens[q]
    return found


def test_scores_are_those_of_transformer_lens_over_the_rows_that_have_a_key():
    """Its score is the sum over the pattern by the number of rows, all of whose attention sums to 1."""
    rng = torch.Generator().manual_seed(0)
    tokens = [5, 7, 9, 5, 8, 7, 9, 6, 5, 7]  # no neighbours alike
    n = len(tokens)
    scores = torch.randn(2, 1, 3, n, n, generator=rng).masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf)
    weights = scores.softmax(-1)
    none = torch.zeros(1, n, dtype=torch.bool)
    found = analysis.role_scores(
        weights, torch.tensor([tokens]), special=none, punctuation=none, causal=True, max_offset=1
    )
    for name, pattern in detection_patterns(tokens).items():
        expected = (weights * pattern).sum((-1, -2)) / weights.sum((-1, -2))
        i = found.roles.index(name)
        torch.testing.assert_close(found.score[i] * found.n_scored[i] / n, expected)


def test_an_offset_longer_than_a_piece_is_refused():
    with pytest.raises(ConfigError, match="max_offset must be from 1 to 9, for pieces of 10 tokens, got 10"):
        scores(looking_at({}), max_offset=10)

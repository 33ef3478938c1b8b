"""What a head does with words: how much of its attention follows each of the patterns that heads are known for."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
import torch
from torch import Tensor
from torch.nn.functional import pad

from fpt_viz.analysis._needs import own_keys, scored_attention
from fpt_viz.errors import ConfigError

__all__ = ["role_scores"]


class RoleScores(NamedTuple):
    """Of each piece of text, to be averaged over pieces with the numbers of scored rows as weights."""

    roles: tuple[str, ...]
    score: Float[Tensor, "role layer batch head"]
    """Mean attention on the role's keys, 0 to 1, over the words that have any; 0 where a piece has none."""
    n_scored: Int[Tensor, "role batch"]
    """Words that have such a key."""
    uniform: Float[Tensor, "role batch"]
    """The score of a head that attends to every visible token alike."""
    offsets: tuple[int, ...]
    """From query to key: -1 is the token before."""
    by_offset: Float[Tensor, "offset layer batch head"]
    """Mean attention at each offset, over the words that have a token there."""
    uniform_at: Float[Tensor, "offset batch"]
    """The same of a head that attends to every visible token alike."""
    n_at: Int[Tensor, "offset batch"]


def role_scores(
    weights: Float[Tensor, "layer batch head token token"],
    tokens: Int[Tensor, "batch token"],
    *,
    special: Bool[Tensor, "batch token"],
    punctuation: Bool[Tensor, "batch token"],
    causal: bool,
    max_offset: int = 16,
) -> RoleScores:
    """How much of each head's attention follows the patterns that heads of language models are known for.

    Rows of special tokens are not scored, and no role counts a token's attention on itself. A word needs:

    - ``previous_token``: the word just before it.
    - ``duplicate_token``: where the same token stands elsewhere; earlier only, in a causal model.
    - ``induction``, of causal models alone: the tokens that came just after the earlier places of the same token.
    - ``sink``: the first token, whatever it is.
    - ``delimiter``: punctuation, and special tokens that are not the first.

    Args:
        weights: Post-softmax attention on whole pieces; sums to 1 over keys.
        tokens: Numbers in the vocabulary.
        special: Tokens that no text holds, such as ``[CLS]``.
        punctuation: Tokens without a letter or digit.
        causal: Whether later tokens cannot be seen.
        max_offset: The farthest offset told of.

    Raises:
        ConfigError: ``max_offset`` is not from 1 to the length of a piece.

    Reference:
        ``detect_head`` of TransformerLens, whose patterns of previous, duplicate and induction heads these are; it
        averages over all rows, also those without a key of the role, and counts a token itself for induction where two
        neighbours are alike. Olsson et al., 2022, https://arxiv.org/abs/2209.11895, on induction; Clark et al., 2019,
        https://arxiv.org/abs/1906.04341, on delimiters.
    """
    n_tokens = tokens.shape[1]
    if not 1 <= max_offset < n_tokens:
        raise ConfigError(
            f"max_offset must be from 1 to {n_tokens - 1}, for pieces of {n_tokens} tokens, got {max_offset}"
        )
    places = torch.arange(n_tokens, device=tokens.device)
    visible = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=tokens.device)
    visible = visible.tril() if causal else visible
    words = ~special
    rows = torch.where(words, places, -1)
    targets = _targets(tokens, special, punctuation, causal=causal)
    keys = visible & words[..., None] & ~own_keys(rows, n_tokens)
    scores, counts, uniform = [], [], []
    for target in targets.values():
        needed = target & keys
        n_scored = needed.any(-1).sum(-1)
        scores.append(scored_attention(weights, needed.float(), n_scored).score)
        counts.append(n_scored)
        share = needed.sum(-1) / visible.sum(-1)
        uniform.append(share.sum(-1) / n_scored.clamp(min=1))
    offsets = range(-max_offset, 1 if causal else max_offset + 1)
    at, n_at = _by_offset(weights, words, offsets)
    even = (visible / visible.sum(-1, keepdim=True)).expand(1, len(tokens), 1, -1, -1)
    uniform_at = _by_offset(even, words, offsets)[0][:, 0, :, 0]
    stacked = (torch.stack(scores), torch.stack(counts), torch.stack(uniform))
    return RoleScores(tuple(targets), *stacked, tuple(offsets), at, uniform_at, n_at)


def _targets(
    tokens: Int[Tensor, "batch token"],
    special: Bool[Tensor, "batch token"],
    punctuation: Bool[Tensor, "batch token"],
    *,
    causal: bool,
) -> dict[str, Bool[Tensor, "batch token token"]]:
    """By role, the keys that it looks at, visible or not."""
    n_tokens = tokens.shape[1]
    places = torch.arange(n_tokens, device=tokens.device)
    words = ~special
    same = (tokens[:, :, None] == tokens[:, None, :]) & words[:, None, :] & (places[:, None] != places)
    found = {
        "previous_token": (places[:, None] - 1 == places) & words[:, None, :],
        "duplicate_token": same,
    }
    if causal:
        found["induction"] = pad(same[..., :-1], (1, 0)) & words[:, None, :]  # after a later place: not visible
    found["sink"] = (places == 0).expand(len(tokens), n_tokens, -1)
    delimiter = (special | punctuation) & (places > 0)
    found["delimiter"] = delimiter[:, None, :].expand(-1, n_tokens, -1)
    return found


def _by_offset(
    weights: Float[Tensor, "layer batch head token token"], words: Bool[Tensor, "batch token"], offsets: range
) -> tuple[Float[Tensor, "offset layer batch head"], Int[Tensor, "offset batch"]]:
    """Mean attention at each offset over the words that have a token there, and their number."""
    n_tokens = words.shape[1]
    means, counts = [], []
    for offset in offsets:
        here = words[:, max(0, -offset) : n_tokens - max(0, offset)]
        at = weights.diagonal(offset, dim1=-2, dim2=-1)
        n = here.sum(-1)
        means.append((at * here[:, None].to(at.dtype)).sum(-1) / n.clamp(min=1)[:, None])
        counts.append(n)
    return torch.stack(means), torch.stack(counts)

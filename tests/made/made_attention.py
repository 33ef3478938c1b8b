"""Attention made by hand, for tests of what shows it."""

from __future__ import annotations

import torch

from fpt_viz.records import AttentionMaps


def make_maps(
    n_layers: int = 2, n_heads: int = 3, n_tokens: int = 6, *, n_examples: int = 4, causal: bool = False, seed: int = 3
) -> AttentionMaps:
    """Whole patterns of random scores; the last token needs the first."""
    rng = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(n_layers, n_examples, n_heads, n_tokens, n_tokens, generator=rng)
    if causal:
        scores = scores.masked_fill(torch.ones(n_tokens, n_tokens).triu(1).bool(), -torch.inf)
    labels = [[f"t{i}={(i + example) % 2}" for i in range(n_tokens)] for example in range(n_examples)]
    needs = torch.zeros(n_examples, n_tokens, n_tokens, dtype=torch.bool)
    needs[:, -1, 0] = True
    return AttentionMaps.from_arrays(scores.softmax(-1), labels, needs=needs, causal=causal, source={"task": "made"})

"""Every head of one model beside every head of another, on the same examples."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from jaxtyping import Float
import torch
from torch import Tensor

from fpt_viz.errors import ConfigError
from fpt_viz.records import AttentionMaps
from fpt_viz.records.parts import Head

CHUNK_VALUES = 2**22
"""Most distances and weights held at a time: 32 MB each."""


class HeadMatching(NamedTuple):
    """Heads of one model, each with its partner in the other, by the first one's layer and head."""

    heads: tuple[Head, ...]
    partners: tuple[Head, ...]
    distance: Float[Tensor, " pair"]
    """Pattern distance of the two, 0 to 1."""
    unmatched: Float[Tensor, " pair"]
    """Mean distance of the head to all that it could have been matched with: what a blind matching gives."""


def heads_of(maps: AttentionMaps) -> list[Head]:
    """The heads that ``maps`` shows, layer by layer."""
    return [(layer, head) for layer in maps.layers for head in maps.heads]


def pair_distances(maps: AttentionMaps, other: AttentionMaps) -> Float[Tensor, "head other_head"]:
    """Pattern distance of each head to each other one, over the real queries of each example, averaged over examples.

    Raises:
        RecordError: The two were not captured on the same examples and queries; layers and heads may differ.
        ConfigError: There is no real query.
    """
    _one_head(maps).check_comparable(_one_head(other))
    n_heads, n_others = len(heads_of(maps)), len(heads_of(other))
    total = torch.zeros(n_heads, n_others, dtype=torch.float64)
    n_used = 0
    for example, queries in enumerate(maps.queries):
        rows = (queries >= 0).nonzero()[:, 0]
        if not len(rows):
            continue
        n_used += 1
        size = max(1, CHUNK_VALUES // max(n_heads * n_others, (n_heads + n_others) * maps.weights.shape[-1]))
        for chunk in rows.split(size):
            apart = torch.cdist(_rows(maps, example, chunk), _rows(other, example, chunk), p=1)
            total += apart.sum(0) / (2 * len(rows))
    if not n_used:
        raise ConfigError("these maps hold no row of a token: there is nothing to compare")
    return total / n_used


def _one_head(maps: AttentionMaps) -> AttentionMaps:
    """``maps`` as if of one head, to compare all but layers and heads."""
    return replace(maps, weights=maps.weights[:1, :, :1], layers=(0,), heads=(0,))


def _rows(maps: AttentionMaps, example: int, rows: Tensor) -> Float[Tensor, "query head key"]:
    """Some rows of an example, all heads of all layers together."""
    return maps.weights[:, example][:, :, rows].flatten(0, 1).transpose(0, 1).double()

"""Which head of one model is which of another."""

from __future__ import annotations

from scipy.optimize import linear_sum_assignment
import torch

from fpt_viz.analysis._head_pairs import HeadMatching, heads_of, pair_distances
from fpt_viz.errors import ConfigError
from fpt_viz.records import AttentionMaps

__all__ = ["head_matching"]


def head_matching(maps: AttentionMaps, other: AttentionMaps, *, within_layers: bool = False) -> HeadMatching:
    """Pair the heads of two models so that their patterns are as alike as can be: the sum of distances is smallest.

    A pairing always exists and is always better than a blind one; compare ``distance`` with ``unmatched``, and with
    the matching of a random model on the same examples.

    Args:
        maps: Of one model, or of one step of training.
        other: Of another on the same examples and queries.
        within_layers: Whether a head may be matched only with one of the same layer.

    Returns:
        As many pairs as the smaller of the two has heads, with pattern distances (see :func:`pattern_distance`).

    Raises:
        RecordError: The two were captured on other examples, tokens or queries.
        ConfigError: Within layers, and the two have other layers; or no row is that of a token.

    Reference:
        The Hungarian method, Kuhn, 1955, by scipy's ``linear_sum_assignment``.
    """
    distances = pair_distances(maps, other)
    heads, partners = heads_of(maps), heads_of(other)
    allowed = torch.ones_like(distances, dtype=torch.bool)
    if within_layers:
        if set(maps.layers) != set(other.layers):
            raise ConfigError(
                f"heads cannot be matched within layers: there are layers {list(maps.layers)} and {list(other.layers)};"
                " capture the same ones, or match over all layers"
            )
        allowed = torch.tensor([[head[0] == partner[0] for partner in partners] for head in heads])
    # Another layer costs more than a whole matching can, so one is never taken where the layer has a head left.
    costs = torch.where(allowed, distances, len(heads) + len(partners) + 1.0)
    pairs = [(int(i), int(j)) for i, j in zip(*linear_sum_assignment(costs.numpy()), strict=True)]
    rows = [(i, j) for i, j in pairs if allowed[i, j]]
    blind = torch.where(allowed, distances, 0.0).sum(1) / allowed.sum(1)
    return HeadMatching(
        heads=tuple(heads[i] for i, _ in rows),
        partners=tuple(partners[j] for _, j in rows),
        distance=torch.stack([distances[i, j] for i, j in rows]),
        unmatched=torch.stack([blind[i] for i, _ in rows]),
    )

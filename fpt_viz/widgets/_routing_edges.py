"""The largest attention edges that lead to chosen tokens, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Bool, Float
import numpy as np


class Edge(NamedTuple):
    """The head, of all in its layer, that reads most from one token to another."""

    layer: int
    head: int
    key: int
    query: int
    weight: float


def edges_towards(
    weights: Float[np.ndarray, "layer head query key"], readout: Sequence[int], n_edges: int
) -> list[Edge]:
    """At most ``n_edges`` edges between different tokens, each on a path to one of ``readout``, the largest first.

    A path goes from layer to layer by these edges or stays at its token, in the residual stream. The edges are the
    largest that there are, as many as leave no more than ``n_edges`` on such a path.

    Args:
        weights: Of one example, whole patterns of all layers; what cannot be seen is 0 or NaN.
        readout: Tokens that are read out after the last layer.
        n_edges: At least 1.
    """
    best = np.nan_to_num(weights.max(axis=1))
    best[:, np.arange(best.shape[-1]), np.arange(best.shape[-1])] = 0
    order = np.argsort(-best, axis=None, kind="stable")[: int((best > 0).sum())]
    low, high = 0, len(order)
    while low < high:
        middle = (low + high + 1) // 2
        few = int(_leading(_first(order[:middle], best.shape), readout).sum()) <= n_edges
        low, high = (middle, high) if few else (low, middle - 1)
    kept = _leading(_first(order[:low], best.shape), readout)
    heads = weights.argmax(axis=1)
    found = [Edge(x, int(heads[x, q, k]), k, q, float(best[x, q, k])) for x, q, k in np.argwhere(kept).tolist()]
    return sorted(found, key=lambda edge: (-edge.weight, edge))


def _first(places: np.ndarray, shape: tuple[int, ...]) -> Bool[np.ndarray, "layer query key"]:
    """True at ``places``, which are counted along a flattened array of ``shape``."""
    found = np.zeros(shape, dtype=bool)
    found.flat[places] = True
    return found


def _leading(edges: Bool[np.ndarray, "layer query key"], readout: Sequence[int]) -> Bool[np.ndarray, "layer query key"]:
    """Those of ``edges`` that are on a path to one of ``readout``."""
    kept = np.zeros_like(edges)
    reached = np.zeros(edges.shape[-1], dtype=bool)
    reached[list(readout)] = True
    for layer in reversed(range(len(edges))):
        kept[layer] = edges[layer] & reached[:, None]
        reached = reached | kept[layer].any(axis=0)
    return kept

"""Attention rolled out over all layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Colours, Figure, Heatmap, Panel
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import Array, listed, number, scale_top

__all__ = ["rollout"]

TOLERANCE = 1e-3
"""How far from 1 a row may sum."""


@remembered
def rollout(
    shares: Array,
    *,
    labels: Sequence[str] | None = None,
    queries: Sequence[int] | None = None,
    causal: bool = False,
    about: str = "",
) -> Figure:
    """How much of each token reaches each read-out token, by the product of all layers' attention.

    Args:
        shares: ``[query key]``: the rollout, whose rows sum to 1.
        labels: One name a key; numbers unless given.
        queries: The tokens that the rows are of; the last ones unless given.
        causal: Whether a query cannot be reached by later tokens; those cells are then hatched.
        about: What the rollout is of, for note and alt text, such as ``"minilm pretrained on bit_xor"``.

    Raises:
        ConfigError: The array is no rollout: not two axes, rows that do not sum to 1, or as many labels as keys.
    """
    values = np.asarray(shares, dtype=float)
    if values.ndim != 2 or not values.size:
        raise ConfigError(f"a rollout of shape {values.shape} was given, wanted [query key], neither of them 0")
    n_queries, n_keys = values.shape
    names = tuple(map(str, range(n_keys))) if labels is None else tuple(labels)
    rows = list(range(n_keys - n_queries, n_keys)) if queries is None else list(queries)
    if len(names) != n_keys or len(rows) != n_queries or not all(0 <= row < n_keys for row in rows):
        raise ConfigError(f"a rollout of shape {values.shape} wants {n_keys} labels and {n_queries} queries among them")
    off = float(np.abs(values.sum(axis=1) - 1).max())
    if not off <= TOLERANCE:
        raise ConfigError(f"rows of this rollout sum to 1 only within {off:.2g}, wanted {TOLERANCE:g}")
    ahead = np.arange(n_keys)[None] > np.array(rows)[:, None] if causal else None
    heatmap = Heatmap(
        z=values,
        x_labels=names,
        y_labels=tuple(names[row] for row in rows),
        colours=Colours(vmin=0.0, vmax=scale_top(values), label="share of the token"),
        unreachable=ahead if ahead is not None and ahead.any() else None,
        cell_names=("query", "key"),
    )
    best = values.argmax(axis=1)
    most = [f"{heatmap.y_labels[r]} from {names[k]} ({number(values[r, k])})" for r, k in enumerate(best)]
    finding = f"Largest shares: {listed(most[:6])}{', and so on' if len(most) > 6 else ''}."
    notes = [f"Product over the layers of attention and the residual stream{f', {about}' if about else ''}"]
    notes += ["hatched: later tokens"] if heatmap.unreachable is not None else []
    return Figure(
        title="Attention rollout",
        alt=f"Heatmap of an attention rollout{f' of {about}' if about else ''}: {n_queries} queries down, {n_keys} "
        f"keys across. {finding}",
        panels=(Panel(marks=(heatmap,), x_title="key (is read)", y_title="query (reads)"),),
        note="; ".join(notes) + "; each row sums to 1.",
        finding=finding,
        source={"about": about} if about else {},
    )

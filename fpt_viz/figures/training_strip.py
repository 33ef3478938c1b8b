"""How the patterns of heads form during training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Colours, Figure, Panel, Tiles
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import Array, listed, number, scale_top

__all__ = ["training_strip"]


@remembered
def training_strip(
    patterns: Array,
    *,
    steps: Sequence[int] | None = None,
    heads: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    queries: Sequence[int] | None = None,
    causal: bool = False,
    about: str = "",
) -> Figure:
    """The mean pattern of each head at several steps: heads down, steps across, one absolute scale.

    Args:
        patterns: ``[step head query key]``, post-softmax.
        steps: Gradient steps taken before each; numbers unless given.
        heads: One name a head, such as ``"L0H9"``; numbers unless given.
        labels: One name a key; numbers unless given.
        queries: The tokens that the rows are of; the last ones unless given.
        causal: Whether later tokens cannot be seen; those cells are grey.
        about: What it is of, for note and alt text.

    Raises:
        ConfigError: The array has other axes, or not one step, head, label and query for each.
    """
    values = np.asarray(patterns, dtype=float)
    if values.ndim != 4 or not values.size:
        raise ConfigError(f"patterns of shape {values.shape} were given, wanted [step head query key], none of them 0")
    n_steps, n_heads, n_queries, n_keys = values.shape
    at = tuple(range(n_steps)) if steps is None else tuple(steps)
    names = tuple(map(str, range(n_heads))) if heads is None else tuple(heads)
    keys = tuple(map(str, range(n_keys))) if labels is None else tuple(labels)
    rows = list(range(n_keys - n_queries, n_keys)) if queries is None else list(queries)
    got = (len(at), len(names), len(rows), len(keys))
    if got != values.shape or not all(0 <= row < n_keys for row in rows):
        raise ConfigError(f"patterns of shape {values.shape} want as many steps, heads, queries and labels, got {got}")
    ahead = np.arange(n_keys)[None] > np.array(rows)[:, None]
    top = scale_top(values)
    tiles = Tiles(
        z=values.transpose(1, 0, 2, 3),
        captions=tuple(tuple(f"{name}, step {step}" for step in at) for name in names),
        row_labels=names,
        column_labels=tuple(map(str, at)),
        x_labels=keys,
        y_labels=tuple(keys[row] for row in rows),
        colours=Colours(vmin=0.0, vmax=top, label="mean attention weight"),
        unreachable=ahead if causal and ahead.any() else None,
        captioned=False,
    )
    told = []
    for h in range(min(n_heads, 4)):
        r, k = np.unravel_index(int(np.nanargmax(values[-1, h])), (n_queries, n_keys))
        first, last = values[0, h, r, k], values[-1, h, r, k]
        told.append(f"{names[h]}, {keys[rows[r]]} reads {keys[k]}: {number(first)} to {number(last)}")
    finding = f"From step {at[0]} to step {at[-1]}: {listed(told)}."
    return Figure(
        title="Patterns during training",
        alt=f"Grid of mean attention patterns, {n_heads} heads down by {n_steps} steps across"
        f"{f', of {about}' if about else ''}; one colour scale from 0 to {top:g}. {finding}",
        panels=(Panel(marks=(tiles,), x_title="gradient steps", y_title="head"),),
        note=f"In each tile queries run down, keys across; one scale for all, 0 to {top:g}"
        f"{f'; {about}' if about else ''}.",
        finding=finding,
        source={"about": about} if about else {},
    )

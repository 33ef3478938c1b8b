"""What each input token adds to an answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Colours, Figure, Heatmap, Panel
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import Array, listed, number, short

__all__ = ["attribution_bits"]


@remembered
def attribution_bits(
    values: Array,
    *,
    labels: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    unit: str = "attribution",
    about: str = "",
    method: str = "",
    target: str = "an answer",
) -> Figure:
    """Attribution of each answer to each input token, on a scale centred on 0; a dash marks what speaks against it.

    Args:
        values: ``[target token]``, or ``[token]`` for one answer.
        labels: One name a token; numbers unless given.
        targets: One name an answer; numbers unless given.
        unit: What is attributed, with its unit, beside the scale.
        about: What it is of, for note and alt text.
        method: How it was found, for the title.
        target: What is explained, for title and note.

    Raises:
        ConfigError: The array has other axes, no finite value, or not one label for each.
    """
    table = np.atleast_2d(np.asarray(values, dtype=float))
    if table.ndim != 2 or not table.size or not np.isfinite(table).any():
        raise ConfigError(f"attributions of shape {np.shape(values)} were given, wanted [target token] with numbers")
    n_targets, n_tokens = table.shape
    across = tuple(map(str, range(n_tokens))) if labels is None else tuple(labels)
    down = tuple(map(str, range(n_targets))) if targets is None else tuple(targets)
    extent = float(np.nanmax(np.abs(table))) or 1.0
    heatmap = Heatmap(
        z=table,
        x_labels=across,
        y_labels=down,
        colours=Colours(vmin=-extent, vmax=extent, label=unit, scale="diverging"),
        text=tuple(tuple("" if np.isnan(value) else short(value) for value in row) for row in table.tolist()),
        cell_names=("answer", "token"),
    )
    most = []
    for r in range(min(n_targets, 4)):
        if np.isfinite(table[r]).any():
            k = int(np.nanargmax(np.abs(table[r])))
            most.append(f"{down[r]}: {across[k]} ({number(table[r, k])})")
    finding = f"Largest in size: {listed(most)}."
    by = f", by {method}" if method else ""
    return Figure(
        title=f"What each token adds to {target}{by}",
        alt=f"Heatmap of what each token adds to {target}{by}{f', of {about}' if about else ''}: {n_targets} answers "
        f"down, {n_tokens} tokens across, centred on 0. {finding}",
        panels=(Panel(marks=(heatmap,), x_title="input token", y_title="answer"),),
        note=f"Above 0 speaks for {'the answer' if target == 'an answer' else target}{f'; {about}' if about else ''}.",
        finding=finding,
        source={"about": about} if about else {},
    )

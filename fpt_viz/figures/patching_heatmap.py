"""How far each patch leads towards the clean run, or away from it."""

from __future__ import annotations

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Colours, Figure, Heatmap, Panel
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import Array, array, interval, listed, number, origin, short
from fpt_viz.records import PatchingEffects

__all__ = ["patching_heatmap"]

LEAST_EXTENT = 0.1
"""A scale reaches at least so far, so that noise does not look like an effect."""
MOST_COLUMNS = 16
"""Beyond, numbers do not fit into the cells."""
AXES = {
    "layer": "layer", "head": "head", "kv_head": "group of keys and values", "position": "position",
    "sender": "sender", "receiver": "receiver",
}  # fmt: skip


@remembered
def patching_heatmap(effects: PatchingEffects, *, vmax: float | None = None) -> Figure:
    """What each patch changes, on a scale centred on 0, of which 1 is the whole way between the two runs.

    Layers run down and positions or heads across; of three axes, the first two run down together; of paths, senders
    run down and receivers across. A dash marks what leads away from the clean run, so that the sign is not told by
    colour alone. Outlined: the 95 % interval excludes 0. Hatched: there was nothing to patch.

    Args:
        effects: Of activations or of paths.
        vmax: End of the colour scale both ways, to compare with another figure. None: the largest change.

    Raises:
        ConfigError: Nothing was patched, or ``vmax`` is not above 0.
    """
    changes, rows, columns, down, across = _table(effects)
    blank = np.isnan(changes)
    if blank.all():
        raise ConfigError(f"these effects of patching {effects.site} hold no value: nothing was patched")
    extent = max(LEAST_EXTENT, float(np.nanmax(np.abs(changes)))) if vmax is None else vmax
    if not extent > 0:
        raise ConfigError(f"vmax must be above 0, got {vmax}")
    low, high = (array(effects.intervals[..., i] - effects.unpatched).reshape(changes.shape) for i in (0, 1))
    sure = ~blank & ((low > 0) | (high < 0))
    told = tuple(tuple("" if np.isnan(value) else short(value) for value in row) for row in changes.tolist())
    heatmap = Heatmap(
        z=changes,
        x_labels=columns,
        y_labels=rows,
        colours=Colours(vmin=-extent, vmax=extent, label=_scale(effects), scale="diverging"),
        text=told if len(columns) <= MOST_COLUMNS else None,
        boxed=tuple((int(row), int(column)) for row, column in np.argwhere(sure)),
        unreachable=blank if blank.any() else None,
        cell_names=(down, across),
    )
    note = f"{_said(effects)}; outlined: 95 % interval excludes 0"
    note += "; hatched: nothing to patch." if blank.any() else "."
    return Figure(
        title=_title(effects),
        alt=_alt(effects, changes, sure, n_away=len(heatmap.below_zero())),
        panels=(Panel(marks=(heatmap,), x_title=across, y_title=down),),
        note=note,
        finding=_found(effects, changes, sure, n_away=len(heatmap.below_zero())),
        source={**effects.source, "site": effects.site, "corruption": effects.corruption, "split": effects.split},
    )


def _table(effects: PatchingEffects) -> tuple[Array, tuple[str, ...], tuple[str, ...], str, str]:
    """The changes as rows and columns, their labels, and what runs down and across."""
    names, changes = [AXES[axis] for axis in effects.axes], array(effects.change)
    if len(names) == 1:
        return changes[:, None], effects.labels[0], ("all",), names[0], "positions and heads"
    columns, down = effects.labels[-1], " and ".join(names[:-1])
    if len(names) == 2:
        return changes, effects.labels[0], columns, down, names[1]
    rows = tuple(f"L{layer}H{head}" for layer in effects.labels[0] for head in effects.labels[1])
    return changes.reshape(len(rows), len(columns)), rows, columns, down, names[2]


def _title(effects: PatchingEffects) -> str:
    if "sender" in effects.axes:
        return f"Paths between heads into {effects.site.replace(' ', ', ')}"
    return f"Patching {effects.site}"


def _scale(effects: PatchingEffects) -> str:
    return "share of the way to the clean run" if effects.direction == "denoise" else "change, share of the way"


def _said(effects: PatchingEffects) -> str:
    """What was done, on what."""
    done = {
        "denoise": "activations of the clean run written into the corrupted run",
        "noise": "activations of the corrupted run written into the clean run",
    }[effects.direction]
    what = f"Direct paths, MLPs {effects.mlps}" if effects.mlps else f"Patching {effects.site}"
    dropped = f", {effects.n_dropped} on which both agree left out" if effects.n_dropped else ""
    return (
        f"{what}: {done} ({effects.corruption}), over {effects.n_examples} {effects.split} examples{dropped}, of "
        f"{origin(effects.source)}; {effects.metric.replace('_', ' ')} {number(effects.clean)} clean and "
        f"{number(effects.corrupted)} corrupted"
    )


def _alt(effects: PatchingEffects, changes: Array, sure: Array, *, n_away: int) -> str:
    return (
        f"Heatmap of what patching changes, where 1 is the whole way between the two runs. {_said(effects)}. "
        f"{_found(effects, changes, sure, n_away=n_away)}"
    )


def _found(effects: PatchingEffects, changes: Array, sure: Array, *, n_away: int) -> str:
    """The largest changes, and how many are sure."""
    flat, bounds = array(effects.change).ravel(), array(effects.intervals).reshape(-1, 2) - effects.unpatched
    order = np.argsort(-np.abs(np.nan_to_num(flat)), kind="stable")[:3].tolist()
    places = [np.unravel_index(i, tuple(effects.values.shape)) for i in order]
    most = [
        ", ".join(f"{AXES[axis]} {effects.labels[j][int(place[j])]}" for j, axis in enumerate(effects.axes))
        + f": {number(flat[i])} (95 % interval {interval(bounds[i].tolist())})"
        for i, place in zip(order, places, strict=True)
    ]
    n_cells = int((~np.isnan(changes)).sum())
    return (
        f"Largest: {listed(most)}. The interval excludes 0 for {int(sure.sum())} of {n_cells} patches; {n_away} lead "
        "away from the clean run."
    )

"""Which trained part moved each head's pattern, and from where to where."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Colours, Figure, Mark, Panel, Points, Tiles, VLine
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import Head, array, head_name, interval, listed, number, origin, scale_top
from fpt_viz.records import PatternShift, Telemetry
from fpt_viz.records.parts import is_head, part_of

__all__ = ["pattern_shift"]


@remembered
def pattern_shift(
    shift: PatternShift, telemetry: Telemetry | None = None, *, top: int = 6, heads: Sequence[str] | None = None
) -> Figure:
    """The signed shares of each trained group in the change of heads' patterns, beside the patterns at both ends.

    Args:
        shift: From ``fpt_viz.measures.what_moved``.
        telemetry: Of the same run: its first and last captures are the patterns; without it shares alone are shown.
        top: Heads to show: those with the highest routing scores at the end, or, of a task without, those that changed
            most.
        heads: Others, such as ``["L0H9"]``; in this order.

    Raises:
        ConfigError: ``top`` is below 1, or a head was not measured.
    """
    chosen = _chosen(shift, top, heads)
    at = [shift.heads.index(head) for head in chosen]
    panels = [_shares(shift, chosen, at)]
    drawn = None if telemetry is None else _patterns(telemetry, chosen)
    panels += [] if drawn is None else [drawn]
    finding = _finding(shift, chosen, at)
    steps = "" if telemetry is None or drawn is None else f", at steps {telemetry.steps[0]} and {telemetry.steps[-1]}"
    return Figure(
        title="What moved the heads",
        alt=f"Dot chart of the share of each trained group in the change of the patterns of {len(chosen)} heads, of "
        f"{origin(shift.source)}, {shift.n_examples} {shift.split} examples"
        f"{f', beside their mean patterns{steps}' if drawn else ''}. {finding}",
        panels=tuple(panels),
        columns=len(panels),
        note="Shapley shares of what trained upstream; a head's add up to 1, below 0 is against the change. In "
        "brackets: the mean share of a row's attention that went to other keys. Bars: 95 % bootstrap intervals over "
        f"{shift.n_examples} {shift.split} examples of {origin(shift.source)}"
        + (f"; patterns: mean of the read-out rows{steps}." if drawn else "."),
        finding=finding,
        source={**shift.source, "split": shift.split},
    )


def _chosen(shift: PatternShift, top: int, heads: Sequence[str] | None) -> list[Head]:
    if heads is not None:
        found = []
        for word in heads:
            part = part_of(word)
            if not is_head(part):
                raise ConfigError(f"{word} is no head: write L3H5")
            head = (int(part[0]), int(part[1]))
            shift.of(*head)  # an error where it was not measured
            found.append(head)
        if found:
            return found
    if top < 1:
        raise ConfigError(f"top must be at least 1, got {top}")
    score = array(shift.change if shift.score_end is None else shift.score_end)
    return [shift.heads[i] for i in np.argsort(-score, kind="stable")[:top].tolist()]


def _shares(shift: PatternShift, chosen: Sequence[Head], at: Sequence[int]) -> Panel:
    """One line a head, a mark for each group."""
    share, bounds, change = array(shift.share)[:, at], array(shift.share_interval)[:, at], array(shift.change)[at]
    n_groups = len(shift.groups)
    shown: list[Mark] = [VLine(at=0.0, label=""), VLine(at=1.0, label="")]
    for g, group in enumerate(shift.groups):
        places = np.arange(len(chosen)) + 0.24 * (g - (n_groups - 1) / 2)
        low, high = bounds[g].T
        shown.append(
            Points(
                x=share[g], y=places, low=low, high=high, across=True, series=g, label=group.replace("_", " "),
                hollow=not shift.moved[g],
            )
        )  # fmt: skip
    drawn = np.concatenate([bounds.ravel(), [0.0, 1.0]])
    least, most = float(np.nanmin(drawn)), float(np.nanmax(drawn))
    pad = 0.05 * (most - least)
    names = tuple(f"{head_name(head)} ({value:.2f})" for head, value in zip(chosen, change.tolist(), strict=True))
    return Panel(
        marks=tuple(shown),
        x_title="share of the change",
        y_title="head (change)",
        x_range=(least - pad, most + pad),
        y_range=(len(chosen) - 0.5, -0.5),
        y_ticks=(tuple(map(float, range(len(chosen)))), names),
        n_lines=2 * len(chosen) + 1,
    )


def _patterns(telemetry: Telemetry, chosen: Sequence[Head]) -> Panel | None:
    """Mean patterns at the first and the last capture; None where heads or rows are not all there."""
    rows = array(telemetry.queries)
    if (rows != rows[:1]).any() or any(head not in telemetry.heads for head in chosen):
        return None
    at = [telemetry.heads.index(head) for head in chosen]
    values = array(telemetry.patterns[[0, -1]].float().mean(2))[:, at].transpose(1, 0, 2, 3)
    steps = (f"step {telemetry.steps[0]}", f"step {telemetry.steps[-1]}")
    keys = tuple(label.partition("=")[0] for label in telemetry.labels[0])  # of their places: values differ
    tiles = Tiles(
        z=values,
        captions=tuple(tuple(f"{head_name(head)}, {step}" for step in steps) for head in chosen),
        row_labels=tuple(map(head_name, chosen)),
        column_labels=steps,
        x_labels=keys,
        y_labels=tuple(keys[row] for row in rows[0]),
        colours=Colours(vmin=0.0, vmax=scale_top(values), label="mean attention weight"),
        captioned=False,
    )
    return Panel(marks=(tiles,), y_title="head")


def _finding(shift: PatternShift, chosen: Sequence[Head], at: Sequence[int]) -> str:
    """The largest share of each head shown first, and the mean over them."""
    mean = np.nanmean(array(shift.share)[:, at], axis=1)
    told = []
    for head, i in list(zip(chosen, at, strict=True))[:3]:
        g = int(np.nan_to_num(array(shift.share[:, i]), nan=-np.inf).argmax())
        told.append(
            f"{head_name(head)} {shift.groups[g].replace('_', ' ')} {number(shift.share[g, i])} (95 % interval "
            f"{interval(shift.share_interval[g, i].tolist())})"
        )
    every = ", ".join(f"{group.replace('_', ' ')} {value:.2f}" for group, value in zip(shift.groups, mean, strict=True))
    return f"Largest shares: {listed(told)}; mean over the {len(chosen)} heads shown: {every}."

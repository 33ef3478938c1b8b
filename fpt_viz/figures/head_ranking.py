"""Heads in the order of what is lost without them."""

from __future__ import annotations

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Figure, Panel, Points, VLine
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import OutcomeName, interval, listed, number, origin, outcome_named
from fpt_viz.records import AblationEffects
from fpt_viz.records.parts import words_of

__all__ = ["head_ranking"]


@remembered
def head_ranking(effects: AblationEffects, *, top: int = 12, outcome: OutcomeName = "accuracy") -> Figure:
    """What is lost without each head (or other part), the largest losses first, with intervals.

    Args:
        effects: Of cutting each part.
        top: Heads to show.
        outcome: ``"accuracy"``, ``"loss"`` or ``"logit"``, as of ``ablation_effects``.

    Raises:
        ConfigError: The effects are of nothing, or ``top`` is below 1.
        UnknownNameError: No such outcome.
    """
    shown = outcome_named(outcome)
    if top < 1:
        raise ConfigError(f"top must be at least 1, got {top}")
    if not effects.sets:
        raise ConfigError("these effects are of no head: there is nothing to rank")
    changes, bounds = getattr(effects, shown.change), getattr(effects, shown.interval)
    order = sorted(range(len(changes)), key=lambda i: (-changes[i], i))[:top]
    names = tuple(" + ".join(map(words_of, effects.sets[i])) for i in order)
    values = np.array([changes[i] for i in order])
    low, high = np.array([bounds[i] for i in order]).T
    points = Points(
        x=values,
        y=np.arange(len(order)),
        low=low,
        high=high,
        across=True,
        label=shown.words,
        text=tuple(f"{value:.3f}" for value in values.tolist()),
    )
    least, most = float(min(0.0, low.min())), float(max(shown.least_extent, high.max()))
    pad = 0.05 * (most - least)
    panel = Panel(
        marks=(VLine(at=0.0, label=""), points),
        x_title=shown.axis,
        y_title="head" if effects.single_heads else "cut",
        x_range=(least - pad, most + 3 * pad),
        y_range=(len(order) - 0.4, -0.6),
        y_ticks=(tuple(float(i) for i in range(len(order))), names),
        n_lines=len(order) + 1,
    )
    sure = sum(1 for i in range(len(changes)) if bounds[i][0] > 0 or bounds[i][1] < 0)
    told = [
        f"{name} {number(changes[i])} (95 % interval {interval(bounds[i])})"
        for name, i in zip(names, order, strict=True)
    ]
    finding = f"Largest {shown.words}: {listed(told)}; the interval excludes 0 for {sure} of {len(changes)}."
    return Figure(
        title=f"Heads by {shown.words}",
        alt=f"Dot chart of the {len(order)} of {len(changes)} heads with the largest {shown.words} "
        f"({effects.ablation} ablation), of {origin(effects.source)}, {effects.n_examples} {effects.split} examples. "
        f"{finding}",
        panels=(panel,),
        note=f"{effects.ablation.capitalize()} ablation of one at a time, {effects.n_examples} {effects.split} "
        f"examples of {origin(effects.source)}; bars: 95 % bootstrap intervals.",
        finding=finding,
        source={**effects.source, "ablation": effects.ablation, "split": effects.split},
    )

"""Whether the heads that route best are the heads that matter."""

from __future__ import annotations

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Figure, HLine, Line, Panel, Points
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import OutcomeName, interval, number, origin, outcome_named
from fpt_viz.records import TopHeadsEffects

__all__ = ["top_heads"]


@remembered
def top_heads(effects: TopHeadsEffects, *, outcome: OutcomeName = "accuracy") -> Figure:
    """What is lost when the k heads with the highest routing score are cut, beside random sets of k heads.

    Args:
        effects: Of the top k heads and of random sets, for several k.
        outcome: ``"accuracy"``, ``"loss"`` or ``"logit"``, as of ``ablation_effects``.

    Raises:
        ConfigError: The effects are of no k.
        UnknownNameError: No such outcome.
    """
    shown = outcome_named(outcome)
    rows = effects.rows()
    if not rows:
        raise ConfigError("these effects are of no k: there is nothing to show")
    places = np.arange(len(rows), dtype=float)
    top, random = (np.array([row[name] for row in rows]) for name in (shown.change, f"random_{shown.change}"))
    low, high = np.array([row[shown.interval] for row in rows]).T
    least, most = np.array([row[f"random_{outcome}_range"] for row in rows]).T
    n_sets = max(len(drawn.sets) for drawn in effects.random)
    by_score = "heads with the highest routing scores"
    by_chance = f"random heads, mean and range of {n_sets} sets"
    marks = (
        HLine(at=0.0, label=""),
        Line(x=places, y=random, low=least, high=most, series=1, markers=True, label=by_chance),
        Points(x=places, y=top, low=low, high=high, series=0),
        Line(x=places, y=top, series=0, markers=True, label=by_score),
    )
    bottom, ceiling = (
        float(min(0.0, low.min(), least.min())),
        float(max(2 * shown.least_extent, high.max(), most.max())),
    )
    pad = 0.06 * (ceiling - bottom)
    panel = Panel(
        marks=marks,
        x_title="heads cut together (k)",
        y_title=shown.axis,
        x_range=(-0.3, len(rows) - 0.7),
        y_range=(bottom - pad, ceiling + pad),
        x_ticks=(tuple(places.tolist()), tuple(str(row["k"]) for row in rows)),
        shape=0.55,
    )
    base = effects.top
    found = [
        f"k={row['k']}: {number(row[shown.change])} (95 % interval {interval(row[shown.interval])}) against "
        f"{number(row[f'random_{shown.change}'])} (range {interval(row[f'random_{outcome}_range'])}) for random heads"
        for row in rows
    ]
    return Figure(
        title=f"{shown.words.capitalize()} without the heads that route best",
        alt=(
            f"Line chart of the {shown.words} when k heads are cut together ({base.ablation} ablation), of "
            f"{origin(effects.source)}, {base.n_examples} {base.split} examples, {shown.of} without any cut "
            f"{number(getattr(base, shown.baseline))}. {'; '.join(found)}."
        ),
        finding=f"{shown.words.capitalize()}: {'; '.join(found)}.",
        panels=(panel,),
        note=(
            f"{base.ablation.capitalize()} ablation, {base.n_examples} {base.split} examples of "
            f"{origin(effects.source)}; {shown.of} without any cut {number(getattr(base, shown.baseline))}; "
            "bars: 95 % bootstrap intervals."
        ),
        source={**effects.source, "ablation": base.ablation, "split": base.split},
    )

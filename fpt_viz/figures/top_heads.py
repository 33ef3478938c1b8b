"""Whether the heads that route best are the heads that matter."""

from __future__ import annotations

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Figure, HLine, Line, Panel, Points
from fpt_viz.figures.base import interval, number, origin
from fpt_viz.records import TopHeadsEffects

__all__ = ["top_heads"]


def top_heads(effects: TopHeadsEffects) -> Figure:
    """The drop in accuracy when the k heads with the highest routing score are cut, beside random sets of k heads.

    Raises:
        ConfigError: The effects are of no k.
    """
    rows = effects.rows()
    if not rows:
        raise ConfigError("these effects are of no k: there is nothing to show")
    places = np.arange(len(rows), dtype=float)
    top, random = (np.array([row[name] for row in rows]) for name in ("accuracy_drop", "random_accuracy_drop"))
    low, high = np.array([row["accuracy_interval"] for row in rows]).T
    least, most = np.array([row["random_accuracy_range"] for row in rows]).T
    n_sets = max(len(drawn.sets) for drawn in effects.random)
    by_score = "heads with the highest routing scores"
    by_chance = f"random heads, mean and range of {n_sets} sets"
    marks = (
        HLine(at=0.0, label=""),
        Line(x=places, y=random, low=least, high=most, series=1, markers=True, label=by_chance),
        Points(x=places, y=top, low=low, high=high, series=0),
        Line(x=places, y=top, series=0, markers=True, label=by_score),
    )
    bottom, ceiling = float(min(0.0, low.min(), least.min())), float(max(0.02, high.max(), most.max()))
    pad = 0.06 * (ceiling - bottom)
    panel = Panel(
        marks=marks,
        x_title="heads cut together (k)",
        y_title="accuracy drop (0 to 1)",
        x_range=(-0.3, len(rows) - 0.7),
        y_range=(bottom - pad, ceiling + pad),
        x_ticks=(tuple(places.tolist()), tuple(str(row["k"]) for row in rows)),
        shape=0.55,
    )
    base = effects.top
    found = [
        f"k={row['k']}: {number(row['accuracy_drop'])} (95 % interval {interval(row['accuracy_interval'])}) against "
        f"{number(row['random_accuracy_drop'])} (range {interval(row['random_accuracy_range'])}) for random heads"
        for row in rows
    ]
    return Figure(
        title="Accuracy lost without the heads that route best",
        alt=(
            f"Line chart of the accuracy drop when k heads are cut together ({base.ablation} ablation), of "
            f"{origin(effects.source)}, {base.n_examples} {base.split} examples, accuracy without any cut "
            f"{number(base.baseline_accuracy)}. {'; '.join(found)}."
        ),
        panels=(panel,),
        note=(
            f"{base.ablation.capitalize()} ablation, {base.n_examples} {base.split} examples of "
            f"{origin(effects.source)}; {number(base.baseline_accuracy)} without any cut; "
            "bars: 95 % bootstrap intervals."
        ),
        source={**effects.source, "ablation": base.ablation, "split": base.split},
    )

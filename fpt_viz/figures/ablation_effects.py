"""What each head is worth: the accuracy that is lost without it."""

from __future__ import annotations

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Colours, Figure, Heatmap, Panel
from fpt_viz.figures.base import Head, head_name, interval, listed, number, origin, short
from fpt_viz.records import AblationEffects, HeadStatistics

__all__ = ["ablation_effects"]

ROUTING_HEADS = 5


def ablation_effects(effects: AblationEffects, *, stats: HeadStatistics | None = None) -> Figure:
    """The drop in accuracy without each head alone, layers down and heads across, on a scale centred on 0.

    Heads whose 95 % interval excludes 0 are outlined.

    Args:
        effects: Of sets of one head each.
        stats: With it, a dot marks the five heads with the highest routing score, to compare reading with effect.

    Raises:
        ConfigError: The effects are of sets of several heads.
    """
    if not effects.sets or any(len(heads) != 1 for heads in effects.sets):
        sizes = sorted({len(heads) for heads in effects.sets})
        raise ConfigError(
            f"this figure shows single heads; these are effects of sets of {listed(map(str, sizes or [0]))}"
        )
    heads = [heads[0] for heads in effects.sets]
    layers, columns = sorted({layer for layer, _ in heads}), sorted({head for _, head in heads})
    drops = np.full((len(layers), len(columns)), np.nan)
    for (layer, head), drop in zip(heads, effects.accuracy_drop, strict=True):
        drops[layers.index(layer), columns.index(head)] = drop
    sure = [head for head, (low, high) in zip(heads, effects.accuracy_interval, strict=True) if low > 0 or high < 0]
    scored = stats is not None and stats.routing_score is not None
    routing: list[Head] = stats.ranking()[:ROUTING_HEADS] if stats is not None and scored else []
    extent = max(0.01, float(np.nanmax(np.abs(drops))))
    heatmap = Heatmap(
        z=drops,
        x_labels=tuple(map(str, columns)),
        y_labels=tuple(map(str, layers)),
        colours=Colours(vmin=-extent, vmax=extent, label="accuracy drop (0 to 1)", scale="diverging"),
        text=tuple(tuple("" if np.isnan(drop) else short(drop) for drop in row) for row in drops.tolist()),
        boxed=tuple((layers.index(layer), columns.index(head)) for layer, head in sure),
        dotted=tuple((layers.index(a), columns.index(b)) for a, b in routing if a in layers and b in columns),
        cell_names=("layer", "head"),
    )
    note = (
        f"Accuracy without any cut minus accuracy with one head at a time cut ({effects.ablation} ablation), over "
        f"{effects.n_examples} {effects.split} examples of {origin(effects.source)}; "
        f"{number(effects.baseline_accuracy)} without any cut; outlined: 95 % interval excludes 0"
    )
    note += f"; dots: the {len(routing)} highest routing scores." if routing else "."
    return Figure(
        title="Accuracy lost without each head",
        alt=_alt(effects, heads, sure),
        panels=(Panel(marks=(heatmap,), x_title="head", y_title="layer"),),
        note=note,
        source={**effects.source, "ablation": effects.ablation, "split": effects.split},
    )


def _alt(effects: AblationEffects, heads: list[Head], sure: list[Head]) -> str:
    order = sorted(range(len(heads)), key=lambda i: -effects.accuracy_drop[i])[:3]
    drops, bounds = effects.accuracy_drop, effects.accuracy_interval
    most = [f"{head_name(heads[i])} {number(drops[i])} (95 % interval {interval(bounds[i])})" for i in order]
    return (
        f"Heatmap of the drop in accuracy when one head at a time is cut ({effects.ablation} ablation), of "
        f"{origin(effects.source)}, {effects.n_examples} {effects.split} examples, accuracy without any cut "
        f"{number(effects.baseline_accuracy)}. Largest drops: {listed(most)}. The interval excludes 0 for "
        f"{len(sure)} of {len(heads)} heads."
    )

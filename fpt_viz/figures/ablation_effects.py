"""What each head is worth: the accuracy, or the certainty, that is lost without it."""

from __future__ import annotations

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Colours, Figure, Heatmap, Panel
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import (
    Head,
    Outcome,
    OutcomeName,
    head_name,
    interval,
    listed,
    number,
    origin,
    outcome_named,
    short,
)
from fpt_viz.records import AblationEffects, HeadStatistics
from fpt_viz.records.parts import is_head, words_of

__all__ = ["ablation_effects"]

ROUTING_HEADS = 5


@remembered
def ablation_effects(
    effects: AblationEffects, *, stats: HeadStatistics | None = None, outcome: OutcomeName = "accuracy"
) -> Figure:
    """What is lost without each head alone, layers down and heads across, on a scale centred on 0.

    Heads whose 95 % interval excludes 0 are outlined.

    Args:
        effects: Of sets of one head each.
        stats: With it, a dot marks the five heads with the highest routing score, to compare reading with effect.
        outcome: ``"accuracy"``, ``"loss"``, or ``"logit"`` for the difference between the right answer's logit and
            the best other one's, which moves before the accuracy does.

    Raises:
        ConfigError: The effects are of sets of several heads.
        UnknownNameError: No such outcome.
    """
    shown = outcome_named(outcome)
    if not effects.sets or not effects.single_heads:
        sizes = sorted({len(heads) for heads in effects.sets})
        others = sorted({words_of(part) for parts in effects.sets for part in parts if not is_head(part)})
        found = f"{', '.join(others[:3])}" if others else f"sets of {listed(map(str, sizes or [0]))}"
        raise ConfigError(f"this figure shows single heads; these are effects of {found}")
    heads: list[Head] = [(int(parts[0][0]), int(parts[0][1])) for parts in effects.sets]
    layers, columns = sorted({layer for layer, _ in heads}), sorted({head for _, head in heads})
    drops = np.full((len(layers), len(columns)), np.nan)
    for (layer, head), drop in zip(heads, getattr(effects, shown.change), strict=True):
        drops[layers.index(layer), columns.index(head)] = drop
    bounds = getattr(effects, shown.interval)
    sure = [head for head, (low, high) in zip(heads, bounds, strict=True) if low > 0 or high < 0]
    scored = stats is not None and stats.routing_score is not None
    routing: list[Head] = stats.ranking()[:ROUTING_HEADS] if stats is not None and scored else []
    extent = max(shown.least_extent, float(np.nanmax(np.abs(drops))))
    heatmap = Heatmap(
        z=drops,
        x_labels=tuple(map(str, columns)),
        y_labels=tuple(map(str, layers)),
        colours=Colours(vmin=-extent, vmax=extent, label=shown.axis, scale="diverging"),
        text=tuple(tuple("" if np.isnan(drop) else short(drop) for drop in row) for row in drops.tolist()),
        boxed=tuple((layers.index(layer), columns.index(head)) for layer, head in sure),
        dotted=tuple((layers.index(a), columns.index(b)) for a, b in routing if a in layers and b in columns),
        cell_names=("layer", "head"),
    )
    note = (
        f"{shown.words.capitalize()} with one head at a time cut ({effects.ablation} ablation), over "
        f"{effects.n_examples} {effects.split} examples of {origin(effects.source)}; {shown.of} without any cut "
        f"{number(getattr(effects, shown.baseline))}; outlined: 95 % interval excludes 0"
    )
    note += f"; dots: the {len(routing)} highest routing scores." if routing else "."
    return Figure(
        title=f"{shown.words.capitalize()} without each head",
        alt=_alt(effects, shown, heads, sure),
        panels=(Panel(marks=(heatmap,), x_title="head", y_title="layer"),),
        note=note,
        finding=_finding(shown, effects, heads, sure),
        source={**effects.source, "ablation": effects.ablation, "split": effects.split},
    )


def _alt(effects: AblationEffects, shown: Outcome, heads: list[Head], sure: list[Head]) -> str:
    return (
        f"Heatmap of the {shown.words} when one head at a time is cut ({effects.ablation} ablation), of "
        f"{origin(effects.source)}, {effects.n_examples} {effects.split} examples, {shown.of} without any cut "
        f"{number(getattr(effects, shown.baseline))}. {_finding(shown, effects, heads, sure)}"
    )


def _finding(shown: Outcome, effects: AblationEffects, heads: list[Head], sure: list[Head]) -> str:
    changes, bounds = getattr(effects, shown.change), getattr(effects, shown.interval)
    order = sorted(range(len(heads)), key=lambda i: -changes[i])[:3]
    most = [f"{head_name(heads[i])} {number(changes[i])} (95 % interval {interval(bounds[i])})" for i in order]
    return f"Largest: {listed(most)}. The interval excludes 0 for {len(sure)} of {len(heads)} heads."

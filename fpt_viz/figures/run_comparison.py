"""Test accuracies side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import math

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Bars, Figure, HLine, Panel, Points
from fpt_viz.figures._made import remembered
from fpt_viz.figures._seeds import System, systems
from fpt_viz.figures.base import (
    as_runs,
    interval,
    levels,
    listed,
    merged_levels,
    number,
    percent,
    run_names,
    source_of,
)
from fpt_viz.records import RunRecord

__all__ = ["run_comparison"]

MOST_SIGNS = 6
"""Bars whose numbers have room for a sign; on more of them the note says the unit."""


@remembered
def run_comparison(
    runs: RunRecord | Iterable[RunRecord],
    *,
    over_seeds: bool = False,
    paper: Sequence[float] | None = None,
    paper_source: str = "",
) -> Figure:
    """The test accuracy of each run with its interval, beside chance and what solvers without routing reach.

    A bar is the share of right targets (for bits: per bit); a hollow marker the share of examples with every target
    right.

    Args:
        runs: Of one task.
        over_seeds: One bar a system instead: the mean over its seeds, with the 95 % interval over seeds.
        paper: What the paper reports, one a bar in their order; NaN where it reports nothing.
        paper_source: Where the paper reports it.

    Raises:
        ConfigError: No run was given, runs of different tasks, a run given twice, or not one value of the paper a bar.
    """
    records = as_runs(runs)
    found = systems(records) if over_seeds else _alone(records)
    names = [f"{system.name} {system.seeds}" for system in found] if over_seeds else run_names(records)
    values = np.array([system.mean for system in found])
    exact = np.array([_mean([record.evaluation.exact for record in system.records]) for system in found])
    low, high = np.array([system.interval for system in found]).T
    places = np.arange(len(found))
    bars = Bars(
        values=values,
        low=low,
        high=high,
        series=tuple(range(len(found))),
        text=tuple(percent(system.mean).removesuffix(" %" if len(found) > MOST_SIGNS else "") for system in found),
        label="accuracy per target",
    )
    whole = Points(x=places, y=exact, series=4, hollow=True, marker="diamond", label="examples with every target right")
    published = _published(paper, len(found))
    tests = [record.evaluation for record in records]
    reference = tuple(HLine(at=at, label=name) for at, name in merged_levels(tests))
    spare = max(0.6, 1.6 - len(found) / 2)  # beside the bars, so that one alone is no wall
    panel = Panel(
        marks=(*reference, bars, whole, *published),
        y_title=f"{tests[0].split} accuracy",
        y_range=(0.0, 1.12),
        x_range=(-spare, len(found) - 1 + spare),
        x_ticks=(tuple(float(i) for i in places), tuple(_stacked(name) for name in names)),
        y_ticks=((0.0, 0.25, 0.5, 0.75, 1.0), ("0", "0.25", "0.5", "0.75", "1")),
        shape=0.55,
    )
    told = [
        f"{name} {number(system.mean)} (95 % interval {interval(system.interval)}; whole examples {number(all_right)})"
        for name, system, all_right in zip(names, found, exact.tolist(), strict=True)
    ]
    marks = [f"{name} {percent(value)}" for name, value in levels(tests).items()]
    over = (
        "seeds (Student's t; over the first seed's examples where all are alike)"
        if over_seeds
        else f"{listed(map(str, sorted({t.n_examples for t in tests})))} distinct"
    )
    notes = [f"Bars: share of right targets, with 95 % {'' if over_seeds else 'bootstrap '}intervals over {over}"]
    notes[0] += "" if over_seeds else " examples"
    notes += ["numbers on bars: percent"] if len(found) > MOST_SIGNS else []
    notes += ["dashed: what needs no routing"]
    notes += [f"crosses: the paper{f' ({paper_source})' if paper_source else ''}"] if published else []
    said = [f"{name} {number(value)}" for name, value in zip(names, paper or (), strict=False) if not math.isnan(value)]
    beside = f" The paper reports: {listed(said)}." if said else ""
    finding = f"Accuracy: {listed(told)}.{beside}"
    return Figure(
        title=f"Accuracy on {records[0].config['task']['name']}, {tests[0].split} split",
        alt=f"Bar chart of {tests[0].split} accuracy: {listed(told)}. Without routing: {listed(marks)}.{beside}",
        panels=(panel,),
        note="; ".join(notes) + ".",
        finding=finding,
        source=source_of(records),
    )


def _alone(records: Sequence[RunRecord]) -> list[System]:
    return [System(record.name, (record,)) for record in records]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _published(paper: Sequence[float] | None, n_bars: int) -> tuple[Points, ...]:
    """A cross where the paper reports a value."""
    if paper is None:
        return ()
    if len(paper) != n_bars:
        raise ConfigError(f"{len(paper)} values of the paper were given for {n_bars} bars; give NaN where it has none")
    there = [(float(i), float(value)) for i, value in enumerate(paper) if not math.isnan(value)]
    if not there:
        return ()
    x, y = np.array(there).T
    return (Points(x=x + 0.38, y=y, series=1, marker="x", label="the paper"),)


def _stacked(name: str) -> str:
    """A run's name in short lines: backbone, initialisation, seed."""
    backbone, _, rest = name.partition(" ")
    return f"{backbone}\n{rest.replace(' seed', chr(10) + 'seed')}"

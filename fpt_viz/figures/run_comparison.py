"""Test accuracies side by side."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fpt_viz.export import Bars, Figure, HLine, Panel, Points
from fpt_viz.figures.base import (
    as_runs,
    interval,
    levels,
    listed,
    merged_levels,
    merged_source,
    number,
    percent,
    run_names,
)
from fpt_viz.records import RunRecord

__all__ = ["run_comparison"]


def run_comparison(runs: RunRecord | Iterable[RunRecord]) -> Figure:
    """The test accuracy of each run with its interval, beside chance and what solvers without routing reach.

    A bar is the share of right targets (for bits: per bit); a hollow marker the share of examples with every target
    right.

    Raises:
        ConfigError: No run was given, or runs of different tasks.
    """
    records = as_runs(runs)
    tests = [record.evaluation for record in records]
    names = run_names(records)
    values, exact = np.array([test.accuracy for test in tests]), np.array([test.exact for test in tests])
    low, high = np.array([test.interval for test in tests]).T
    places = np.arange(len(tests))
    bars = Bars(
        values=values,
        low=low,
        high=high,
        series=tuple(range(len(tests))),
        text=tuple(percent(test.accuracy) for test in tests),
        label="accuracy per target",
    )
    whole = Points(x=places, y=exact, series=4, hollow=True, marker="diamond", label="examples with every target right")
    spare = max(0.6, 1.6 - len(tests) / 2)  # beside the bars, so that one alone is no wall
    reference = tuple(HLine(at=at, label=name) for at, name in merged_levels(tests))
    counts = sorted({test.n_examples for test in tests})
    panel = Panel(
        marks=(*reference, bars, whole),
        y_title=f"{tests[0].split} accuracy",
        y_range=(0.0, 1.12),
        x_range=(-spare, len(tests) - 1 + spare),
        x_ticks=(tuple(float(i) for i in places), tuple(_stacked(name) for name in names)),
        y_ticks=((0.0, 0.25, 0.5, 0.75, 1.0), ("0", "0.25", "0.5", "0.75", "1")),
        shape=0.55,
    )
    found = [
        f"{name} {number(test.accuracy)} (95 % interval {interval(test.interval)}; whole examples {number(test.exact)})"
        for name, test in zip(names, tests, strict=True)
    ]
    marks = [f"{name} {percent(value)}" for name, value in levels(tests).items()]
    return Figure(
        title=f"Accuracy on {records[0].config['task']['name']}, {tests[0].split} split",
        alt=f"Bar chart of {tests[0].split} accuracy: {listed(found)}. Without routing: {listed(marks)}.",
        panels=(panel,),
        note=(
            f"Bars: share of right targets, with 95 % bootstrap intervals over {listed(map(str, counts))} distinct "
            "examples; dashed: what needs no routing."
        ),
        source=merged_source([record.source for record in records]),
    )


def _stacked(name: str) -> str:
    """A run's name in short lines: backbone, initialisation, seed."""
    backbone, _, rest = name.partition(" ")
    return f"{backbone}\n{rest.replace(' seed', chr(10) + 'seed')}"

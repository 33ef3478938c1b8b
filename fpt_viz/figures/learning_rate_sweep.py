"""Accuracy against the learning rate."""

from __future__ import annotations

from collections.abc import Iterable
import math

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Figure, HLine, Line, Mark, Panel
from fpt_viz.figures._made import remembered
from fpt_viz.figures._seeds import HOW, System, points, systems
from fpt_viz.figures.base import as_runs, interval, merged_levels, number, source_of
from fpt_viz.records import RunRecord

__all__ = ["learning_rate_sweep"]

RATE = "train.learning_rate"


@remembered
def learning_rate_sweep(runs: RunRecord | Iterable[RunRecord]) -> Figure:
    """Test accuracy of each system at each learning rate, on a logarithmic axis, with intervals.

    The mean over seeds where there are several. Systems are compared at the learning rate that suits each, never at
    one alone.

    Raises:
        ConfigError: No run, runs of different tasks, a run given twice, or one learning rate only.
    """
    records = as_runs(runs)
    rates = sorted({_rate(record) for record in records})
    if len(rates) < 2:
        raise ConfigError(f"a sweep needs runs at several learning rates; all of these are at {rates[0]:g}")
    by_name: dict[str, list[System]] = {}
    for system in systems(records, apart=(RATE,)):
        by_name.setdefault(system.name, []).append(system)
    marks: list[Mark] = [HLine(at=at, label=name) for at, name in merged_levels(r.evaluation for r in records)]
    told = []
    for series, (name, found) in enumerate(by_name.items()):
        ordered = sorted(found, key=lambda system: _rate(system.records[0]))
        x = np.array([math.log10(_rate(system.records[0])) for system in ordered])
        means = np.array([system.mean for system in ordered])
        sure, unsure = points(ordered, x, means, series=series)
        line = Line(x=x, y=means, series=series, markers=True, label=name)
        marks += [mark for mark in (sure, line, unsure) if mark is not None]
        best = max(ordered, key=lambda system: system.mean)
        told.append(
            f"{name}: best at {_rate(best.records[0]):g}, {number(best.mean)} "
            f"(95 % interval {interval(best.interval)}, {best.seeds})"
        )
    pad = 0.06 * (math.log10(rates[-1]) - math.log10(rates[0]))
    panel = Panel(
        marks=tuple(marks),
        x_title="learning rate (logarithmic)",
        y_title="test accuracy",
        x_range=(math.log10(rates[0]) - pad, math.log10(rates[-1]) + pad),
        y_range=(0.0, 1.05),
        x_ticks=(tuple(math.log10(rate) for rate in rates), tuple(f"{rate:g}" for rate in rates)),
    )
    finding = f"{'; '.join(told)}."
    task = records[0].config["task"]["name"]
    return Figure(
        title=f"Accuracy on {task} by learning rate",
        alt=f"Line chart of test accuracy at {len(rates)} learning rates, {rates[0]:g} to {rates[-1]:g}. {finding}",
        panels=(panel,),
        note=f"{HOW}; dashed: what needs no routing.",
        finding=finding,
        source=source_of(records),
    )


def _rate(record: RunRecord) -> float:
    return float(record.config["train"]["learning_rate"])

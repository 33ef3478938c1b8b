"""How accuracy and loss went while runs were trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jaxtyping import Float
import numpy as np

from fpt_viz.export import Figure, HLine, Line, Mark, Panel, Points
from fpt_viz.figures.base import as_runs, levels, listed, merged_levels, merged_source, number, percent, run_names
from fpt_viz.records import RunRecord

__all__ = ["training_curves"]

WINDOW = 10
"""Steps that a point of a training batch curve is the mean of: itself and those before it."""


def training_curves(runs: RunRecord | Iterable[RunRecord]) -> Figure:
    """Accuracy and loss against gradient steps, beside chance and what solvers without routing reach.

    A pale line is the training batch (dropout on, mean of the last ten steps), a line with markers the validation
    split; a ring marks the first of the two checks in a row at which every validation target was right.

    Raises:
        ConfigError: No run was given, or runs of different tasks.
    """
    records = as_runs(runs)
    names = run_names(records)
    accuracy: list[Mark] = [HLine(at=at, label=name) for at, name in merged_levels(r.evaluation for r in records)]
    loss: list[Mark] = []
    for series, (record, name) in enumerate(zip(records, names, strict=True)):
        label = f"{name}, {_outcome(record)}"
        for marks, quantity in ((accuracy, "accuracy"), (loss, "loss")):
            marks += _curves(record, quantity, series, label)
        solved = record.steps_to_solve
        if solved is not None:
            accuracy.append(Points(x=np.array([solved]), y=np.array([1.0]), series=series, hollow=True))
    shared: dict[str, Any] = {"x_title": "gradient steps", "x_range": (0.0, _last_step(records) * 1.02)}
    # Unlike a bar, a line may start anywhere: the axis starts a little below the lowest value and level.
    low = min([0.4, *(value - 0.05 for value in _accuracies(records))])
    return Figure(
        title="Accuracy and loss during training",
        alt=_alt(records, names),
        panels=(
            Panel(marks=tuple(accuracy), y_title="accuracy per target", y_range=(max(-0.02, low), 1.03), **shared),
            Panel(marks=tuple(loss), y_title="loss (nats a target)", y_range=(0.0, _top(loss)), **shared),
        ),
        columns=2,
        note=(
            f"Loss: cross-entropy. Pale: training batch, mean of the last {WINDOW} steps; with markers: validation; "
            "hollow marker: solved (the first of two checks in a row with every validation target right)."
        ),
        source=merged_source([record.source for record in records]),
    )


def _curves(record: RunRecord, quantity: str, series: int, label: str) -> list[Mark]:
    """The batch curve and the validation curve of one run; steps are counted from 1."""
    values = np.array([getattr(step, quantity) for step in record.steps])
    checks = [(step.index + 1, getattr(step.validation, quantity)) for step in record.steps if step.validation]
    marks: list[Mark] = []
    if len(values):
        steps = np.array([step.index + 1 for step in record.steps])
        marks.append(Line(x=steps, y=_smoothed(values), series=series, faint=bool(checks), label=label))
    if checks:
        at, measured = np.array(checks).T
        marks.append(Line(x=at, y=measured, series=series, markers=True, label=label))
    return marks


def _smoothed(values: Float[np.ndarray, " step"]) -> Float[np.ndarray, " step"]:
    """The mean of each value and the up to nine before it."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - WINDOW, 0)
    smoothed: Float[np.ndarray, " step"] = (sums[ends] - sums[starts]) / (ends - starts)
    return smoothed


def _outcome(record: RunRecord) -> str:
    if record.steps_to_solve is not None:
        return f"solved at step {record.steps_to_solve}"
    return f"not solved in {len(record.steps)} steps"


def _last_step(records: Sequence[RunRecord]) -> float:
    return float(max([1, *(step.index + 1 for record in records for step in record.steps[-1:])]))


def _accuracies(records: Sequence[RunRecord]) -> list[float]:
    checks = [step.validation.accuracy for record in records for step in record.steps if step.validation]
    return checks + [level for record in records for level in levels([record.evaluation]).values()]


def _top(marks: Sequence[Mark]) -> float:
    """Room for nearly all of the loss: a first step far above the rest may run out of the picture."""
    values = np.concatenate([mark.y for mark in marks if isinstance(mark, Line)] or [np.ones(1)])
    return max(0.05, 1.1 * float(np.quantile(values, 0.99)))


def _alt(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    task = records[0].config["task"]["name"]
    words = [f"Training curves of {len(records)} run{'s' if len(records) > 1 else ''} on {task}."]
    for record, name in zip(records, names, strict=True):
        checks = [(step.index + 1, step.validation) for step in record.steps if step.validation]
        last = f", last validation accuracy {number(checks[-1][1].accuracy)} at step {checks[-1][0]}" if checks else ""
        test = record.evaluation
        words.append(f"{name}: {_outcome(record)}{last}, test accuracy {number(test.accuracy)}.")
    marks = [f"{name} {percent(value)}" for name, value in levels(r.evaluation for r in records).items()]
    words.append(f"Accuracy without routing: {listed(marks)}.")
    return " ".join(words)

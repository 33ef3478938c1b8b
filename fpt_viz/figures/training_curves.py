"""How accuracy and loss went while runs were trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jaxtyping import Float, Int
import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Figure, HLine, Line, Mark, Panel, Points
from fpt_viz.figures._made import remembered
from fpt_viz.figures._seeds import System, systems
from fpt_viz.figures.base import as_runs, levels, listed, merged_levels, number, percent, run_names, source_of
from fpt_viz.records import RunRecord

__all__ = ["training_curves"]

WINDOW = 10
"""Steps that a point of a training batch curve is the mean of: itself and those before it."""


@remembered
def training_curves(runs: RunRecord | Iterable[RunRecord], *, over_seeds: bool = False) -> Figure:
    """Accuracy and loss against gradient steps, beside chance and what solvers without routing reach.

    A pale line is the training batch (dropout on, mean of the last ten steps), a line with markers the validation
    split; a ring marks the first of the two checks in a row at which every validation target was right.

    Args:
        runs: Of one task.
        over_seeds: One line a system instead: the mean of its seeds on validation, in a band from the lowest to the
            highest seed. A run that ended before others of its system keeps its last value.

    Raises:
        ConfigError: No run was given, runs of different tasks, or (over seeds) a run given twice.
    """
    records = as_runs(runs)
    if over_seeds:
        return _over_seeds(records)
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
        finding=_finding(records, names),
        source=source_of(records),
    )


def _over_seeds(records: Sequence[RunRecord]) -> Figure:
    """The mean of each system's seeds in a band from the lowest to the highest."""
    found = systems(records)
    accuracy: list[Mark] = [HLine(at=at, label=name) for at, name in merged_levels(r.evaluation for r in records)]
    loss: list[Mark] = []
    told = []
    for series, system in enumerate(found):
        label = f"{system.name}, {system.seeds}"
        for marks, quantity in ((accuracy, "accuracy"), (loss, "loss")):
            steps, values = _checks(system, quantity)
            if not len(steps):
                raise ConfigError(f"{system.name} was never checked on validation, so its seeds have no common curve")
            mean, low, high = values.mean(axis=0), values.min(axis=0), values.max(axis=0)
            marks.append(Line(x=steps, y=mean, low=low, high=high, series=series, markers=True, label=label))
            if quantity == "accuracy":
                told.append(
                    f"{label}: {number(mean[-1])} at step {steps[-1]} ({number(low[-1])} to {number(high[-1])})"
                )
    shared: dict[str, Any] = {"x_title": "gradient steps", "x_range": (0.0, _last_step(records) * 1.02)}
    low_end = min([0.4, *(value - 0.05 for value in _accuracies(records))])
    finding = f"Validation accuracy: {'; '.join(told)}."
    task = records[0].config["task"]["name"]
    y_range = (max(-0.02, low_end), 1.03)
    return Figure(
        title="Accuracy and loss during training, over seeds",
        alt=f"Training curves of {len(found)} system{'s' if len(found) > 1 else ''} on {task}. {finding}",
        panels=(
            Panel(marks=tuple(accuracy), y_title="accuracy per target", y_range=y_range, **shared),
            Panel(marks=tuple(loss), y_title="loss (nats a target)", y_range=(0.0, _top(loss)), **shared),
        ),
        columns=2,
        note="Mean over seeds on validation; band: lowest and highest seed. A run that ended early, having solved the "
        "task, keeps its last value.",
        finding=finding,
        source=source_of(records),
    )


def _checks(system: System, quantity: str) -> tuple[Int[np.ndarray, " check"], Float[np.ndarray, "seed check"]]:
    """The steps at which any seed was checked, and each seed's value there: its last one before."""
    own = [
        {step.index + 1: getattr(step.validation, quantity) for step in record.steps if step.validation}
        for record in system.records
    ]
    first = max((min(checks, default=0) for checks in own), default=0)
    steps = sorted({step for checks in own for step in checks if step >= first})
    values = [[checks[max(at for at in checks if at <= step)] for step in steps] for checks in own if checks]
    if len(values) < len(own):
        return np.zeros(0, dtype=int), np.zeros((0, 0))
    return np.array(steps, dtype=int), np.array(values, dtype=float)


def _finding(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    told = [
        f"{name}: {_outcome(record)}, test accuracy {number(record.evaluation.accuracy)}"
        for record, name in zip(records, names, strict=True)
    ]
    return f"{'; '.join(told)}."


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

"""What the widgets show of training: curves of a run's steps, as plain data that ``static/curves.js`` draws.

Curves are drawn in the page and not by plotly: a FigureWidget sends and saves 5 MB of plotly.js each, and without a
kernel it follows no slider.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
import math
from typing import Any

from jaxtyping import Float
import numpy as np

from fpt_viz.export import Figure, HLine, Line, Mark, Panel
from fpt_viz.export.colours import style
from fpt_viz.figures.base import merged_levels, number
from fpt_viz.figures.training_curves import WINDOW
from fpt_viz.records import Evaluation, Step

N_POINTS = 2_000
"""The most points of one curve that go to a page; more than it has pixels."""


class Curves:
    """Steps as they come, kept as numbers."""

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        self.at: list[int] = []
        """Gradient steps taken after each."""
        self.loss: list[float] = []
        self.accuracy: list[float] = []
        self.checks: list[tuple[int, Evaluation]] = []
        for step in steps:
            self.add(step)

    def add(self, step: Step) -> None:
        """Take ``step``; reads its numbers from the device."""
        self.at.append(step.index + 1)
        self.loss.append(step.loss)
        self.accuracy.append(step.accuracy)
        if step.validation is not None:
            self.checks.append((step.index + 1, step.validation))

    def to_page(self, n_points: int = N_POINTS) -> dict[str, Any]:
        """Both curves for the page: the batch's as means of the last steps, and the checks; None for what is no number.

        Args:
            n_points: The most points of a batch curve; a longer one becomes means of as many steps as it takes.
        """
        stride = max(1, -(-len(self.at) // n_points))
        window = max(WINDOW, stride)
        kept = sorted({*range(stride - 1, len(self.at), stride), len(self.at) - 1} - {-1})
        batch: dict[str, Any] = {"step": [self.at[i] for i in kept]}
        for name, values in (("loss", self.loss), ("accuracy", self.accuracy)):
            means = smoothed(np.array(values, dtype=float), window)
            batch[name] = [plain(means[i]) for i in kept]
        checks: dict[str, Any] = {"step": [at for at, _ in self.checks]}
        for name in ("loss", "accuracy"):
            checks[name] = [plain(getattr(check, name)) for _, check in self.checks]
        for place, name in enumerate(("low", "high")):
            checks[name] = [plain(check.interval[place]) for _, check in self.checks]
        return {"batch": batch, "checks": checks, "window": window}


def smoothed(values: Float[np.ndarray, " step"], window: int) -> Float[np.ndarray, " step"]:
    """The mean of each value and the up to ``window - 1`` before it."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: Float[np.ndarray, " step"] = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def plain(value: float) -> float | None:
    """``value`` to five digits, as JSON bears it: None for what is not finite."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def levels_of(evaluations: Iterable[Evaluation]) -> list[list[Any]]:
    """Chance and what solvers without routing reach: ``[accuracy, words]`` each."""
    return [[at, words] for at, words in merged_levels(evaluations)]


def levels_of_task(task: Any) -> list[list[Any]]:
    """Chance and what solvers without routing reach on ``task``."""
    by_value: dict[float, list[str]] = {}
    for name, value in {"chance": task.chance, **task.trivial}.items():
        by_value.setdefault(round(float(value), 4), []).append(name.replace("_", " "))
    return [[value, f"{', '.join(names)} {100 * value:.1f} %"] for value, names in by_value.items()]


def styles(n: int) -> list[dict[str, Any]]:
    """The looks of the first ``n`` series, as in every figure: colour, dash and marker."""
    return [asdict(style(index)) for index in range(n)]


def ranges_of(curves: Sequence[Curves], levels: Sequence[Sequence[Any]]) -> dict[str, list[float]]:
    """Axes that hold all of ``curves``: accuracy from a little below its lowest value and level, loss from 0."""
    accuracies = [check.accuracy for one in curves for _, check in one.checks] + [at for at, _ in levels]
    accuracies += [float(smoothed(np.array(one.accuracy), WINDOW).min()) for one in curves if one.accuracy]
    losses = np.concatenate([np.array(one.loss or [1.0]) for one in curves]) if curves else np.ones(1)
    losses = losses[np.isfinite(losses)]
    low = min([0.4, *(value - 0.05 for value in accuracies if math.isfinite(value))])
    top = max(0.05, 1.1 * float(np.quantile(losses, 0.99))) if len(losses) else 1.0
    last = max([1, *(one.at[-1] for one in curves if one.at)])
    return {"accuracy": [max(-0.02, low), 1.03], "loss": [0.0, top], "step": [0.0, float(last)]}


def figure_of(curves: Curves, levels: Sequence[Sequence[Any]], *, title: str, said: str) -> Figure:
    """Curves of steps that are no record yet, in the manner of ``figures.training_curves``.

    Args:
        curves: At least one step, or none: the axes are then empty.
        levels: As of :func:`levels_of`.
        title: Of the figure.
        said: Where the training stands, in words.
    """
    ranges = ranges_of([curves], levels)
    panels = []
    for quantity, words in (("accuracy", "accuracy per target"), ("loss", "loss (nats a target)")):
        marks: list[Mark] = []
        if quantity == "accuracy":
            marks += [HLine(at=at, label=name) for at, name in levels]
        if curves.at:
            means = smoothed(np.array(getattr(curves, quantity), dtype=float), WINDOW)
            marks.append(Line(x=np.array(curves.at), y=means, faint=bool(curves.checks), label="training batch"))
        if curves.checks:
            at = np.array([step for step, _ in curves.checks])
            values = np.array([getattr(check, quantity) for _, check in curves.checks])
            marks.append(Line(x=at, y=values, markers=True, label="validation"))
        x_range, y_range = (0.0, ranges["step"][1] * 1.02), (ranges[quantity][0], ranges[quantity][1])
        panels.append(
            Panel(marks=tuple(marks), x_title="gradient steps", y_title=words, x_range=x_range, y_range=y_range)
        )
    last = curves.checks[-1] if curves.checks else None
    finding = f"{said[:1].upper()}{said[1:]}."
    if last is not None:
        finding += f" Validation accuracy {number(last[1].accuracy)} at step {last[0]}."
    elif curves.at:
        finding += f" Loss {number(curves.loss[-1])}, accuracy of the batch {number(curves.accuracy[-1])}."
    return Figure(
        title=title,
        alt=f"Curves of accuracy and loss against gradient steps. {finding}",
        panels=tuple(panels),
        columns=2,
        note=f"Pale, or alone: training batch, mean of the last {WINDOW} steps; with markers: validation.",
        finding=finding,
    )

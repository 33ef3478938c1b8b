"""An experiment's rows as a figure: a dot a system with its interval, beside the paper's value and chance."""

from __future__ import annotations

from collections.abc import Sequence
import math

import numpy as np

from fpt_viz.experiments._facts import Found, common_seeds, mean_check
from fpt_viz.experiments._rows import Row, rate_of
from fpt_viz.experiments._table import VALUE, _interval, _value
from fpt_viz.experiments.base import Experiment
from fpt_viz.export import Figure, HLine, Line, Mark, Panel, Points, VLine
from fpt_viz.figures.base import merged_levels
from fpt_viz.records import Evaluation

NO_ROUTING = "chance, and solvers without routing"


def figure_of(experiment: Experiment, rows: Sequence[Row], found: Sequence[Found], *, scale: str) -> Figure | None:
    """One panel a task; None where nothing has finished."""
    tasks = list(dict.fromkeys(row.cell.task for row in rows if row.finished))
    if not tasks:
        return None
    draw = _rates if experiment.quantity == "rates" else _dots
    panels = []
    for task in tasks:
        mine = [row for row in rows if row.cell.task == task and not row.cell.why_not]
        panels.append(draw(experiment, task, mine, [one for one in found if one.cell.task == task]))
    told = "; ".join(_told(row, experiment) for row in rows if row.finished)
    sources = [facts.source for one in found for facts in one.finished]
    unfinished = sum(len(row.failed) for row in rows)
    return Figure(
        title=f"{experiment.title}, scale {scale}",
        alt=f"{experiment.title}: {VALUE[experiment.quantity].lower()} of each system. {told}.",
        panels=tuple(panels),
        note=_note(experiment) + (f" Runs that did not finish, and are not drawn: {unfinished}." if unfinished else ""),
        finding=f"{told}.",
        source=dict(sources[0]) if len(sources) == 1 else {"runs": sources},
    )


def _dots(experiment: Experiment, task: str, rows: Sequence[Row], found: Sequence[Found]) -> Panel:
    quantity = experiment.quantity
    steps = quantity == "steps"
    factor = 1.0 if steps or quantity == "routing" else 100.0
    marks: list[Mark] = []
    if factor != 1.0:
        marks += [VLine(at=100 * at, label=NO_ROUTING) for at in _levels(found)]
    most = [max((facts.n_steps for facts in row.finished), default=0) for row in rows]
    there = [(i, row) for i, row in enumerate(rows) if row.mean is not None]
    if there:
        x = factor * np.array([_sure(row.mean) for _, row in there])
        low = np.array([factor * v if (v := row.interval[0]) is not None else x[k] for k, (_, row) in enumerate(there)])
        high = np.array(
            [
                factor * v if (v := row.interval[1]) is not None else (most[i] if steps else x[k])
                for k, (i, row) in enumerate(there)
            ]
        )
        y = np.array([float(i) for i, _ in there])
        low, high = np.minimum(low, x), np.maximum(high, x)
        marks.append(Points(x=x, y=y, low=low, high=high, across=True, label="ours, 95 % interval"))
    beyond = [(float(most[i]), float(i)) for i, row in enumerate(rows) if steps and row.mean is None and row.finished]
    if beyond:
        x, y = np.array(beyond).T
        marks.append(Points(x=x, y=y, series=2, hollow=True, marker="triangle-up", label="not reached by half by then"))
    theirs = [(factor * row.published.value, float(i)) for i, row in enumerate(rows) if row.published]
    if theirs and factor != 1.0:  # steps of other batches and means over heads are no values of this axis
        x, y = np.array(theirs).T
        marks.append(Points(x=x, y=y, series=1, marker="x", label="reported"))
    furthest = max([1.0, *(float(v) for v in most)]) if steps else factor
    return Panel(
        marks=tuple(marks),
        title=task,
        x_title=VALUE[quantity].lower() if not steps else "gradient steps",
        x_range=(0.0, 1.08 * furthest),
        y_range=(len(rows) - 0.4, -0.6),
        y_ticks=(tuple(float(i) for i in range(len(rows))), tuple(row.cell.system for row in rows)),
        n_lines=2 * len(rows) + 1,
    )


def _rates(experiment: Experiment, task: str, rows: Sequence[Row], found: Sequence[Found]) -> Panel:
    """Validation accuracy by learning rate: test is read at the best rate alone, so it is not drawn here."""
    marks: list[Mark] = [HLine(at=100 * at, label=label) for at, label in merged_levels(_tests(found))]
    rates: set[float] = set()
    for series, name in enumerate(dict.fromkeys(one.cell.system for one in found)):
        mine = [one for one in found if one.cell.system == name]
        seeds = common_seeds(mine)
        points = sorted((rate_of(one.cell), score) for one in mine if (score := mean_check(one, seeds)) is not None)
        if points:
            rates |= {rate for rate, _ in points}
            x, y = np.array([(math.log10(rate), 100 * score) for rate, score in points]).T
            marks.append(Line(x=x, y=y, series=series, markers=True, label=name))
    ticks = sorted(rates)
    return Panel(
        marks=tuple(marks),
        title=task,
        x_title="learning rate (logarithmic)",
        y_title="validation accuracy (%)",
        y_range=(0.0, 105.0),
        x_ticks=(tuple(math.log10(rate) for rate in ticks), tuple(f"{rate:g}" for rate in ticks)),
    )


def _levels(found: Sequence[Found]) -> list[float]:
    """Chance, and what solvers without routing reach."""
    return [at for at, _ in merged_levels(_tests(found))]


def _tests(found: Sequence[Found]) -> list[Evaluation]:
    return [facts.test for one in found for facts in one.finished]


def _sure(value: float | None) -> float:
    assert value is not None  # by the caller's choice of rows
    return value


def _told(row: Row, experiment: Experiment) -> str:
    value, interval = _value(row, experiment.quantity), _interval(row, experiment.quantity)
    return f"{row.cell.system} on {row.cell.task}: {value or '-'}{f' ({interval})' if interval else ''}"


def _note(experiment: Experiment) -> str:
    if experiment.quantity == "rates":
        return "Mean over seeds on validation after the last step; dashed: what needs no routing."
    if experiment.quantity == "steps":
        return "Kaplan-Meier medians over seeds; runs that never got there are censored."
    if experiment.quantity == "routing":
        return "Mean over seeds with 95 % intervals, of the head that is best on validation."
    return (
        "Mean over seeds with 95 % intervals; crosses: what others report, with its key in the table; dashed: what "
        "needs no routing."
    )

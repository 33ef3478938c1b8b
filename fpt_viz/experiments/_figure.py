"""An experiment's rows as a figure: a dot a system with its interval, beside the paper's value and chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
import math
from statistics import fmean
from typing import Any

import numpy as np

from fpt_viz.experiments._facts import Found, common_seeds, is_out, mean_check, steps_until, told_together
from fpt_viz.experiments._rows import ALL_OUT, Row, rate_of
from fpt_viz.experiments._table import VALUE, _interval, _value
from fpt_viz.experiments.base import Experiment, Quantity
from fpt_viz.export import Figure, HLine, Line, Mark, Panel, Points, VLine
from fpt_viz.figures.base import merged_levels
from fpt_viz.records import Evaluation

NO_ROUTING = "chance, and solvers without routing"
OURS, MEDIAN, REPORTED, PERMUTED = "ours, 95 % interval", "median, 95 % interval", "reported", "permuted"
"""What the legend calls marks that the note tells more of."""
BESIDE = 0.26
"""Of a row's height: how far from ours other values of the row stand."""
FIRST_RUN, NEXT_RUN, LAST_RUN = 0.16, 0.08, 0.5
"""Of a row's height: how far below the median its first run stands, each further one, and the last at most."""
OUT_BELOW = 5.0
"""Per cent below 0, for each system, where rates stand that have no mean."""
ENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "reached": ("a run that got there", {"series": 0, "hollow": True}),
    "never": ("a run that did not, at its last step", {"series": 1, "hollow": True, "marker": "triangle-up"}),
    "diverged": ("a run that diverged, at its last step", {"series": 3, "marker": "x"}),
}
"""How a run ends on its way to the goal, as the legend says it, and its mark."""


def figure_of(experiment: Experiment, rows: Sequence[Row], found: Sequence[Found], *, scale: str) -> Figure | None:
    """One panel a task; None where no run has finished, nor diverged in a figure that shows where."""
    tasks = list(dict.fromkeys(row.cell.task for row in rows if row.finished or row.broke))
    if not any(row.finished for row in rows) and not (experiment.quantity in DRAWN and tasks):
        return None
    draw = DRAWN.get(experiment.quantity, _dots)
    panels = []
    for task in tasks:
        mine = [row for row in rows if row.cell.task == task and not row.cell.why_not]
        panels.append(draw(experiment, task, mine, [one for one in found if one.cell.task == task]))
    shown = [row for row in rows if row.cell.task in tasks and not row.cell.why_not]
    told = "; ".join(_told(row, experiment) for row in shown)
    sources = [facts.source for one in found for facts in one.finished]
    return Figure(
        title=f"{experiment.title}, scale {scale}",
        alt=f"{experiment.title}: {VALUE[experiment.quantity].lower()} of each system. {told}.",
        panels=tuple(panels),
        note=" ".join(filter(None, [_note(experiment, shown, panels), *_missing(experiment, rows, found)])),
        finding=f"{told}.",
        source=dict(sources[0]) if len(sources) == 1 else {"runs": sources} if sources else {},
    )


def _dots(experiment: Experiment, task: str, rows: Sequence[Row], found: Sequence[Found]) -> Panel:
    quantity = experiment.quantity
    factor = 1.0 if quantity == "routing" else 100.0
    marks: list[Mark] = []
    if quantity != "routing":
        marks += [VLine(at=100 * at, label=NO_ROUTING) for at in _levels(found)]
    there = [(i, row) for i, row in enumerate(rows) if row.mean is not None]
    if there:
        x = factor * np.array([_sure(row.mean) for _, row in there])
        low, high = (
            np.array([x[k] if (v := row.interval[end]) is None else factor * v for k, (_, row) in enumerate(there)])
            for end in (0, 1)
        )
        y = np.array([float(i) for i, _ in there])
        marks.append(Points(x=x, y=y, low=np.minimum(low, x), high=np.maximum(high, x), across=True, label=OURS))
    if quantity != "routing":  # reported are means over heads, which are no values of this axis
        marks += _below(REPORTED, rows, lambda row: _published(row, on_train=False), series=1, marker="x")
    if quantity == "gap":
        marks += _below("ours, on train", rows, _mean_on_train, series=0, marker="square", at=-BESIDE, hollow=True)
        train = partial(_published, on_train=True)
        marks += _below("reported, on train", rows, train, series=1, marker="x", at=-BESIDE, hollow=True)
    if quantity == "routing":
        marks += _below("uniform attention", rows, _uniform, series=2, hollow=True)
        marks += _below(PERMUTED, rows, _permuted, series=3, hollow=True, at=-BESIDE)
    others = dict.fromkeys(row.published.of for row in rows if row.published and quantity != "routing")
    told = f" (reported: {', '.join(filter(None, others))})" if any(others) else ""
    x_title = VALUE["accuracy" if quantity == "gap" else quantity].lower()
    names = tuple(_named(row, len(row.finished)) for row in rows)
    return _of_rows(marks, names, title=f"{task}{told}", x_title=x_title, x_range=(0.0, 1.08 * factor))


def _step_dots(experiment: Experiment, task: str, rows: Sequence[Row], found: Sequence[Found]) -> Panel:
    """Medians with their intervals, and below each a mark for every run that it is made of, diverged ones too."""
    ends = {row.cell.system: _ends(row) for row in rows}
    frame = 1.08 * max([1.0, *(float(at) for own in ends.values() for _, at in own)])
    marks: list[Mark] = []
    there = [(i, row, _sure(row.mean)) for i, row in enumerate(rows) if row.mean is not None]
    if there:
        x, y = np.array([(mean, float(i)) for i, _, mean in there]).T
        low, high = np.array([_drawn(row, frame) for _, row, _ in there]).T
        marks.append(Points(x=x, y=y, low=low, high=high, across=True, label=MEDIAN))
    for kind, (label, look) in ENDS.items():
        places = [
            (float(at), i + FIRST_RUN + k * min(NEXT_RUN, (LAST_RUN - FIRST_RUN) / len(ends[row.cell.system])))
            for i, row in enumerate(rows)
            for k, (how, at) in enumerate(ends[row.cell.system])
            if how == kind
        ]
        if places:
            x, y = np.array(places).T
            marks.append(Points(x=x, y=y, label=label, **look))
    names = tuple(_named(row, len(ends[row.cell.system])) for row in rows)
    return _of_rows(marks, names, title=task, x_title="gradient steps", x_range=(0.0, frame), lines_a_row=4)


def _drawn(row: Row, frame: float) -> tuple[float, float]:
    """The interval of a median, to the ``frame`` where it is open; none where there is none."""
    low, high = row.interval
    if low is None and high is None:
        return _sure(row.mean), _sure(row.mean)
    return 0.0 if low is None else low, frame if high is None else high


def _ends(row: Row) -> list[tuple[str, int]]:
    """How each run of ``row`` ended that took steps, and after how many; those that got there first."""
    ends = [
        ("never", facts.n_steps) if (step := steps_until(facts, row.cell.threshold)) is None else ("reached", step)
        for facts in row.finished
    ]
    ends += [("diverged", failure.n_steps) for failure in row.failed if failure.kind == "diverged"]
    return sorted(ends, key=lambda end: (list(ENDS).index(end[0]), end[1]))


def _of_rows(
    marks: Sequence[Mark],
    names: tuple[str, ...],
    *,
    title: str,
    x_title: str,
    x_range: tuple[float, float],
    lines_a_row: int = 2,
) -> Panel:
    """A panel with a line a row, each of which has a name."""
    return Panel(
        marks=tuple(marks),
        title=title,
        x_title=x_title,
        x_range=x_range,
        y_range=(len(names) - 0.4, -0.6),
        y_ticks=(tuple(map(float, range(len(names)))), names),
        n_lines=lines_a_row * len(names) + 1,
    )


def _named(row: Row, n_counted: int) -> str:
    """The system of ``row``, and how many of its runs count in its value where not all do."""
    name, n_all = row.cell.system, len(row.finished) + len(row.failed)
    return name if n_counted == n_all else f"{name} ({n_counted} of {n_all} runs)"


def _below(
    label: str, rows: Sequence[Row], value: Callable[[Row], float | None], *, at: float = BESIDE, **look: Any
) -> list[Mark]:
    """Further values of each row, ``at`` a part of the way to the next, so that they do not hide ours."""
    there = [(number, i + at) for i, row in enumerate(rows) if (number := value(row)) is not None]
    if not there:
        return []
    x, y = np.array(there).T
    return [Points(x=x, y=y, label=label, **look)]


def _published(row: Row, *, on_train: bool) -> float | None:
    if row.published is None:
        return None
    value = row.published.on_train if on_train else row.published.value
    return None if value is None else 100 * value


def _mean_on_train(row: Row) -> float | None:
    values = [facts.on_train for facts in row.finished if facts.on_train is not None]
    return 100 * fmean(values) if values else None


def _uniform(row: Row) -> float | None:
    return next((facts.routing.uniform for facts in row.finished if facts.routing is not None), None)


def _permuted(row: Row) -> float | None:
    routings = [facts.routing for facts in row.finished if facts.routing is not None]
    values = [routing.permuted for routing in routings if routing.permuted is not None]
    return fmean(values) if values else None


def _rates(experiment: Experiment, task: str, rows: Sequence[Row], found: Sequence[Found]) -> Panel:
    """Validation accuracy by learning rate: test is read at the best rate alone, so it is not drawn here.

    A rate at which a run diverged or failed has no mean: it has a mark below 0 instead.
    """
    marks: list[Mark] = [HLine(at=100 * at, label=label) for at, label in merged_levels(_tests(found))]
    names = list(dict.fromkeys(one.cell.system for one in found))
    rates = sorted({rate_of(one.cell) for one in found})
    lowest = 0.0
    for series, name in enumerate(names):
        mine = [one for one in found if one.cell.system == name]
        seeds = common_seeds(mine)
        points = sorted((rate_of(one.cell), score) for one in mine if (score := mean_check(one, seeds)) is not None)
        if points:
            x, y = np.array([(math.log10(rate), 100 * score) for rate, score in points]).T
            counted = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
            marks.append(Line(x=x, y=y, series=series, markers=True, label=f"{name}, {counted}"))
        out = [math.log10(rate_of(one.cell)) for one in mine if is_out(one)]
        if out:
            lowest -= OUT_BELOW
            at = np.full(len(out), lowest)
            marks.append(Points(x=np.array(out), y=at, series=series, marker="x", label=f"{name}: diverged or failed"))
    return Panel(
        marks=tuple(marks),
        title=task,
        x_title="learning rate (logarithmic)",
        y_title="validation accuracy (%)",
        y_range=(lowest - (OUT_BELOW if lowest else 0.0), 105.0),
        y_ticks=(tuple(map(float, range(0, 101, 20))), tuple(map(str, range(0, 101, 20)))),
        x_ticks=(tuple(math.log10(rate) for rate in rates), tuple(f"{rate:g}" for rate in rates)),
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
    missing = ", ".join(told_together(row.failed))
    return (
        f"{row.cell.system} on {row.cell.task}: {value or '-'}{f' ({interval})' if interval else ''}"
        f"{f', {missing}' if missing else ''}"
    )


def _missing(experiment: Experiment, rows: Sequence[Row], found: Sequence[Found]) -> Iterator[str]:
    """What a reader would look for in the figure in vain."""
    kinds = Counter(failure.kind for row in rows for failure in row.failed)
    if kinds:
        yield f"Runs without a result: {', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))}."
    groups: dict[tuple[str, str], list[Found]] = {}
    for one in found if experiment.quantity == "rates" else ():
        groups.setdefault((one.cell.system, one.cell.task), []).append(one)
    for (system, task), group in groups.items():
        if not common_seeds(group):
            why = ALL_OUT if all(map(is_out, group)) else "no seed has run at all of its rates"
            yield f"No line of {system} on {task}: {why}."
    absent = dict.fromkeys(row.cell.system for row in rows if row.cell.why_not)
    if absent:
        yield f"Not run at this scale: {', '.join(absent)}."


def _note(experiment: Experiment, rows: Sequence[Row], panels: Sequence[Panel]) -> str:
    """How to read the marks that are in ``panels``, which show ``rows``."""
    marks = [mark for panel in panels for mark in panel.marks]
    labels = {mark.label for mark in marks if isinstance(mark, Points)}
    dashed = "dashed: what needs no routing" if any(isinstance(mark, HLine | VLine) for mark in marks) else ""
    if experiment.quantity == "rates":
        means = "mean over seeds on validation after the last step" if any(isinstance(m, Line) for m in marks) else ""
        out = any(isinstance(mark, Points) for mark in marks)
        return _sentence(means, dashed, "crosses below 0: rates with no mean" if out else "")
    if experiment.quantity == "steps":
        return _note_on_steps(rows, labels)
    ours = "mean over seeds with 95 % intervals, those of one seed over its examples" if OURS in labels else ""
    if experiment.quantity == "routing":
        best = _sentence(ours, "of the head that is best on validation" if ours else "")
        permuted = "Permuted: against other queries' needs." if PERMUTED in labels else ""
        return " ".join(filter(None, (best, permuted)))
    reported = any(label.startswith(REPORTED) for label in labels)
    return _sentence(ours, "crosses: what others report, with its key in the table" if reported else "", dashed)


def _note_on_steps(rows: Sequence[Row], labels: Collection[str]) -> str:
    kinds = [kind for kind, (label, _) in ENDS.items() if label in labels]
    if not kinds:
        return ""
    medians = [row for row in rows if row.mean is not None]
    drawn = "Kaplan-Meier medians over seeds, and below each its runs" if medians else "each mark is a run"
    where = "censored at their last step" if medians else "shown at their last step"
    censored = f"those that did not get there are {where}" if kinds != ["reached"] else ""
    is_open = any((row.interval[0] is None) != (row.interval[1] is None) for row in medians)
    open_ends = "An interval that ends at the frame is open." if is_open else ""
    return " ".join(filter(None, (_sentence(drawn, censored), open_ends)))


def _sentence(*clauses: str) -> str:
    """One sentence of those ``clauses`` that say something."""
    told = "; ".join(filter(None, clauses))
    return f"{told[0].upper()}{told[1:]}." if told else ""


DRAWN: dict[Quantity, Callable[[Experiment, str, Sequence[Row], Sequence[Found]], Panel]] = {
    "rates": _rates,
    "steps": _step_dots,
}

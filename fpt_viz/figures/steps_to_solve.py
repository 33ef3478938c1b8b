"""How many gradient steps each system takes until it solves the task."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

import numpy as np

from fpt_viz.export import Figure, Mark, Panel, Points
from fpt_viz.figures._made import remembered
from fpt_viz.figures._seeds import System, systems
from fpt_viz.figures.base import as_runs, listed, source_of
from fpt_viz.records import RunRecord

__all__ = ["steps_to_solve"]


@remembered
def steps_to_solve(runs: RunRecord | Iterable[RunRecord]) -> Figure:
    """One line a system, one marker a seed; a hollow triangle where the task was not solved, at the steps taken.

    Solved: the first of two checks in a row with every validation target right.

    Raises:
        ConfigError: No run, runs of different tasks, or a run given twice.
    """
    records = as_runs(runs)
    found = systems(records)
    marks: list[Mark] = []
    solved_at = [(row, record.steps_to_solve) for row, system in enumerate(found) for record in system.records]
    solved = [(float(step), row) for row, step in solved_at if step is not None]
    never = [
        (float(len(record.steps)), row)
        for row, system in enumerate(found)
        for record in system.records
        if record.steps_to_solve is None
    ]
    if solved:
        x, y = np.array(solved, dtype=float).T
        marks.append(Points(x=x, y=_apart(y), label="solved"))
    if never:
        x, y = np.array(never, dtype=float).T
        marks.append(Points(x=x, y=_apart(y), series=1, hollow=True, marker="triangle-up", label="not solved by then"))
    furthest = max(x for x, _ in solved + never)
    panel = Panel(
        marks=tuple(marks),
        x_title="gradient steps",
        x_range=(0.0, 1.05 * max(1.0, furthest)),
        y_range=(len(found) - 0.4, -0.6),
        y_ticks=(tuple(float(i) for i in range(len(found))), tuple(f"{s.name}, {s.seeds}" for s in found)),
        n_lines=2 * len(found) + 1,
    )
    finding = f"{'; '.join(_told(system) for system in found)}."
    task = records[0].config["task"]["name"]
    return Figure(
        title=f"Gradient steps to solve {task}",
        alt=f"Dot chart of the steps that {len(found)} system{'s' if len(found) > 1 else ''} took to solve {task}. "
        f"{finding}",
        panels=(panel,),
        note="One marker a seed. Solved: the first of two checks in a row with every validation target right.",
        finding=finding,
        source=source_of(records),
    )


def _apart(rows: np.ndarray) -> np.ndarray:
    """``rows`` with those of one system a little apart, so that equal steps do not hide each other."""
    moved = rows.astype(float)
    for row in np.unique(rows):
        own = np.flatnonzero(rows == row)
        moved[own] += np.linspace(-0.2, 0.2, len(own)) if len(own) > 1 else 0.0
    return moved


def _told(system: System) -> str:
    steps = [record.steps_to_solve for record in system.records]
    solved = sorted(step for step in steps if step is not None)
    if not solved:
        return f"{system.name}: not solved by any of {len(steps)} in {_taken(system)} steps"
    one = "step" if len(solved) == 1 else "median step"
    return f"{system.name}: solved by {len(solved)} of {len(steps)}, {one} {median(solved):g}"


def _taken(system: System) -> str:
    return listed(map(str, sorted({len(record.steps) for record in system.records})))

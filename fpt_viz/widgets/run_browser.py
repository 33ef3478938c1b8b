"""The runs in a folder: a table to sort and filter, and what the chosen ones have in common and apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import traitlets

from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.export import Figure, Panel, Words, compose
from fpt_viz.figures.base import listed
from fpt_viz.figures.run_comparison import run_comparison
from fpt_viz.figures.training_curves import training_curves
from fpt_viz.records import RunRecord, load_run
from fpt_viz.widgets import _curves, _runs
from fpt_viz.widgets._runs import RunRow
from fpt_viz.widgets.base import Choice, Widget

__all__ = ["RunBrowser"]

COLUMNS = (
    ("run", "run", False),
    ("status", "status", False),
    ("task", "task", False),
    ("backbone", "backbone", False),
    ("init", "weights", False),
    ("trained", "trained groups", False),
    ("learning_rate", "learning rate", True),
    ("seed", "seed", True),
    ("n_steps", "steps", True),
    ("solved", "solved at step", True),
    ("accuracy", "test accuracy (95 %)", True),
    ("loss", "test loss", True),
)
"""Field, heading, and whether it is a number."""
STATUSES = ("finished", "unfinished", "damaged")
N_STYLES = 49
"""Series that differ in colour, dash or marker."""
MOST_RUNS = 12
"""In a figure for paper where none is selected."""


class RunBrowser(Widget):
    """A table of all runs below a folder; those selected are drawn and compared.

    Unfinished and damaged runs are listed with the reason.
    """

    script = "run_browser.js"
    parts = ("base.js", "curves.js")
    depends = {"runs": ("looks",)}  # noqa: RUF012
    optional = ("runs",)

    runs: Any = traitlets.List(allow_none=True).tag(sync=True)
    """Every run found, with its curves."""

    def __init__(self, source: Any, task: str | None = None, *, state: Mapping[str, Any] | None = None) -> None:
        """Look for runs below the folder ``source``.

        Args:
            source: A folder; run folders are found at any depth below it, links to folders apart.
            task: Show at first only runs whose row holds this word, such as a task's name.
            state: The :attr:`state` of another browser of the same folder.

        Raises:
            RecordError: There is no such folder.
        """
        if isinstance(source, RunRecord):
            raise ConfigError(f"give the folder that holds the runs, such as {str(source.path.parent)!r}, not one run")
        self.folder = Path(source)
        if not self.folder.is_dir():
            raise RecordError(f"there is no folder {self.folder}: give one that holds runs, such as data/runs")
        self._rows: list[RunRow] = []
        first = {"looks": 0, "filter": task or "", "sort": "run", "descending": False, "selected": []}
        fixed = {
            "title": f"Runs in {self.folder.name or self.folder}",
            "columns": [{"name": name, "words": words, "number": number} for name, words, number in COLUMNS],
            "styles": _curves.styles(N_STYLES),
        }
        super().__init__(first=first, fixed=fixed, state=state)

    @property
    def table(self) -> list[RunRow]:
        """Every run found, by path."""
        return list(self._rows)

    @property
    def selected(self) -> list[RunRecord]:
        """The records of the runs selected, in the order of their selection, read anew.

        Raises:
            RecordError: One was damaged or removed meanwhile.
        """
        return [load_run(self.folder / path) for path in self.choice["selected"]]

    @property
    def differences(self) -> dict[str, list[str | None]]:
        """The options in which the runs selected are not all alike, one value a run; None where one does not say."""
        by_path = {row.path: row for row in self._rows}
        return _runs.differences([by_path[path] for path in self.choice["selected"]])

    def look_again(self) -> None:
        """Search the folder anew; runs that finished meanwhile can then be selected."""
        self.choose(looks=self.choice["looks"] + 1)

    def checked(self, choice: Choice) -> Choice:
        """``choice``, if what it selects is finished."""
        if choice["sort"] not in {name for name, _, _ in COLUMNS}:
            raise ConfigError(
                f"runs cannot be sorted by {choice['sort']!r}: there are {listed([name for name, _, _ in COLUMNS])}"
            )
        by_path = {row.path: row for row in self._rows}
        for path in choice["selected"]:
            if path not in by_path:
                raise ConfigError(f"there is no run {path!r} in {self.folder}")
            if by_path[path].status != "finished":
                raise ConfigError(f"{path} is {by_path[path].status} and cannot be selected: {by_path[path].reason}")
        return {**choice, "selected": list(dict.fromkeys(choice["selected"]))}

    def restored(self, choice: Choice) -> Choice:
        """``choice`` as it is: runs that are gone since are left out, and said."""
        return choice

    def answer(self, trait: str, choice: Choice) -> Any:
        """Every run that is there now."""
        self._rows = _runs.found(self.folder)
        return [{**asdict(row), "cells": {**row.cells, "run": row.path, "status": row.status}} for row in self._rows]

    def _take(self, choice: Choice, told: str, answers: Mapping[str, Any] | None = None) -> None:
        there = {row.path for row in self._rows if row.status == "finished"}
        gone = [path for path in choice["selected"] if path not in there]
        if gone:
            choice = {**choice, "selected": [path for path in choice["selected"] if path in there]}
            told = told or f"Not selected any more, as no finished run is there: {', '.join(gone)}."
        super()._take(choice, told, answers)

    def offline(self, trait: str) -> Iterable[Choice]:
        """The runs found when the page was written; it cannot look again."""
        return [self.choice]

    def figure(self) -> Figure:
        """Curves and accuracies of the runs selected; of all finished ones of a task where none is."""
        records = self._drawn()
        if not records:
            return _nothing(self._alt(), self.fixed["title"])
        return compose([training_curves(records), run_comparison(records)])

    def _drawn(self) -> list[RunRecord]:
        """Readable runs of one task, that of the first."""
        finished = [row for row in self._rows if row.status == "finished"]
        chosen = [row for path in self.choice["selected"] for row in finished if row.path == path]
        chosen = chosen or finished[:MOST_RUNS]
        of_task = [row for row in chosen if row.cells["task"] == chosen[0].cells["task"]]
        records = []
        for row in of_task:
            try:
                records.append(load_run(self.folder / row.path))
            except RecordError:  # removed since the folder was searched
                continue
        return records

    def _alt(self) -> str:
        by_status = Counter(row.status for row in self._rows)
        words = [f"{by_status[status]} {status}" for status in STATUSES]
        chosen = self.choice["selected"]
        return (
            f"Table of the runs in {self.folder.name or self.folder}: {listed(words)}. "
            f"{len(chosen)} selected{f': {listed(chosen)}' if chosen else ''}."
        )


def _nothing(alt: str, title: str) -> Figure:
    """A figure that says that there is nothing to draw."""
    words = Words(x=np.array([0.5]), y=np.array([0.5]), text=("no finished run",), side="on")
    panel = Panel(marks=(words,), x_range=(0.0, 1.0), y_range=(0.0, 1.0), bare=True, shape=0.2)
    return Figure(title=title, alt=alt, panels=(panel,))

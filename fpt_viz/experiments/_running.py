"""An experiment from its plan to its table and figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpt_viz import registry
from fpt_viz.config import RunConfig
from fpt_viz.engines.base import Engine, Outcome
from fpt_viz.errors import RecordError
from fpt_viz.experiments._facts import Facts, Failure, Found, look_at
from fpt_viz.experiments._figure import figure_of
from fpt_viz.experiments._plan import Choice, Plan, load_plan, plan_of
from fpt_viz.experiments._rows import Row, rows_of
from fpt_viz.experiments._table import table_of
from fpt_viz.experiments.base import SOURCES, Cell, Experiment
from fpt_viz.export import Figure, PaperTable
from fpt_viz.export.provenance import sidecar
from fpt_viz.records.run import CONFIG

TABLES = ("md", "html", "csv", "tex")
FIGURES = ("pdf", "svg")
Tell = Callable[[int, int, Outcome], None]
"""Called with the number of runs that have ended, how many there are to do, and the last that ended."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came out of an experiment, from its records alone."""

    name: str
    folder: Path
    rows: tuple[Row, ...]
    table: PaperTable
    figure: Figure | None
    """None while nothing has finished."""

    @property
    def failures(self) -> list[tuple[Row, Failure]]:
        """Every run that gave no result."""
        return [(row, failure) for row in self.rows for failure in row.failed]

    def save(self) -> list[Path]:
        """Write table and figure beside the plan; the same records give the same bytes.

        A figure of before, of which nothing is left to draw, is removed.
        """
        paths = [self.table.save(self.folder / f"table.{suffix}") for suffix in TABLES]
        if self.figure is not None:
            paths += [self.figure.save(self.folder / f"figure.{suffix}") for suffix in FIGURES]
            return paths
        for old in (self.folder / f"figure.{suffix}" for suffix in FIGURES):
            old.unlink(missing_ok=True)
            sidecar(old).unlink(missing_ok=True)
        return paths

    def to_json(self) -> dict[str, Any]:
        """Plain data: rows, where they lie, and what failed."""
        return {"experiment": self.name, "folder": self.folder, "rows": [_row_as_data(row) for row in self.rows]}


def reproduce(
    name: str,
    *,
    out: str | Path,
    engine: Engine,
    choice: Choice | None = None,
    retry: bool = False,
    tell: Tell | None = None,
) -> Result:
    """Make every run of the experiment ``name`` that is not finished yet, then its table and figure.

    Args:
        name: An entry of ``experiments``, or the path of a ``.py`` file of the same form.
        out: Where runs and results lie; may hold those of other experiments.
        engine: Where the runs execute.
        choice: Scale, tasks, seeds and steps; None for the laptop's.
        retry: Also try again what diverged.
        tell: Called when a run ends.

    Raises:
        UnknownNameError: No such experiment, scale or task.
        ConfigError: It is not defined on the backbone asked for.
        KeyboardInterrupt: After Ctrl-C; everything is saved, and the table shows what there is.
    """
    experiment = registry.load("experiments", name)
    plan = plan_of(name, experiment, choice or Choice(), Path(out))
    plan.save()
    total = len(list(plan.jobs_before(retry=retry))) + len(list(plan.jobs(retry=retry)))
    done = 0
    try:
        for jobs in (plan.jobs_before(retry=retry), plan.jobs(retry=retry)):
            with contextlib.closing(engine.run(jobs)) as outcomes:  # type: ignore[type-var]
                for outcome in outcomes:
                    done += 1
                    if tell is not None:
                        tell(done, total, outcome)
    except KeyboardInterrupt:
        _result(plan, experiment).save()
        n_cut_off = getattr(engine, "n_cut_off", 0)  # of an engine that counts them
        others = f", {n_cut_off} cut off before it was saved, and" if n_cut_off else " and"
        raise KeyboardInterrupt(
            f"stopped with {done} of {total} runs ended{others} the others saved: the same command goes on"
        ) from None
    result = _result(plan, experiment)
    result.save()
    return result


def result_in(folder: str | Path, *, experiment: str | None = None) -> Result:
    """What the records of the experiment in ``folder`` say; nothing is run.

    Args:
        folder: That of the experiment, such as ``data/results/table_6-laptop``.
        experiment: The path of its file, where that is one of the user's own: its code runs, so no plan is trusted
            with it.

    Raises:
        RecordError: The folder holds no whole plan, or one of a file that is not given.
    """
    plan = load_plan(Path(folder))
    if experiment is None and plan.experiment.endswith(".py"):
        raise RecordError(f"{folder} was made by {plan.experiment}, whose code would run: give that path")
    return _result(plan, registry.load("experiments", experiment or plan.experiment))


def _result(plan: Plan, experiment: Experiment) -> Result:
    found = [_found(entry.cell, entry.runs) for entry in plan.entries]
    rows = rows_of(found, experiment.quantity)
    label = f"tab:{plan.folder.name}"
    return Result(
        name=plan.experiment,
        folder=plan.folder,
        rows=tuple(rows),
        table=table_of(experiment, rows, scale=plan.scale, label=label, notes=_starts(plan)),
        figure=figure_of(experiment, rows, found, scale=plan.scale),
    )


def _starts(plan: Plan) -> tuple[str, ...]:
    """What the networks had learned that others start from, or why they had not."""
    told: dict[str, None] = {}
    for entry in plan.entries:
        if entry.start is None:
            continue
        looked = look_at(entry.start, 0)
        if isinstance(looked, Facts):
            task = RunConfig.load(entry.start / CONFIG).task.name.replace("_", " ")
            how = f"pretrained to {100 * looked.test.accuracy:.1f} % on {task} (test)"
        else:
            how = f"the pretraining it starts from, {looked.told}{f': {looked.message}' if looked.message else ''}"
        told[f"{entry.cell.system}: {how}."] = None
    return tuple(told)


def _found(cell: Cell, runs: Mapping[int, Path]) -> Found:
    looked = [look_at(folder, seed, cell.measures) for seed, folder in runs.items()]
    return Found(
        cell=cell,
        finished=tuple(one for one in looked if isinstance(one, Facts)),
        failed=tuple(one for one in looked if isinstance(one, Failure)),
    )


def _row_as_data(row: Row) -> dict[str, Any]:
    published = row.published
    return {
        "system": row.cell.system,
        "task": row.cell.task,
        "seeds": list(row.seeds),
        "mean": row.mean,
        "interval": list(row.interval),
        "paper": None if published is None else published.value,
        "source": None if published is None else f"{published.source}: {SOURCES[published.source]}",
        "paper_of": None if published is None else published.of,
        "versus": row.cell.versus or None,
        "difference": row.versus,
        "p_holm": row.p,
        "chance": row.chance,
        "trivial": dict(row.trivial),
        "beside": dict(row.beside),
        "not_run": row.cell.why_not or None,
        "failed": [{"seed": f.seed, "kind": f.kind, "message": f.message, "rate": f.rate or None} for f in row.failed],
    }

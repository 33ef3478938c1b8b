"""``reproduce``: an experiment's runs, its table and its figure."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
import sys
from typing import TYPE_CHECKING, Any

from fpt_viz import registry
from fpt_viz.cli.answer import Answer, Table
from fpt_viz.cli.training import set_data_dir
from fpt_viz.errors import ConfigError

if TYPE_CHECKING:
    from fpt_viz.engines.base import Outcome
    from fpt_viz.export import PaperTable
    from fpt_viz.reproduce import Choice, Forecast

OUT = Path("data/runs/experiments")
"""Where experiments go that are given no folder."""


def reproduce(arguments: Namespace) -> Answer:
    """The experiment, or with ``--dry-run`` what it will take."""
    from fpt_viz.reproduce import reproduce as reproduced

    set_data_dir(arguments)
    registry.load("experiments", arguments.experiment)  # an unknown name is an error before anything is set up
    choice, engine = _choice(arguments), _engine(arguments)
    out = arguments.out or OUT
    if arguments.dry_run:
        return _forecast(arguments, choice, out, n_workers=getattr(engine, "n_workers", 1))
    result = reproduced(
        arguments.experiment, out=out, engine=engine, choice=choice, retry=arguments.retry, tell=_tell(arguments)
    )
    failed = [failure for _, failure in result.failures if failure.kind != "diverged"]
    shown: list[str | Table] = [result.table.caption, table_shown(result.table), *result.table.notes]
    n_damaged = sum(failure.kind == "damaged" for failure in failed)
    told = f"{_runs(n_damaged)} damaged: left as found, with its cure above. " if n_damaged else ""
    if len(failed) > n_damaged:
        told += f"{_runs(len(failed) - n_damaged)} failed; the same command tries again. "
    return Answer(result.to_json(), [*shown, f"{told}Saved in {result.folder}."], exit_code=1 if failed else 0)


def _runs(n: int) -> str:
    return "1 run" if n == 1 else f"{n} runs"


def table_shown(table: PaperTable) -> Table:
    """``table`` for a terminal: columns that say nothing are left out."""
    kept = [i for i in range(len(table.columns)) if any(row[i] for row in table.rows)]
    rows = [[row[i] or "-" for i in kept] for row in table.rows]
    return Table(tuple(table.columns[i] for i in kept), rows)


def _choice(arguments: Namespace) -> Choice:
    from fpt_viz.reproduce import Choice

    for name in ("seeds", "limit"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} must be at least 1, got {value}")
    return Choice(
        scale=arguments.scale,
        tasks=tuple(arguments.tasks or ()),
        n_seeds=arguments.seeds,
        limit=arguments.limit,
        backbone=arguments.backbone,
    )


def _engine(arguments: Namespace) -> Any:
    factory = registry.load("engines", arguments.engine)
    return factory(workers=arguments.workers, threads=arguments.threads, device=arguments.device)


def _tell(arguments: Namespace) -> Any:
    """A line on stderr for each run that ends; None with ``--json``, where nothing else is said."""
    if arguments.json:
        return None

    def tell(done: int, total: int, outcome: Outcome) -> None:
        how = outcome.status if not outcome.error else f"{outcome.status}: {outcome.error}"
        print(f"{done} of {total}: {outcome.job.folder.name}, {outcome.seconds:.0f} s, {how}", file=sys.stderr)

    return tell


def _forecast(arguments: Namespace, choice: Choice, out: Path, *, n_workers: int) -> Answer:
    from fpt_viz.reproduce import forecast, plan_of

    if arguments.threads is not None or n_workers > 1:
        import torch

        torch.set_num_threads(arguments.threads or max(1, torch.get_num_threads() // n_workers))
    plan = plan_of(arguments.experiment, registry.load("experiments", arguments.experiment), choice, out)
    found = forecast(plan, workers=n_workers, device=arguments.device, retry=arguments.retry)
    rows = [
        (
            kind.told,
            str(kind.n_runs),
            str(kind.n_steps),
            "-" if kind.step_seconds is None else f"{1000 * kind.step_seconds:.0f}",
            "-" if kind.seconds is None else f"{kind.seconds / 60:.1f}",
            "-" if kind.n_bytes is None else f"{kind.n_bytes / 1e6:.1f}",
            kind.error,
        )
        for kind in found.kinds
    ]
    columns = ("runs of", "runs", "most steps", "step (ms)", "minutes of a worker", "MB", "cannot be run")
    line = (
        f"{found.n_runs} runs to do, {found.n_finished} finished: at most {found.seconds / 60:.0f} minutes with "
        f"{found.workers} worker{'s' if found.workers > 1 else ''}, and {found.n_bytes / 1e6:.0f} MB in {out}"
    )
    return Answer(_forecast_as_data(found, plan.folder), [Table(columns, rows), line])


def _forecast_as_data(found: Forecast, folder: Path) -> dict[str, Any]:
    from dataclasses import asdict

    totals: dict[str, Any] = {"n_runs": found.n_runs, "n_finished": found.n_finished, "workers": found.workers}
    totals |= {"seconds": found.seconds, "bytes": found.n_bytes}
    return {"folder": folder, **totals, "rows": [asdict(kind) for kind in found.kinds]}

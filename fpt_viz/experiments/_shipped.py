"""The results that come with the project: which rows, how they are gathered, and the page that shows them.

Run as a module after ``fpt-viz reproduce`` has made some of them in a folder of its own::

    python -m fpt_viz.experiments._shipped collect FOLDER data/results    # records without weights, tables, figures
    python -m fpt_viz.experiments._shipped page data/results data/RESULTS.md
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
import shutil
import sys

from fpt_viz import registry
from fpt_viz.engines._job import FAILURE, WEIGHTS, shed_weights
from fpt_viz.errors import ConfigError
from fpt_viz.experiments._forecast import forecast
from fpt_viz.experiments._plan import PLAN, RUNS, Choice, Plan, load_plan, plan_of
from fpt_viz.experiments._rows import Row
from fpt_viz.experiments._running import Result, result_in
from fpt_viz.experiments._table import CAP
from fpt_viz.experiments.base import Scale
from fpt_viz.records import store
from fpt_viz.records.run import CHECKPOINT, ENVIRONMENT, LOCK, RESULT

FORECAST = "forecast.json"
OWN = (CAP, "Difference", "Ratio")
"""How notes begin that stand below each table, though others have the same."""
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Shipped:
    """One row of the page: an experiment on some of its tasks."""

    title: str
    experiment: str
    tasks: tuple[str, ...]
    scale: Scale = "laptop"

    @property
    def choice(self) -> Choice:
        """What of the experiment is run."""
        return Choice(scale=self.scale, tasks=self.tasks)

    @property
    def command(self) -> str:
        """What makes it again, elsewhere: the runs that are shipped stay."""
        scale = "" if self.scale == "laptop" else f" --scale {self.scale}"
        return f"fpt-viz reproduce {self.experiment}{scale} --tasks {','.join(self.tasks)}"


ROWS = (
    Shipped("XOR: steps to solve, pretrained against random", "table_6", ("bit_xor",)),
    Shipped("Parameter groups on XOR, pretrained", "table_15", ("bit_xor",)),
    Shipped("Parameter groups on XOR, random", "table_21", ("bit_xor",)),
    Shipped("Parameter groups on digits, pretrained", "table_15", ("digits",)),
    Shipped("Parameter groups on digits, random", "table_21", ("digits",)),
    Shipped("Frozen random transformer against frozen random LSTM on XOR", "table_3", ("bit_xor",)),
    Shipped("FPT, full transformer and trained LSTM on XOR", "table_1", ("bit_xor",)),
    Shipped("Frozen random transformer against frozen random LSTM on digits", "table_3", ("digits",)),
    Shipped("FPT, full transformer and trained LSTM on digits", "table_1", ("digits",)),
    Shipped("Pretrained, statistics only and random on digits", "table_9", ("digits",)),
    Shipped("Pretrained, statistics only and random on Fashion-MNIST", "table_9", ("fashion_mnist",)),
    Shipped("Learning rates on XOR", "learning_rate", ("bit_xor",)),
    Shipped("Bit memory: steps to solve, pretrained against random", "table_6", ("bit_memory",)),
    Shipped("Learning rates on digits", "learning_rate", ("digits",)),
)
"""In the order of the page."""


def collect(source: Path, target: Path, *, keep_weights: Collection[str] = ()) -> None:
    """Bring what of :data:`ROWS` is finished in ``source`` into ``target``, and remake tables and figures there.

    What a row still lacks is measured and written beside it. Finished runs in ``target`` stay.

    Args:
        source: The ``--out`` of ``fpt-viz reproduce``.
        target: Another folder.
        keep_weights: Names of run folders whose trained weights come along.
    """
    for row in ROWS:
        plan = plan_of(row.experiment, registry.load("experiments", row.experiment), row.choice, source)
        for folder in sorted({folder for entry in plan.entries for folder in entry.runs.values()}):
            _bring(folder, target / RUNS / folder.name, keep=folder.name in keep_weights)
        ours = plan_of(row.experiment, registry.load("experiments", row.experiment), row.choice, target)
        ours.save()
        result_in(ours.folder).save()
        _measure_the_rest(ours)


def _measure_the_rest(plan: Plan) -> None:
    """Write beside ``plan`` what its missing runs will take, unless that is known already."""
    left, n_missing = plan.folder / FORECAST, len(list(plan.jobs()))
    if not n_missing:
        left.unlink(missing_ok=True)
    elif not left.exists() or store.read_json(left)["n_runs"] != n_missing:
        store.write_json(left, asdict(forecast(plan)))


def _bring(folder: Path, target: Path, *, keep: bool) -> None:
    """Copy a finished or failed run, less its weights."""
    finished = (folder / RESULT).exists()
    if (target / RESULT).exists() or not (finished or (folder / FAILURE).exists()):
        return
    if target.exists() and not finished:
        return  # that it failed is known there
    left_out = {LOCK, CHECKPOINT, *(() if keep and finished else WEIGHTS)}
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(folder, part, ignore=lambda _folder, names: [name for name in names if name in left_out])
    if not keep and finished:
        shed_weights(part)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)


def page(folder: Path, shown_as: str) -> str:
    """The page about the results in ``folder``, in Markdown; made from what lies there alone.

    Args:
        folder: Where :func:`collect` brought them.
        shown_as: What the page calls it.
    """
    folders = [folder / row.choice.folder_name(row.experiment) for row in ROWS]
    results = [result_in(each) if (each / PLAN).exists() else None for each in folders]
    told = {(result.name, note) for result in results if result for note in _notes(result)}
    times = Counter(note for _, note in sorted(told) if not note.startswith(OWN))
    parts = list(_head(folder, shown_as))
    for row, each, result in zip(ROWS, folders, results, strict=True):
        parts += _section(row, each, result, shared={note for note, n in times.items() if n > 1})
    shared = [note for note, n in times.items() if n > 1]
    parts += ["## How to read the tables", "\n".join(f"- {note}" for note in shared)] if shared else []
    return "\n\n".join([*parts, *_not_at_hand()]) + "\n"


def _notes(result: Result) -> tuple[str, ...]:
    """What stands below a table that has something in it."""
    return result.table.notes if any(row.finished for row in result.rows) else ()


def _head(folder: Path, shown_as: str) -> Iterator[str]:
    yield "# Results: the paper beside ours"
    yield (
        "Made by `python -m fpt_viz.experiments._shipped page` from the records in "
        f"`{shown_as}`, and by nothing else: every number below can be made again from them, and every record by the "
        "command above its table. All are at the scale `laptop`: MiniLM (BERT, 6 layers, hidden 384) where the paper "
        "has GPT-2 with 12 layers; digits and Fashion-MNIST where it has MNIST. Step caps stand below each table, "
        "and in `_settings.py`, `_groups.py` (XOR), `learning_rate.py` and `table_8.py` of `fpt_viz/experiments/`; "
        "that of XOR was lowered from 1,000 to 600, for its cost, after the first seed had run. What is not solved was "
        "not solved by then. Seeds that were left out for their cost stand in a table's last column. Paper: "
        "Lu et al. (2021) unless a key says otherwise; numbers that no source at hand gives are left out."
    )
    environments = sorted(folder.glob(f"{RUNS}/*/{ENVIRONMENT}"))
    if environments:
        here = store.read_json(environments[0])
        versions = ", ".join(f"{name} {here[name]}" for name in ("python", "torch", "transformers") if name in here)
        yield f"Run on {here['device']}, {here['threads']} thread a run, beside other programs: {versions}."


def _section(row: Shipped, folder: Path, result: Result | None, *, shared: Collection[str]) -> Iterator[str]:
    """One row of the page; ``shared`` notes stand once, at its end."""
    yield f"## {row.title}"
    yield f"```\n{row.command}\n```"
    if result is None:
        yield "**Not run**, and not measured."
        return
    shown = any(one.finished or one.broke for one in result.rows)
    yield _state(load_plan(folder), shown=shown)
    if not shown:
        yield from (note for note in result.table.notes if note.startswith(CAP))
    else:
        own = tuple(note for note in result.table.notes if note not in shared)
        yield replace(result.table, notes=own).to_markdown().rstrip()
        readings = list(_readings(result))
        if readings:
            yield "\n".join(f"- {line}" for line in readings)


def _state(plan: Plan, *, shown: bool) -> str:
    """How many of the runs there are, and what they took or what the others will take; ``shown``: in a table."""
    runs = {folder for entry in plan.entries for folder in entry.runs.values()}
    ended = [store.read_json(folder / RESULT) for folder in runs if (folder / RESULT).exists()]
    minutes = sum(float(result["seconds"]) for result in ended) / 60
    failed = sum((folder / FAILURE).exists() for folder in runs)
    told = f"{len(ended)} of {len(runs)} runs finished, in {minutes:.0f} minutes of one worker"
    told += f"; {failed} failed" if failed else ""
    left = plan.folder / FORECAST
    if not left.exists():
        return f"{told}."
    kinds = store.read_json(left)["kinds"]
    seconds = sum(kind["seconds"] or 0 for kind in kinds)
    cost = f"at most {seconds / 60:.0f} minutes of one worker, from steps measured beside other programs"
    cost += "".join(f"; {kind['told']}: not measured ({kind['error']})" for kind in kinds if kind["error"])
    if not ended and not failed:
        return f"**Not run** ({len(runs)} runs): {cost}."
    of_what = "The table is of what there is." if shown else "They do not fill a row of its table yet."
    return f"{told}. **The others are not run**: {cost}. {of_what}"


def _readings(result: Result) -> Iterator[str]:
    """Each difference beside the paper's: whether the signs agree, and whether seeds bear ours."""
    steps = registry.load("experiments", result.name).quantity == "steps"
    rows = {(row.cell.system, row.cell.task): row for row in result.rows}
    for row in result.rows:
        other = rows.get((row.cell.versus, row.cell.task)) if row.cell.versus else None
        if other is None or not row.finished or not other.finished:
            continue
        yield _reading(row, other, steps=steps)


def _reading(row: Row, other: Row, *, steps: bool) -> str:
    paper = _paper_difference(row, other, steps=steps)
    who = f"{row.cell.system} against {other.cell.system} on {row.cell.task}"
    if row.versus is None and not steps:
        ours = "no seed that both have run"
    elif row.versus is None:
        ours = "no ratio of medians: not both reached the goal in half of their runs"
    elif steps:
        ours = f"{row.versus:.2f} times the steps"
    else:
        ours = f"{100 * row.versus:+.1f} points"
    borne = row.p is not None and row.p < SIGNIFICANT
    bears = row.no_test or "too few seeds to test" if row.p is None else f"p = {row.p:.2g} after Holm's correction"
    if paper is None:
        return f"{who}: {ours} ({bears}); the paper reports no pair to compare."
    theirs = f"{paper:.2f} times" if steps else f"{paper:+.1f} points"
    if not borne:
        return f"{who}: {ours} ({bears}); the paper's {theirs} is neither confirmed nor refuted."
    if row.versus is None:
        slower = row.mean is None
        agrees = slower == (paper > 1)
    else:
        agrees = (row.versus > (1 if steps else 0)) == (paper > (1 if steps else 0))
        if paper == (1 if steps else 0):
            return f"{who}: {ours} ({bears}), where the paper sees none."
    return f"{who}: {ours} ({bears}); {'the same' if agrees else 'the opposite'} sign as the paper's {theirs}."


def _paper_difference(row: Row, other: Row, *, steps: bool) -> float | None:
    ours, theirs = row.published, other.published
    if ours is None or theirs is None:
        return None
    return ours.value / theirs.value if steps else 100 * (ours.value - theirs.value)


def _not_at_hand() -> Iterator[str]:
    yield "## Not run, and why"
    yield "\n".join(
        [
            "- The paper's own scale (`--scale paper`): GPT-2, BERT, T5, Longformer and ViT come from the Hub, which "
            "was not at hand, and so do MNIST, CIFAR-10 and remote homology; the cost of a run is what "
            "`fpt-viz reproduce NAME --scale paper --dry-run` measures where they are.",
            "- CIFAR-10 and larger: no GPU was at hand.",
            "- Tables 2, 7, 8, 10 to 14, 16 and 17, and both attention experiments, run at the laptop scale too "
            "(`fpt-viz reproduce NAME`; `--dry-run` says how long); they are not among the rows above.",
        ]
    )


def main(argv: list[str]) -> None:
    """``collect SOURCE TARGET [RUN ...]``, whose runs keep their weights, or ``page FOLDER FILE.md``."""
    match argv:
        case ["collect", source, target, *kept]:
            collect(Path(source), Path(target), keep_weights=kept)
        case ["page", folder, file]:
            store.write_bytes(Path(file), page(Path(folder), folder).encode())
        case _:
            raise ConfigError(f"wanted collect SOURCE TARGET [RUN ...] or page FOLDER FILE.md, got {' '.join(argv)}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Which runs an experiment needs, where each lies, and the file that says so.

Runs of all experiments lie together in ``OUT/runs``, each under its own id, so that a run that several tables need is
made once. An experiment's own folder, such as ``OUT/table_1-laptop``, holds the plan, and what is made from it: the
table and the figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
import hashlib
import json
from pathlib import Path
from typing import Any

from fpt_viz.config import RunConfig
from fpt_viz.engines._job import failure_in, saved_at
from fpt_viz.engines.base import Job, Measure
from fpt_viz.errors import ConfigError, FptVizError, RecordError, UnknownNameError
from fpt_viz.experiments._systems import BACKBONES, DEEP_LSTMS, LSTMS
from fpt_viz.experiments.base import SCALES, Cell, Experiment, Published, Scale
from fpt_viz.records import store
from fpt_viz.records.run import CONFIG, RESULT
from fpt_viz.run_folder import RunFolder

PLAN, RUNS = "plan.json", "runs"
KIND, SCHEMA = "experiment", 1
MOST_WEIGHT_BYTES = 64_000_000
"""Of a run, at its start and end together: frozen networks keep theirs, and the full transformer of the laptop, on
which table 7 measures what table 1 trained; larger networks that are trained in full do not."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of an experiment is run."""

    scale: Scale = "laptop"
    tasks: tuple[str, ...] = ()
    """Of its own, by name; none named is all of them."""
    n_seeds: int | None = None
    """Seeds 0 to ``n_seeds - 1`` in each cell; None leaves the experiment's own."""
    limit: int | None = None
    """Most gradient steps of a run; None leaves the scale's own."""
    backbone: str | None = None
    """In the place of the scale's own."""

    def folder_name(self, experiment: str) -> str:
        """The experiment's folder: what changes the runs, but for the number of seeds, stands in its name."""
        backbone = (self.backbone or "").replace(":", "-").replace("/", "-")
        limit = f"{self.limit}_steps" if self.limit else ""
        return "-".join(
            part for part in (Path(experiment).stem, self.scale, *sorted(self.tasks), backbone, limit) if part
        )


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A cell, and the folder of each seed's run."""

    cell: Cell
    runs: Mapping[int, Path]
    start: Path | None = None
    """The run that all of them start from."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An experiment's cells with their runs, in a folder."""

    experiment: str
    scale: Scale
    folder: Path
    entries: tuple[Entry, ...]
    before: tuple[Job, ...] = ()
    """Runs that others start from."""

    def jobs(self, *, retry: bool = False) -> Iterator[Job]:
        """The runs that are not finished, each once: the first seed of every cell, then the second, and so on.

        So a list that is cut off has compared all systems on fewer seeds.

        Args:
            retry: Whether those that diverged before are tried again; they would diverge again on the same machine.
        """
        seen = set()
        every = [(seed, entry, folder) for entry in self.entries for seed, folder in entry.runs.items()]
        for seed, entry, folder in sorted(every, key=lambda one: one[0]):
            assert entry.cell.config is not None  # it has runs
            job = Job(
                config=seeded(entry.cell.config, seed),
                folder=folder,
                measures=entry.cell.measures,
                most_weight_bytes=MOST_WEIGHT_BYTES,
            )
            if folder not in seen and not _is_done(job, retry=retry):
                seen.add(folder)
                yield job

    def jobs_before(self, *, retry: bool = False) -> Iterator[Job]:
        """Those of :attr:`before` that are not finished; ``retry`` as for :meth:`jobs`."""
        return (job for job in self.before if not _is_done(job, retry=retry))

    def n_runs(self) -> int:
        """Distinct runs, finished or not."""
        return len({folder for entry in self.entries for folder in entry.runs.values()})

    def save(self) -> None:
        """Write the plan, so that table and figure can be made again from the folder alone."""
        store.write_json(self.folder / PLAN, _as_data(self))


def plan_of(name: str, experiment: Experiment, choice: Choice, out: Path) -> Plan:
    """What ``choice`` asks of ``experiment``, with its runs in ``out``; runs that are there already are found.

    Raises:
        UnknownNameError: A task or scale that it does not have.
        ConfigError: It is about certain backbones, and another is asked for.
    """
    cells = _chosen(name, experiment, choice)
    there = runs_in(out / RUNS)

    def folder_of(config: RunConfig) -> Path:
        return there.get(key_of(config)) or out / RUNS / RunFolder(Path(), config).run_id

    before: dict[Path, Job] = {}
    entries = []
    for cell in cells:
        config, start = cell.config, None
        if config is not None and cell.starts_from is not None:
            start = folder_of(cell.starts_from)
            before[start] = Job(config=cell.starts_from, folder=start)
            backbone = replace(config.backbone, init=str(start))
            config = replace(config, backbone=backbone)
            cell = replace(cell, config=config)
        runs = {} if config is None else {seed: folder_of(seeded(config, seed)) for seed in cell.seeds}
        entries.append(Entry(cell=cell, runs=runs, start=start))
    folder = out / choice.folder_name(name)
    return Plan(
        experiment=name, scale=choice.scale, folder=folder, entries=tuple(entries), before=tuple(before.values())
    )


def load_plan(folder: Path) -> Plan:
    """The plan in an experiment's ``folder``.

    Raises:
        RecordError: There is none, it is not whole, or it is of a newer fpt_viz.
    """
    path = folder / PLAN
    data = store.unsealed(store.read_json(path), path)
    if data.get("kind") != KIND:
        raise RecordError(f"{path} is no plan of an experiment")
    if data.get("schema", 0) > SCHEMA:
        raise RecordError(f"{path} has schema {data['schema']}, newer than {SCHEMA}: use a newer fpt_viz")
    try:
        entries = tuple(_entry(entry, folder.parent / RUNS) for entry in data["entries"])
        return Plan(experiment=data["experiment"], scale=data["scale"], folder=folder, entries=entries)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(
            f"{path} is no whole plan of an experiment ({type(error).__name__}: {error}): fpt-viz reproduce makes it "
            "again"
        ) from error


def runs_in(pool: Path) -> dict[str, Path]:
    """The run folders in ``pool`` by :func:`key_of`; those whose config cannot be read are passed over.

    A config of an older fpt_viz has fewer options: those get their defaults, so the run is found all the same.
    """
    found: dict[str, Path] = {}
    for path in sorted(pool.glob(f"*/{CONFIG}")):
        try:
            found.setdefault(key_of(RunConfig.load(path)), path.parent)
        except FptVizError:
            continue  # half written, or of a newer fpt_viz: its own run would say so, and no other takes its place
    return found


def key_of(config: RunConfig) -> str:
    """A checksum of everything that decides a run, wherever the run lies that it starts from."""
    data = config.to_dict()
    data["backbone"]["init"] = Path(data["backbone"]["init"]).name
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def seeded(config: RunConfig, seed: int) -> RunConfig:
    """``config`` with another seed."""
    return replace(config, train=replace(config.train, seed=seed))


def _chosen(name: str, experiment: Experiment, choice: Choice) -> list[Cell]:
    if choice.scale not in SCALES:
        raise UnknownNameError("scale", choice.scale, SCALES)
    cells = list(experiment.cells(choice.scale))
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    for task in choice.tasks:
        if task not in tasks:
            raise UnknownNameError(f"task of {name} at scale {choice.scale}", task, tasks)
    if choice.tasks:
        cells = [cell for cell in cells if cell.task in choice.tasks]
    if choice.backbone is not None:
        cells = [_on(cell, name, experiment, choice) for cell in cells]
    return [_cut(cell, choice) for cell in cells]


def _on(cell: Cell, name: str, experiment: Experiment, choice: Choice) -> Cell:
    """``cell`` on another backbone, where it is on the scale's own."""
    from fpt_viz import registry
    from fpt_viz.backbones import preset_names

    assert choice.backbone is not None  # by the caller
    if experiment.own_backbones:
        raise ConfigError(f"{name} is about certain backbones, so {choice.backbone} cannot take their place")
    family = preset_names().get(choice.backbone.partition("@")[0]) or choice.backbone.partition(":")[0]
    if not getattr(registry.load("backbones", family), "has_attention", True):
        raise ConfigError(
            f"{name} is about transformers, and {choice.backbone} has no attention; table_1 and table_3 compare LSTMs"
        )
    if cell.config is None or cell.config.backbone.name in (LSTMS[choice.scale], DEEP_LSTMS[choice.scale]):
        return cell
    if cell.config.backbone.name != BACKBONES[choice.scale]:
        return cell
    moved = replace(cell.config, backbone=replace(cell.config.backbone, name=choice.backbone))
    start = cell.starts_from
    if start is not None:
        start = replace(start, backbone=replace(start.backbone, name=choice.backbone))
    return replace(cell, config=moved, starts_from=start)


def _cut(cell: Cell, choice: Choice) -> Cell:
    """``cell`` with the seeds and the steps that were asked for."""
    if cell.config is None:
        return cell
    config, start = (each and _limited(each, choice.limit) for each in (cell.config, cell.starts_from))
    seeds = cell.seeds if choice.n_seeds is None else tuple(range(choice.n_seeds))
    return replace(cell, config=config, starts_from=start, seeds=seeds)


def _limited(config: RunConfig, limit: int | None) -> RunConfig:
    if limit is None or limit >= config.train.n_steps:
        return config
    every = min(config.train.validate_every, limit)  # at least one check
    return replace(config, train=replace(config.train, n_steps=limit, validate_every=every))


def _is_done(job: Job, *, retry: bool) -> bool:
    """Whether nothing is left to do: the run and its measures are there, or it diverged and is left at that."""
    if (job.folder / RESULT).exists():
        return all(saved_at(job.folder, measure).exists() for measure in job.measures)
    failure = failure_in(job.folder)
    return failure is not None and failure["kind"] == "diverged" and not retry


def _as_data(plan: Plan) -> dict[str, Any]:
    entries = []
    for entry in plan.entries:
        cell = entry.cell
        entries.append(
            {
                "system": cell.system,
                "task": cell.task,
                "config": None if cell.config is None else cell.config.to_dict(),
                "published": None if cell.published is None else asdict(cell.published),
                "versus": cell.versus,
                "threshold": cell.threshold,
                "measures": [asdict(measure) for measure in cell.measures],
                "why_not": cell.why_not,
                "runs": {str(seed): folder.name for seed, folder in entry.runs.items()},
                "start": None if entry.start is None else entry.start.name,
            }
        )
    head = {"kind": KIND, "schema": SCHEMA, "experiment": plan.experiment, "scale": plan.scale}
    return store.sealed({**head, "entries": entries})


def _entry(data: Mapping[str, Any], pool: Path) -> Entry:
    runs = {int(seed): pool / name for seed, name in data["runs"].items()}
    cell = Cell(
        system=data["system"],
        task=data["task"],
        config=None if data["config"] is None else RunConfig.from_dict(data["config"]),
        seeds=tuple(runs),
        published=None if data["published"] is None else Published(**data["published"]),
        versus=data["versus"],
        threshold=data["threshold"],
        measures=tuple(Measure(**measure) for measure in data["measures"]),
        why_not=data["why_not"],
    )
    start = data.get("start")  # plans from before have none
    return Entry(cell=cell, runs=runs, start=None if start is None else pool / start)

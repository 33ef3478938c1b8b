"""What an experiment will take, from steps that are measured here and now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
import json
from pathlib import Path
from statistics import median
import tempfile
from time import perf_counter

from fpt_viz.config import RunConfig
from fpt_viz.engines._job import WEIGHTS, told
from fpt_viz.engines.base import Job
from fpt_viz.experiments._plan import MOST_WEIGHT_BYTES, Plan
from fpt_viz.records.run import CHECKPOINT, STEPS
from fpt_viz.train import run

N_MEASURED = 4
"""Gradient steps of a measured run: the first warms up, the last has a check."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Runs that cost the same a step."""

    told: str
    """Task, backbone, and what learns."""
    n_runs: int
    n_steps: int
    """Of all of them together, at most: a run that may stop when it has solved its task may take fewer."""
    step_seconds: float | None
    """Measured, without checks; None where it could not be."""
    seconds: float | None
    """Of all of them, one after the other, at most; with their checks, loading and saving."""
    n_bytes: int | None
    """On the disk, of all of them, at most."""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What is still to do."""

    n_runs: int
    n_finished: int
    kinds: tuple[Kind, ...]
    workers: int

    @property
    def seconds(self) -> float:
        """With all workers busy, at most; of what could be measured."""
        return sum(kind.seconds or 0.0 for kind in self.kinds) / self.workers

    @property
    def n_bytes(self) -> int:
        """On the disk, at most; of what could be measured."""
        return sum(kind.n_bytes or 0 for kind in self.kinds)


def forecast(plan: Plan, *, workers: int = 1, device: str | None = None, retry: bool = False) -> Forecast:
    """Measure a few steps of each kind of run that ``plan`` still needs; nothing of it is kept.

    Workers share the machine's memory, which one run alone does not feel: with several of them it takes longer.

    Args:
        plan: What will be run.
        workers: How many runs at a time.
        device: As in :func:`fpt_viz.train.run`.
        retry: As in :func:`fpt_viz.experiments._running.reproduce`.
    """
    jobs = [*plan.jobs_before(retry=retry), *plan.jobs(retry=retry)]
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(_kind(job.config), []).append(job)
    kinds = tuple(_measured(group, device) for group in groups.values())
    n_all = plan.n_runs() + len(plan.before)
    return Forecast(n_runs=len(jobs), n_finished=n_all - len(jobs), kinds=kinds, workers=max(1, workers))


def _kind(config: RunConfig) -> str:
    """What decides how long a step takes."""
    data = config.to_dict()
    train = {name: data["train"][name] for name in ("batch_size", "n_validation")}
    return json.dumps([data["task"], data["backbone"]["name"], data["backbone"].get("n_layers"), config.trained, train])


def _told(config: RunConfig) -> str:
    backbone = config.backbone
    layers = f", {backbone.n_layers} layers" if backbone.n_layers else ""
    options = ", ".join(f"{name}={value}" for name, value in config.task.options.items())
    task = f"{config.task.name}{f' ({options})' if options else ''}"
    return f"{task}, {backbone.name}{layers}, trains {' '.join(config.trained)}, batch {config.train.batch_size}"


def _measured(jobs: Sequence[Job], device: str | None) -> Kind:
    config = jobs[0].config
    n_steps = sum(job.config.train.n_steps for job in jobs)
    what = {"told": _told(config), "n_runs": len(jobs), "n_steps": n_steps}
    is_run = Counter(job.config.backbone.init in ("pretrained", "random", "statistics") for job in jobs)[False]
    backbone = replace(config.backbone, init="random") if is_run else config.backbone
    train = replace(
        config.train,
        n_steps=N_MEASURED,
        validate_every=N_MEASURED if config.train.validate_every else 0,
        checkpoint_every=N_MEASURED,
        stop_when_solved=False,
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            start = perf_counter()
            record = run(
                replace(config, backbone=backbone, train=train), Path(folder) / "run", device=device, progress=False
            )
            whole = perf_counter() - start
            sizes = {path.name: path.stat().st_size for path in record.path.iterdir() if path.name != CHECKPOINT}
    except Exception as error:  # what cannot be run is told, and the rest is measured
        return Kind(**what, step_seconds=None, seconds=None, n_bytes=None, error=told(error))  # type: ignore[arg-type]
    ends = [step.elapsed_seconds for step in record.steps]
    steps = [after - before for before, after in pairwise(ends[:-1])]
    step = median(steps)
    check = max(0.0, ends[-1] - ends[-2] - step)
    n_checks = sum(job.config.train.n_steps // job.config.train.validate_every for job in jobs if train.validate_every)
    around = max(0.0, whole - ends[-1])
    lines = sizes.pop(STEPS)
    weights = sum(sizes[name] for name in WEIGHTS)
    shed = weights if weights > MOST_WEIGHT_BYTES else 0
    return Kind(
        **what,  # type: ignore[arg-type]
        step_seconds=step,
        seconds=n_steps * step + n_checks * check + len(jobs) * around,
        n_bytes=len(jobs) * (sum(sizes.values()) - shed) + lines * n_steps // N_MEASURED,
    )

"""What a table needs of a run: a few numbers, so that a long list of runs is never in memory at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

from fpt_viz.engines._job import failure_in, saved_at
from fpt_viz.engines.base import Measure
from fpt_viz.errors import RecordError
from fpt_viz.experiments.base import Cell
from fpt_viz.export.provenance import of_run
from fpt_viz.records import Evaluation, RunRecord, Step, load_run, store
from fpt_viz.records.run import CHECKPOINT, CONFIG, RESULT, STEPS

EVALUATED_ON_TRAIN = "evaluate_train.json"
RULED_OUT = ("diverged", "failed")
"""What of a run speaks against the learning rate that it had."""


@dataclass(frozen=True, kw_only=True)
class Routing:
    """How much a run's heads attend to the tokens that a query needs."""

    top_head: tuple[int, int]
    """Layer and head with the highest score on validation."""
    score: float
    """Of that head, on test."""
    interval: tuple[float, float]
    """95 % bootstrap interval of ``score`` over examples."""
    uniform: float | None
    permuted: float | None
    """Of that head, on test; None where there is none."""
    first_layer: float
    """Mean over the heads of the first layer, on test."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One finished run."""

    seed: int
    test: Evaluation
    n_steps: int
    steps_to_solve: int | None
    checks: tuple[tuple[int, float], ...]
    """Steps taken and validation accuracy at each check."""
    step_seconds: float
    """Median of a gradient step, checks apart."""
    n_trained: int
    n_total: int
    on_train: float | None
    """Accuracy on training examples, in eval mode, where it was measured."""
    routing: Routing | None
    source: dict[str, Any] = field(repr=False)
    """What a figure keeps of the run."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One run that gave no result."""

    seed: int
    kind: str
    """``diverged``, ``failed``, ``damaged``, ``not measured``, ``not finished`` or ``not run``."""
    message: str
    n_steps: int = 0
    """Steps that are on the disk."""
    last_check: float | None = None
    """Validation accuracy at the last check before."""
    rate: str = ""
    """The learning rate that it had, where its row is of several."""

    @property
    def who(self) -> str:
        """Which run it was."""
        return f"seed {self.seed}{f' at rate {self.rate}' if self.rate else ''}"

    @property
    def told(self) -> str:
        """In a few words, for a table."""
        if self.kind != "diverged":
            return f"{self.who} {self.kind}"
        before = "" if self.last_check is None else f", {100 * self.last_check:.1f} % at its last check"
        return f"{self.who} diverged after {self.n_steps} steps{before}"


def told_together(failures: Sequence[Failure]) -> list[str]:
    """``failures`` in few words: what diverged one by one, of the rest those of one kind together."""
    told: dict[str, None] = {}
    places: dict[tuple[str, int], list[str]] = {}
    for failure in failures:
        if failure.kind == "diverged":
            told[failure.told] = None
        else:
            places.setdefault((failure.kind, failure.seed), []).append(failure.rate)
    seeds: dict[tuple[str, str], list[int]] = {}
    for (kind, seed), rates in places.items():
        at = ", ".join(dict.fromkeys(filter(None, rates)))
        seeds.setdefault((kind, at), []).append(seed)
    for (kind, at), own in seeds.items():
        who = f"seed{'s' if len(own) > 1 else ''} {', '.join(map(str, sorted(own)))}"
        told[f"{who} {kind}{f' at rate {at}' if at else ''}"] = None
    return list(told)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What there is of one cell."""

    cell: Cell
    finished: tuple[Facts, ...]
    failed: tuple[Failure, ...]


def facts_of(record: RunRecord) -> Facts:
    """The numbers of a finished run that tables show."""
    checks = tuple((step.index + 1, step.validation.accuracy) for step in record.steps if step.validation is not None)
    return Facts(
        seed=int(record.config["train"]["seed"]),
        test=record.evaluation,
        n_steps=len(record.steps),
        steps_to_solve=record.steps_to_solve,
        checks=checks,
        step_seconds=_step_seconds(record.steps),
        n_trained=record.ledger.n_trained,
        n_total=record.ledger.n_total,
        on_train=_on_train(record.path),
        routing=_routing(record),
        source=of_run(record),
    )


def look_at(folder: Path, seed: int, measures: Collection[Measure] = ()) -> Facts | Failure:
    """What there is of the run in ``folder``; a damaged one is a failure whose message names the file.

    Args:
        folder: The run's.
        seed: Of the run.
        measures: Without one of these a finished run is a failure too: the table would have an empty cell.
    """
    again = f"(or remove {folder}, and it is made again)"
    failure = failure_in(folder)
    if (folder / RESULT).exists():
        if any(not saved_at(folder, measure).exists() for measure in measures):
            message = f"{failure['message']} {again}" if failure else ""
            return Failure(seed=seed, kind="not measured", message=message)
        try:
            return facts_of(load_run(folder))
        except RecordError as error:
            return Failure(seed=seed, kind="damaged", message=f"{error} {again}")
    if failure is None:
        started = (folder / CONFIG).exists() or (folder / CHECKPOINT).exists()
        return Failure(seed=seed, kind="not finished" if started else "not run", message="")
    n_steps, last = _so_far(folder / STEPS)
    return Failure(
        seed=seed, kind=str(failure["kind"]), message=str(failure["message"]), n_steps=n_steps, last_check=last
    )


def steps_until(facts: Facts, threshold: float | None) -> int | None:
    """Steps taken at the first check at or above ``threshold``; None: at which it was solved. None if never."""
    if threshold is None:
        return facts.steps_to_solve
    return next((step for step, accuracy in facts.checks if accuracy >= threshold), None)


def common_seeds(group: Sequence[Found]) -> tuple[int, ...]:
    """The seeds that every cell of ``group`` has checks of, those apart in which a run diverged or failed."""
    there = [{facts.seed for facts in one.finished if facts.checks} for one in group if not is_out(one)]
    return tuple(sorted(set.intersection(*there))) if there else ()


def is_out(found: Found) -> bool:
    """Whether a run diverged or failed; one that is still to come says nothing."""
    return any(failure.kind in RULED_OUT for failure in found.failed)


def mean_check(found: Found, seeds: Collection[int]) -> float | None:
    """Validation accuracy after the last check, mean over ``seeds``; None where there is none, or one is out."""
    if is_out(found):
        return None
    last = [facts.checks[-1][1] for facts in found.finished if facts.seed in seeds]
    return fmean(last) if last else None


def _step_seconds(steps: tuple[Step, ...]) -> float:
    """The median time from one step to the next, leaving out those with a check, and the first, which warms up."""
    times = [
        after.elapsed_seconds - before.elapsed_seconds
        for before, after in pairwise(steps)
        if after.validation is None and before.index
    ]
    return median(times) if times else steps[-1].elapsed_seconds / len(steps)


def _on_train(folder: Path) -> float | None:
    path = folder / EVALUATED_ON_TRAIN
    if not path.exists():
        return None
    content = store.unsealed(store.read_json(path), path)
    try:
        return float(content["accuracy"])
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{path} is no whole evaluation ({type(error).__name__}: {error})") from error


def _routing(record: RunRecord) -> Routing | None:
    validation, test = record.statistics(), record.statistics("test")
    if validation is None or test is None or test.routing_score is None or test.routing_interval is None:
        return None
    layer, head = validation.ranking()[0]
    low, high = test.routing_interval[layer, head].tolist()
    return Routing(
        top_head=(layer, head),
        score=float(test.routing_score[layer, head]),
        interval=(low, high),
        uniform=test.uniform,
        permuted=None if test.permuted is None else float(test.permuted[layer, head]),
        first_layer=float(test.routing_score[0].mean()),
    )


def _so_far(path: Path) -> tuple[int, float | None]:
    """Whole steps in an unfinished ``steps.jsonl``, and the accuracy at its last check."""
    n_steps, last = 0, None
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            step = Step.from_json(line)
        except (ValueError, KeyError, TypeError):
            break  # cut off in the middle of a line
        n_steps = step.index + 1
        last = last if step.validation is None else step.validation.accuracy
    return n_steps, last

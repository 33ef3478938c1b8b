"""The rows of an experiment's table: means with intervals, tests, and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from fpt_viz.experiments._facts import (
    RULED_OUT,
    Facts,
    Failure,
    Found,
    common_seeds,
    is_out,
    mean_check,
    steps_until,
)
from fpt_viz.experiments.base import Cell, Published, Quantity
from fpt_viz.tables import LEAST_SEEDS, StepsTaken, has_spread, holm, over_seeds, paired_p

NO_SPREAD = "no spread over seeds: no test"
NOT_CHOSEN = "not chosen yet"
ALL_OUT = "a run diverged or failed at each rate"
"""Why a system has no best rate, and will have none."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system on one task, as its runs came out."""

    cell: Cell
    finished: tuple[Facts, ...]
    failed: tuple[Failure, ...]
    mean: float | None
    """Of the table's quantity, over the finished seeds; None where none finished, or for steps: the median."""
    interval: tuple[float | None, float | None]
    """95 %; None where it is open."""
    versus: float | None = None
    """The mean difference from the system that it is tested against, over common seeds; for steps the ratio of
    medians."""
    p: float | None = None
    """Of that test, after Holm's correction for all tests in the table."""
    no_test: str = ""
    """Why there is no test of a difference over enough seeds; empty where there is one, or too few seeds."""
    beside: tuple[tuple[str, str], ...] = ()
    """Further cells: column and text."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the finished runs."""
        return tuple(facts.seed for facts in self.finished)

    @property
    def broke(self) -> bool:
        """Whether a run diverged or failed."""
        return any(failure.kind in RULED_OUT for failure in self.failed)

    @property
    def published(self) -> Published | None:
        """What others report."""
        return self.cell.published

    @property
    def chance(self) -> float | None:
        """Accuracy of guessing."""
        return self.finished[0].test.chance if self.finished else None

    @property
    def trivial(self) -> Mapping[str, float]:
        """Accuracy of each solver that needs no routing."""
        return self.finished[0].test.trivial if self.finished else {}


def rows_of(found: Sequence[Found], quantity: Quantity) -> list[Row]:
    """A row for each of ``found``; for rates one for each system and task, at its best rate."""
    if quantity == "steps":
        return _corrected(*_steps(found))
    chosen = _best_rates(found) if quantity == "rates" else [(one, ()) for one in found]
    value = _routing_score if quantity == "routing" else _accuracy
    rows = [replace(_mean_row(one, value), beside=(*beside, *_beside(one, quantity))) for one, beside in chosen]
    return _corrected(*_tested(rows, value))


def _accuracy(facts: Facts) -> float | None:
    return facts.test.accuracy


def _routing_score(facts: Facts) -> float | None:
    return None if facts.routing is None else facts.routing.score


Value = Callable[[Facts], float | None]


def _mean_row(found: Found, value: Value) -> Row:
    values = [number for facts in found.finished if (number := value(facts)) is not None]
    interval: tuple[float | None, float | None] = (None, None)
    if has_spread(values):
        interval = over_seeds(values)
    elif values:
        one = next(facts for facts in found.finished if value(facts) is not None)
        interval = one.test.interval if value is _accuracy or one.routing is None else one.routing.interval
    mean = fmean(values) if values else None
    return Row(cell=found.cell, finished=found.finished, failed=found.failed, mean=mean, interval=interval)


def _tested(rows: Sequence[Row], value: Value) -> tuple[list[Row], list[float | None]]:
    """``rows`` with their differences, and the uncorrected p-value of each."""
    by_seed = [{facts.seed: number for facts in row.finished if (number := value(facts)) is not None} for row in rows]
    places = {(row.cell.system, row.cell.task): i for i, row in enumerate(rows)}
    told: list[Row] = []
    p_values: list[float | None] = []
    for row, ours in zip(rows, by_seed, strict=True):
        other = places.get((row.cell.versus, row.cell.task)) if row.cell.versus else None
        common = [] if other is None else [seed for seed in ours if seed in by_seed[other]]
        if other is None or not common:
            told.append(row)
            p_values.append(None)
            continue
        theirs = by_seed[other]
        p_values.append(paired_p(ours, theirs))
        why = NO_SPREAD if p_values[-1] is None and len(common) >= LEAST_SEEDS else ""
        told.append(replace(row, versus=fmean(ours[seed] - theirs[seed] for seed in common), no_test=why))
    return told, p_values


def _steps(found: Sequence[Found]) -> tuple[list[Row], list[float | None]]:
    """Rows of Kaplan-Meier medians; a run that never got there, or diverged, is censored at the steps that it took."""
    taken = {}
    rows = []
    for one in found:
        ends = [(steps_until(facts, one.cell.threshold), facts.n_steps) for facts in one.finished]
        ends += [(None, failure.n_steps) for failure in one.failed if failure.kind == "diverged"]
        reached = tuple(step for step, _ in ends if step is not None)
        steps = StepsTaken(reached, tuple(n_steps for step, n_steps in ends if step is None))
        taken[one.cell.system, one.cell.task] = steps
        median, interval = steps.median()
        row = Row(cell=one.cell, finished=one.finished, failed=one.failed, mean=median, interval=interval)
        most = max((n_steps for _, n_steps in ends), default=0)
        goal = "solved" if one.cell.threshold is None else f"{100 * one.cell.threshold:g} %"
        accuracy = f"{100 * fmean(map(_sure, one.finished)):.1f}" if one.finished else ""
        beside = (("Goal", goal), ("Reached", f"{len(reached)} of {len(ends)}"), ("Most steps taken", str(most)))
        rows.append(replace(row, beside=(*beside, ("Test accuracy (%)", accuracy))))
    medians = {(row.cell.system, row.cell.task): row.mean for row in rows}
    told, p_values = [], []
    for row in rows:
        own, other = (row.cell.system, row.cell.task), (row.cell.versus, row.cell.task)
        ours, theirs = medians[own], medians.get(other)
        told.append(replace(row, versus=ours / theirs) if ours and theirs and row.cell.versus else row)
        p_values.append(taken[own].log_rank_p(taken[other]) if other in taken else None)
    return told, p_values


def _sure(facts: Facts) -> float:
    return facts.test.accuracy


def _corrected(rows: Sequence[Row], p_values: Sequence[float | None]) -> list[Row]:
    there = [i for i, p in enumerate(p_values) if p is not None]
    corrected = dict(zip(there, holm([p for p in p_values if p is not None]), strict=True))
    return [replace(row, p=corrected.get(i)) for i, row in enumerate(rows)]


def _best_rates(found: Sequence[Found]) -> list[tuple[Found, tuple[tuple[str, str], ...]]]:
    """Of each system on each task the rate with the best mean on validation; the lowest of several that are alike.

    A rate is ruled out by a run that diverged or failed. The others are compared on the seeds that all of them have;
    while there is none, no rate is chosen, and no test accuracy is read.
    """
    groups: dict[tuple[str, str], list[Found]] = {}
    for one in found:
        groups.setdefault((one.cell.system, one.cell.task), []).append(one)
    chosen: list[tuple[Found, tuple[tuple[str, str], ...]]] = []
    for group in groups.values():
        ordered = sorted(group, key=lambda one: rate_of(one.cell))
        seeds = common_seeds(ordered)
        scores = [mean_check(one, seeds) for one in ordered]
        best = max(range(len(ordered)), key=lambda i: (-1.0 if scores[i] is None else scores[i], -i))
        every = _failed_at(ordered)
        at_edge = best in (0, len(ordered) - 1)
        sweep = ", ".join(
            f"{rate_of(one.cell):g}: {'-' if score is None else f'{100 * score:.1f}'}"
            for one, score in zip(ordered, scores, strict=True)
        )
        rate = f"{rate_of(ordered[best].cell):g}{' (end of the grid)' if at_edge else ''}"
        if not seeds:
            rate = f"none: {ALL_OUT}" if all(map(is_out, group)) else NOT_CHOSEN
        read = tuple(facts for facts in ordered[best].finished if facts.seed in seeds)
        beside = (("Best rate", rate), ("Validation (%) by rate", sweep))
        chosen.append((replace(ordered[best], finished=read, failed=every), beside))
    return chosen


def _failed_at(group: Sequence[Found]) -> tuple[Failure, ...]:
    """What failed at any rate of ``group``, with its rate, unless the same holds of that seed at all of them."""
    n_rates = Counter((failure.seed, failure.kind) for one in group for failure in one.failed if not failure.message)
    return tuple(
        failure
        if n_rates[failure.seed, failure.kind] == len(group)
        else replace(failure, rate=f"{rate_of(one.cell):g}")
        for one in group
        for failure in one.failed
    )


def rate_of(cell: Cell) -> float:
    """The learning rate of a cell that is run."""
    assert cell.config is not None  # a sweep has no rows that are not run
    return cell.config.train.learning_rate


def _beside(found: Found, quantity: Quantity) -> tuple[tuple[str, str], ...]:
    """The further cells that belong to ``quantity``."""
    if quantity == "gap":
        return _gap(found)
    return _attention(found) if quantity == "routing" else ()


def _gap(found: Found) -> tuple[tuple[str, str], ...]:
    pairs = [(facts.on_train, facts.test.accuracy) for facts in found.finished if facts.on_train is not None]
    published = found.cell.published
    paper = "" if published is None or published.on_train is None else f"{100 * published.on_train:.1f}"
    train = f"{100 * fmean(train for train, _ in pairs):.1f}" if pairs else ""
    gap = f"{100 * fmean(train - test for train, test in pairs):+.1f}" if pairs else ""
    return (("Train (%)", train), ("Train - test", gap), ("Paper, train (%)", paper))


def _attention(found: Found) -> tuple[tuple[str, str], ...]:
    there = [(facts, facts.routing) for facts in found.finished if facts.routing is not None]
    if not there:
        return tuple((name, "") for name in ("Top heads", "Uniform", "Permuted", "First layer", "Test accuracy (%)"))
    routings = [routing for _, routing in there]
    permuted = [routing.permuted for routing in routings if routing.permuted is not None]
    uniform = routings[0].uniform
    return (
        ("Top heads", " ".join(f"L{layer}H{head}" for layer, head in (routing.top_head for routing in routings))),
        ("Uniform", "" if uniform is None else f"{uniform:.3f}"),
        ("Permuted", f"{fmean(permuted):.3f}" if permuted else ""),
        ("First layer", f"{fmean(routing.first_layer for routing in routings):.3f}"),
        ("Test accuracy (%)", f"{100 * fmean(facts.test.accuracy for facts, _ in there):.1f}"),
    )

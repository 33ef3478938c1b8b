"""Runs compared, as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
import json
import math
from statistics import fmean, stdev
from typing import Any
import warnings

import numpy as np
import numpy.typing as npt
from scipy.stats import CensoredData, ecdf, t as student_t

from fpt_viz.errors import ConfigError
from fpt_viz.export import PaperTable
from fpt_viz.figures.base import flat_config, system_names
from fpt_viz.freeze import PAPER_GROUPS
from fpt_viz.records import RunRecord

CONFIDENCE = 0.95
LEAST_SEEDS = 3
"""Common to two systems, for one to be called better."""
TEST = "a paired t-test over common seeds (two-sided, 5 %, Holm-corrected, at least three seeds)"
DIGITS, LEAST_SPREAD = 9, 1e-9
"""Accuracies are shares of a few thousand examples at most: what differs by less is rounding."""
MOST_SPLITS = 20_000
"""Of an exact permutation test; with more of them so many are drawn."""
PAPER = "Lu et al., 2021 (v2), table 2, by a third-party reading note (S1)"
PAPER_ACCURACY = {
    ("bit_xor", "pretrained"): 1.0,
    ("bit_xor", "random"): 1.0,
    ("bit_memory", "pretrained"): 1.0,
    ("bit_memory", "random"): 0.758,
}
"""Of the paper's own system: GPT-2 with 12 layers, at the paper's settings of the task."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system on one task: runs that differ in nothing but the seed."""

    system: str
    task: str
    seeds: tuple[int, ...]
    mean: float
    """Test accuracy, 0 to 1, mean over the seeds."""
    interval: tuple[float, float]
    """95 %: over seeds (Student's t, within 0 to 1) where several differ, else the first run's own over examples."""
    paper: float | None
    """What the paper reports of this very system; None where it reports nothing of it."""
    source: str | None
    """Where the paper reports it."""
    note: str
    """What a reader must know of the task, such as that its input is cut; empty for most."""
    chance: float = math.nan
    """Accuracy of guessing."""
    trivial: dict[str, float] = field(default_factory=dict)
    """Accuracy of each solver that needs no routing, by name."""
    steps_to_solve: tuple[int | None, ...] = ()
    """Of each seed; None where it was not solved in the steps taken."""
    best: bool = False
    """Whether it is better than every other system on the task by a margin that seeds alone do not explain."""


def compared(records: Sequence[RunRecord]) -> list[Row]:
    """One row for each system and task in ``records``, in the order in which they are first met.

    Raises:
        ConfigError: A seed of a system is given twice; counted twice it would look like evidence.
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        group = groups.setdefault(json.dumps(flat_config(record.config), sort_keys=True, default=str), [])
        if any(_seed(other) == _seed(record) and other.config != record.config for other in group):
            # The same groups in another order, and the same seed: two runs, each of which may be shown.
            group = groups.setdefault(json.dumps(_without_seed(record.config), sort_keys=True), [])
        group.append(record)
    for group in groups.values():
        _check_seeds(group)
    systems = system_names([group[0] for group in groups.values()], leave_out=("task",))
    rows = [_row(system, group) for system, group in zip(systems, groups.values(), strict=True)]
    best = _best(rows, list(groups.values()))
    return [replace(row, best=i in best) for i, row in enumerate(rows)]


def comparison_table(records: Sequence[RunRecord], *, label: str = "tab:comparison") -> PaperTable:
    """The runs compared, for a paper: mean and interval, the best in bold where seeds bear it, the paper's value.

    Args:
        records: Finished runs; those that differ in nothing but the seed are one row.
        label: What LaTeX refers to the table by.

    Raises:
        ConfigError: No run, or a seed of a system given twice.
    """
    rows = compared(records)
    if not rows:
        raise ConfigError("no run was given: a table compares finished runs")
    cells = tuple(
        (
            row.system,
            row.task,
            str(len(row.seeds)),
            f"{100 * row.mean:.1f}",
            f"{100 * row.interval[0]:.1f} to {100 * row.interval[1]:.1f}",
            "" if row.paper is None else f"{100 * row.paper:.1f} [S1]",
        )
        for row in rows
    )
    exact = tuple(
        (row.system, row.task, " ".join(map(str, row.seeds)), row.mean, *row.interval, row.best, row.paper, row.source)
        for row in rows
    )
    notes = [
        "Test accuracy with its 95 % interval: over seeds (Student's t), or over the first seed's examples where "
        "there is one seed, or all are alike."
    ]
    notes += [f"Bold: {TEST}."] if any(row.best for row in rows) else [f"Nothing is bold: no system is best by {TEST}."]
    notes += [f"[S1] {PAPER}; of the paper's own system."] if any(row.source for row in rows) else []
    notes += list(dict.fromkeys(f"{row.task}: {row.note}." for row in rows if row.note))
    return PaperTable(
        columns=("System", "Task", "Seeds", "Accuracy (%)", "95 % interval", "Paper (%)"),
        rows=cells,
        numbers=exact,
        number_columns=("system", "task", "seeds", "mean", "low", "high", "best", "paper", "source"),
        bold=frozenset((i, 3) for i, row in enumerate(rows) if row.best),
        caption=f"Test accuracy of {len(rows)} system{'s' if len(rows) > 1 else ''}.",
        notes=tuple(notes),
        label=label,
    )


def _best(rows: Sequence[Row], groups: Sequence[Sequence[RunRecord]]) -> set[int]:
    """The rows whose system beats every other on its task, by a paired t-test over the seeds that both were run with.

    Two-sided, at 5 % after Holm's correction for the number of others; with fewer than three common seeds nothing is
    best.
    """
    best = set()
    for task in dict.fromkeys(row.task for row in rows):
        those = [i for i, row in enumerate(rows) if row.task == task]
        first = max(those, key=lambda i: rows[i].mean)
        others = sorted(_p_value(groups[first], groups[i]) for i in those if i != first)
        if others and all(p * (len(others) - k) < 1 - CONFIDENCE for k, p in enumerate(others)):
            best.add(first)
    return best


def _p_value(first: Sequence[RunRecord], other: Sequence[RunRecord]) -> float:
    """Of the difference over common seeds; 1 where there is no test, or ``first`` is not above ``other`` there."""
    ours = {_seed(record): record.evaluation.accuracy for record in first}
    theirs = {_seed(record): record.evaluation.accuracy for record in other}
    p = paired_p(ours, theirs)
    above = sum(ours[seed] - theirs[seed] for seed in ours if seed in theirs) > 0
    return p if p is not None and above else 1.0


def paired_p(ours: Mapping[int, float], theirs: Mapping[int, float]) -> float | None:
    """Of a paired t-test, two-sided, over the seeds that both have; None where there is no test.

    That takes three common seeds, and differences that are not all alike: those bear no error of their mean, however
    small or large they are. Where they are all 0, it is 1.

    Args:
        ours: Value by seed.
        theirs: Likewise.
    """
    differences = [round(ours[seed] - theirs[seed], DIGITS) for seed in sorted(ours) if seed in theirs]
    if len(differences) < LEAST_SEEDS:
        return None
    if not has_spread(differences):
        return 1.0 if differences[0] == 0 else None
    at = fmean(differences) * math.sqrt(len(differences)) / stdev(differences)
    return float(2 * student_t.sf(abs(at), len(differences) - 1))


def has_spread(values: Sequence[float]) -> bool:
    """Whether ``values`` differ by more than rounding."""
    return len(values) > 1 and stdev(values) >= LEAST_SPREAD


def holm(p_values: Sequence[float]) -> list[float]:
    """``p_values`` corrected for their number by Holm's method (1979), in the order given; each at most 1."""
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = corrected[i] = max(least, min(1.0, (len(p_values) - rank) * p_values[i]))
    return corrected


@dataclass(frozen=True)
class StepsTaken:
    """Gradient steps until something was reached, over several runs of which some may never have reached it."""

    reached: tuple[int, ...]
    """Steps of the runs that did."""
    censored: tuple[int, ...] = ()
    """Steps taken by the runs that did not: they would have needed more."""

    def _times(self) -> CensoredData:
        return CensoredData(uncensored=list(self.reached), right=list(self.censored))

    def median(self) -> tuple[float | None, tuple[float | None, float | None]]:
        """The Kaplan-Meier median with its 95 % interval (log-log); None where it lies beyond the steps taken."""
        if not self.reached:
            return None, (None, None)
        survival = ecdf(self._times()).sf
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bounds where nobody or everybody has reached it yet are not defined
            bounds = survival.confidence_interval(CONFIDENCE, method="log-log")
        low, middle, high = (_first_below_half(curve) for curve in (bounds.low, survival, bounds.high))
        return middle, (low, high)

    def log_rank_p(self, other: StepsTaken) -> float | None:
        """Of a permutation log-rank test against ``other``, two-sided; None with fewer than three runs in either.

        Exact over all splits of the pooled runs: with a few runs the usual normal approximation is far too sure. Of
        more than :data:`MOST_SPLITS` splits so many are drawn, the same ones each time. None also where no run
        reached it.
        """
        both = (self, other)
        if any(len(one.reached) + len(one.censored) < LEAST_SEEDS for one in both):
            return None
        if not self.reached and not other.reached:
            return None
        n_ours, scores = len(self.reached) + len(self.censored), _log_rank_scores(self, other)
        seen = abs(float(scores[:n_ours].sum())) - LEAST_SPREAD
        if math.comb(len(scores), n_ours) <= MOST_SPLITS:
            splits = np.array(list(combinations(range(len(scores)), n_ours)))
            return float(np.mean(np.abs(scores[splits].sum(axis=1)) >= seen))
        drawn = np.random.default_rng(0).permuted(np.tile(scores, (MOST_SPLITS, 1)), axis=1)[:, :n_ours]
        return float((1 + np.sum(np.abs(drawn.sum(axis=1)) >= seen)) / (1 + MOST_SPLITS))


def _log_rank_scores(ours: StepsTaken, theirs: StepsTaken) -> npt.NDArray[np.float64]:
    """What each run, ours first, adds to observed less expected events: its event less its cumulative hazard."""
    times = np.array([*ours.reached, *ours.censored, *theirs.reached, *theirs.censored], dtype=float)
    events = np.repeat([1.0, 0.0] * 2, [len(part) for one in (ours, theirs) for part in (one.reached, one.censored)])
    rates = {at: events[times == at].sum() / (times >= at).sum() for at in np.unique(times[events == 1])}
    hazards = [sum(float(rate) for at, rate in rates.items() if at <= time) for time in times]
    return np.asarray(events - np.array(hazards), dtype=np.float64)


def _first_below_half(curve: Any) -> float | None:
    """The first time at which ``curve`` is at a half or below; None if it never is."""
    below = [float(at) for at, share in zip(curve.quantiles, curve.probabilities, strict=True) if share <= 0.5]
    return min(below) if below else None


def _row(system: str, group: Sequence[RunRecord]) -> Row:
    config = group[0].config
    accuracies = [record.evaluation.accuracy for record in group]
    paper = PAPER_ACCURACY.get((config["task"]["name"], config["backbone"]["init"])) if _is_papers(config) else None
    return Row(
        system=system,
        task=config["task"]["name"] + _options(config["task"].get("options", {})),
        seeds=tuple(_seed(record) for record in group),
        mean=fmean(accuracies),
        interval=over_seeds(accuracies) if has_spread(accuracies) else group[0].evaluation.interval,
        paper=paper,
        source=None if paper is None else PAPER,
        note=group[0].note,
        chance=group[0].evaluation.chance,
        trivial=dict(group[0].evaluation.trivial),
        steps_to_solve=tuple(record.steps_to_solve for record in group),
    )


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of two or more accuracies, by Student's t, within 0 to 1."""
    half = float(student_t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return max(0.0, fmean(values) - half), min(1.0, fmean(values) + half)


def _is_papers(config: Mapping[str, Any]) -> bool:
    backbone = config["backbone"]
    is_backbone = backbone["name"] == "gpt2" and not backbone.get("n_layers")
    return is_backbone and not config["task"].get("options") and set(config["trained"]) == set(PAPER_GROUPS)


def _options(options: Mapping[str, Any]) -> str:
    said = [f"{name}={value}" for name, value in options.items()]
    return f" ({', '.join(said)})" if said else ""


def _check_seeds(group: Sequence[RunRecord]) -> None:
    seen: dict[int, RunRecord] = {}
    for record in group:
        other = seen.setdefault(_seed(record), record)
        if other is not record:
            raise ConfigError(
                f"{other.path} and {record.path} are the same run: {record.name} on {record.config['task']['name']}; "
                "give it once"
            )


def _seed(record: RunRecord) -> int:
    return int(record.config["train"]["seed"])


def _without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, "train": {name: value for name, value in config["train"].items() if name != "seed"}}

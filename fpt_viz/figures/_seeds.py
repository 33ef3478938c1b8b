"""Runs that differ in nothing but the seed, taken together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
import json
import math
from statistics import fmean, stdev
from typing import Any

from fpt_viz.errors import ConfigError
from fpt_viz.records import RunRecord

CONFIDENCE = 0.95


@dataclass(frozen=True)
class System:
    """What was trained, once for each seed."""

    name: str
    records: tuple[RunRecord, ...]

    @property
    def accuracies(self) -> list[float]:
        """Test accuracy of each seed."""
        return [record.evaluation.accuracy for record in self.records]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(self.accuracies)

    @property
    def interval(self) -> tuple[float, float]:
        """95 %: over seeds (Student's t, within 0 to 1) where there are several, else over the one run's examples."""
        if len(self.records) == 1:
            return self.records[0].evaluation.interval
        low, high = t_interval(self.accuracies)
        return max(0.0, low), min(1.0, high)

    @property
    def seeds(self) -> str:
        """``"3 seeds"``, or ``"seed 0"``."""
        if len(self.records) > 1:
            return f"{len(self.records)} seeds"
        return f"seed {self.records[0].config['train']['seed']}"


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of two or more ``values``, by Student's t."""
    from scipy.stats import t as student_t

    half = float(student_t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def systems(records: Sequence[RunRecord], apart: Sequence[str] = ()) -> list[System]:
    """``records`` grouped by all of their options but the seed, in the order in which they are first met.

    Args:
        records: Of one task.
        apart: Options, as dotted names, that are left out of the names as well.

    Raises:
        ConfigError: A seed of a system is given twice; counted twice it would look like evidence.
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        key = json.dumps(without(record.config, ("train.seed",)), sort_keys=True, default=str)
        groups.setdefault(key, []).append(record)
    for group in groups.values():
        seeds = [record.config["train"]["seed"] for record in group]
        twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        if twice:
            raise ConfigError(f"{group[0].name} with seed {twice[0]} was given more than once; give each run once")
    names = _names([group[0] for group in groups.values()], apart)
    return [System(name, tuple(group)) for name, group in zip(names, groups.values(), strict=True)]


def without(config: Mapping[str, Any], options: Sequence[str]) -> dict[str, Any]:
    """``config`` flat, by dotted name, less ``options``."""
    return {name: value for name, value in _flat(config) if name not in options}


def _names(records: Sequence[RunRecord], apart: Sequence[str]) -> list[str]:
    """Backbone and initialisation; those alike in both also get what sets them apart."""
    names = [record.name.rpartition(" seed ")[0] for record in records]
    flats = [without(record.config, ("train.seed", *apart)) for record in records]
    told = []
    for i, name in enumerate(names):
        alike = [flats[j] for j in range(len(names)) if names[j] == name]
        own = [
            f"{key.rpartition('.')[2]}={value}"
            for key, value in flats[i].items()
            if any(other.get(key) != value for other in alike)
        ]
        told.append(f"{name} ({', '.join(own)})" if own else name)
    return told


def _flat(data: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", ", ".join(map(str, value)) if isinstance(value, list) else value

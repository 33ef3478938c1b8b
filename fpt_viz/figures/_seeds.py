"""Runs that differ in nothing but the seed, taken together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import json
import math
from statistics import fmean, stdev
from typing import Any

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Points
from fpt_viz.figures.base import Array, flat_config, system_names
from fpt_viz.records import RunRecord

CONFIDENCE = 0.95
LEAST_SPREAD = 1e-9
"""Of accuracies over seeds; what differs by less is rounding, and bears no error of the mean."""
HOW = (
    "Mean over seeds; bars: 95 % intervals over seeds (Student's t), or over the first seed's examples where there is "
    "one seed or all are alike"
)
NO_WIDTH = "no interval: all examples alike"
"""Where even that finds no spread, as when every answer is right; a bar of no width would look like certainty."""


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
        """95 %: over seeds (Student's t, within 0 to 1), or over the first run's examples where seeds do not differ."""
        if len(self.records) == 1 or stdev(self.accuracies) < LEAST_SPREAD:
            return self.records[0].evaluation.interval
        low, high = t_interval(self.accuracies)
        return max(0.0, low), min(1.0, high)

    @property
    def seeds(self) -> str:
        """``"3 seeds"``, or ``"seed 0"``."""
        if len(self.records) > 1:
            return f"{len(self.records)} seeds"
        return f"seed {self.records[0].config['train']['seed']}"


def points(
    found: Sequence[System], x: Array, y: Array, *, across: bool = False, series: int = 0, **look: Any
) -> tuple[Points | None, Points | None]:
    """The means of ``found`` with their intervals, and hollow those whose interval has no width; None for no such.

    Args:
        found: One a point.
        x: Places; the means themselves where ``across``.
        y: Likewise.
        across: Whether the intervals are of x.
        series: Colour and marker.
        look: Further fields of the points; ``text`` is one a point.
    """
    low, high = np.array([system.interval for system in found]).T
    wide = high - low > LEAST_SPREAD
    text = look.pop("text", ())
    drawn = []
    for these, own in (
        (wide, {"low": low[wide], "high": high[wide], **look}),
        (~wide, {"hollow": True, "label": NO_WIDTH}),
    ):
        words = tuple(word for word, there in zip(text, these, strict=True) if there) if text else ()
        mark = Points(x=x[these], y=y[these], across=across, series=series, text=words, **own)
        drawn.append(mark if these.any() else None)
    return drawn[0], drawn[1]


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
        key = json.dumps(flat_config(record.config), sort_keys=True, default=str)
        groups.setdefault(key, []).append(record)
    for group in groups.values():
        seeds = [record.config["train"]["seed"] for record in group]
        twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        if twice:
            raise ConfigError(f"{group[0].name} with seed {twice[0]} was given more than once; give each run once")
    names = system_names([group[0] for group in groups.values()], leave_out=apart)
    return [System(name, tuple(group)) for name, group in zip(names, groups.values(), strict=True)]

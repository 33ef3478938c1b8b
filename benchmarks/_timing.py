"""Medians of several calls, taken in turn so that a machine that slows down slows all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter, process_time

from benchmarks._machine import clock_name


def medians(calls: Mapping[str, Callable[[], object]], *, n_rounds: int = 7) -> dict[str, float]:
    """Median seconds of each call; one round is not counted. The clock is :class:`benchmarks._machine.Clock`'s."""
    now = process_time if clock_name() == "processor" else perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(n_rounds + 1):
        for name, call in calls.items():
            start = now()
            call()
            if index:
                seconds[name].append(now() - start)
    return {name: median(values) for name, values in seconds.items()}

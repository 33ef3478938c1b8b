"""Medians of several calls, taken in turn so that a machine that slows down slows all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter


def medians(calls: Mapping[str, Callable[[], object]], *, n_rounds: int = 7) -> dict[str, float]:
    """Median seconds of each call; one round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(n_rounds + 1):
        for name, call in calls.items():
            start = perf_counter()
            call()
            if index:
                seconds[name].append(perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}

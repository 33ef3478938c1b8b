"""Numbers of the paper's tables that several experiments show, in per cent; all by the third-party note S1."""

from __future__ import annotations

from fpt_viz.experiments._settings import TASKS


def by_task(*values: float | int) -> dict[str, float | int]:
    """``values`` in the order of the paper's columns, by task."""
    return dict(zip(TASKS, values, strict=True))


PRETRAINED = by_task(100, 100, 38.4, 98.0, 68.2, 38.6, 12.7)
RANDOM = by_task(75.8, 100, 34.3, 91.7, 61.7, 36.1, 9.3)

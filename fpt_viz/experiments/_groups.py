"""Parameter groups trained one more at a time, as tables 15 and 21 do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fpt_viz.experiments._settings import FEW_TASKS, tasks_at
from fpt_viz.experiments._systems import row
from fpt_viz.experiments.base import Cell, Scale

IN_TURN = ("output", "layer_norm", "input", "position")
NAMES = ("output", "+ layer norm", "+ input", "+ positions")
LAPTOP_STEPS = 400
"""On XOR: a network that learns it does so sooner, and one that does not would take the whole of its cap."""


def in_turn(scale: Scale, *, init: str, published: Mapping[str, Sequence[float | int]]) -> list[Cell]:
    """A row for each further group, on every task; ``published`` has a value a row, in per cent, by task."""
    settings = tasks_at(scale, on_laptop=FEW_TASKS)
    if scale == "laptop":
        settings["bit_xor"] = settings["bit_xor"].capped(LAPTOP_STEPS)
    found = []
    for i, name in enumerate(NAMES):
        reported = {task: values[i] for task, values in published.items()}
        trained = IN_TURN[: i + 1]
        found += row(name, scale, settings, published=reported, versus=NAMES[-1], init=init, trained=trained)
    return found

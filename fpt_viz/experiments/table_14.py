"""Table 14: unfreezing step by step on CIFAR-10."""

from __future__ import annotations

from fpt_viz.experiments._settings import tasks_at
from fpt_viz.experiments._systems import FPT, NOTED, row
from fpt_viz.experiments.base import Cell, Experiment, Scale
from fpt_viz.freeze import PAPER_GROUPS

__all__ = ["table_14"]

ROWS = (
    (FPT, (), 68.2),
    (f"{FPT} + feed-forward", ("feed_forward",), 76.6),
    (f"{FPT} + feed-forward and last attention", ("feed_forward", "attention:last"), 80.0),
)


def _cells(scale: Scale) -> list[Cell]:
    settings = tasks_at(scale, of=("cifar10",))
    return [
        cell
        for name, more, value in ROWS
        for cell in row(name, scale, settings, published={"cifar10": value}, trained=(*PAPER_GROUPS, *more))
    ]


table_14 = Experiment(
    title="Unfreezing step by step (table 14)",
    claim="Feed-forward layers, then the last attention layer: each unfrozen part helps [S1].",
    cells=_cells,
    notes=("All at one learning rate, as in the paper; see learning_rate.", NOTED["laptop"]),
)

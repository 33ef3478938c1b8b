"""Table 10: only the output layer learns."""

from __future__ import annotations

from fpt_viz.experiments._settings import tasks_at
from fpt_viz.experiments._systems import FPT, NOTED, full, row
from fpt_viz.experiments.base import Cell, Experiment, Scale

__all__ = ["table_10"]

OUTPUT = "output layer only"


def _cells(scale: Scale) -> list[Cell]:
    settings = tasks_at(scale, of=("listops", "cifar10_lra"))
    return [
        *row(FPT, scale, settings, published={"listops": 38.4, "cifar10_lra": 38.6}),
        *row(OUTPUT, scale, settings, published={"listops": 32.8, "cifar10_lra": 24.7}, trained=("output",)),
        *full(scale, settings, published={"listops": 38, "cifar10_lra": 42}),
    ]


table_10 = Experiment(
    title="Output layer only (table 10)",
    claim="With the output layer alone accuracy falls, and features computed once make an epoch 500 to 2,000 times "
    "faster after the first [S1].",
    cells=_cells,
    extras=("step_seconds",),
    notes=(
        "A step's time is the median over a run, validation apart; it is measured, so it differs from run to run.",
        NOTED["laptop"],
    ),
)

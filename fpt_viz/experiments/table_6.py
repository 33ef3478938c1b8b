"""Table 6: how many gradient steps a frozen transformer takes, pretrained and random."""

from __future__ import annotations

from dataclasses import replace

from fpt_viz.experiments._settings import TASKS, tasks_at
from fpt_viz.experiments._systems import FPT, NOTED, RANDOM as RANDOM_FROZEN, cell, system
from fpt_viz.experiments.base import Cell, Experiment, Published, Scale

__all__ = ["table_6"]

STEPS = {
    FPT: dict(zip(TASKS, (1e4, 5e2, 2e3, 5e3, 4e5, 3e5, 1e5), strict=True)),
    RANDOM_FROZEN: dict(zip(TASKS, (4e4, 2e4, 6e3, 2e4, 4e5, 6e5, 1e5), strict=True)),
}
SEEDS = (0, 1, 2, 3, 4)


def _cells(scale: Scale) -> list[Cell]:
    found = []
    for task, setting in tasks_at(scale).items():
        of = setting.stands_for if task not in TASKS else ""  # of which the value is
        for name, init in ((FPT, "pretrained"), (RANDOM_FROZEN, "random")):
            one = cell(
                name,
                task,
                scale=scale,
                setting=setting,
                config=system(scale, setting, init=init),
                versus=FPT,
                seeds=SEEDS,
            )
            found.append(replace(one, published=Published(value=STEPS[name][of or task], of=of or setting.of)))
    return found


table_6 = Experiment(
    title="Gradient steps to convergence (table 6)",
    claim="Pretrained weights converge faster, by 1 to 40 times [S1].",
    cells=_cells,
    quantity="steps",
    notes=("The paper counts steps to its own convergence, at batches of 2 to 16.", NOTED["laptop"]),
)

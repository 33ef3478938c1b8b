"""Table 13: what of the network is unfrozen as well."""

from __future__ import annotations

from fpt_viz.experiments._paper import PRETRAINED, by_task
from fpt_viz.experiments._settings import FEW_TASKS, tasks_at
from fpt_viz.experiments._systems import FPT, NOTED, row
from fpt_viz.experiments.base import Cell, Experiment, Scale
from fpt_viz.freeze import PAPER_GROUPS

__all__ = ["table_13"]

REPORTED = {
    ("feed_forward",): by_task(100, 100, 36.0, 98.3, 76.6, 38.2, 13.1),
    ("attention",): by_task(100, 100, 36.8, 89.0, 47.7, 23.0, 10.9),
    ("feed_forward", "attention"): by_task(100, 100, 35.8, 93.1, 32.9, 21.0, 10.5),
}


def _cells(scale: Scale) -> list[Cell]:
    settings = tasks_at(scale, on_laptop=FEW_TASKS)
    found = row(FPT, scale, settings, published=PRETRAINED)
    for more, published in REPORTED.items():
        name = f"{FPT} + {' and '.join(group.replace('_', '-') for group in more)}"
        found += row(name, scale, settings, published=published, trained=(*PAPER_GROUPS, *more))
    return found


table_13 = Experiment(
    title="Unfreezing more (table 13)",
    claim="Training the feed-forward layers too can help; training attention hurts [S1].",
    cells=_cells,
    notes=(
        "All at one learning rate, as in the paper; which of them is ahead can turn with it (see learning_rate).",
        "The paper's runs with attention diverged on MNIST (89.0) and CIFAR-10 (47.7), with both on MNIST (93.1): its "
        "values are from before.",
        NOTED["laptop"],
    ),
)

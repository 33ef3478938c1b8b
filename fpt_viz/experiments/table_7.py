"""Table 7: who over- and who underfits."""

from __future__ import annotations

from dataclasses import replace

from fpt_viz.experiments._settings import tasks_at
from fpt_viz.experiments._systems import FPT, FULL, FULL_LAYERS, NOTED, ON_TRAIN, absent, full, row
from fpt_viz.experiments.base import Cell, Experiment, Published, Scale

__all__ = ["table_7"]

LINFORMER = "Linformer"
LRA = {FPT: (0.386, 0.385), FULL: (0.42, 0.70)}
"""Test and train accuracy on CIFAR-10 LRA (S1)."""


def _cells(scale: Scale) -> list[Cell]:
    settings = tasks_at(scale, of=("cifar10_lra",))
    measured = []
    for cell in (*row(FPT, scale, settings), *full(scale, settings)):
        test, train = LRA[cell.system]
        of = "" if cell.task == "cifar10_lra" else "cifar10_lra"
        measured.append(replace(cell, measures=(ON_TRAIN,), published=Published(value=test, on_train=train, of=of)))
    return measured + absent(
        LINFORMER, settings, "there is no Linformer here (the paper quotes 39 test, 97 train) [S1]"
    )


table_7 = Experiment(
    title="Over- and underfitting (table 7)",
    claim="Frozen transformers underfit: their accuracy on train is no higher than on test [S1].",
    cells=_cells,
    quantity="gap",
    notes=(f"{FULL}: {FULL_LAYERS} blocks from random weights, everything trained.", NOTED["laptop"]),
)

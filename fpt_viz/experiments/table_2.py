"""Table 2: does it matter what the frozen network was pretrained on?"""

from __future__ import annotations

from dataclasses import replace

from fpt_viz.experiments._paper import PRETRAINED, RANDOM, by_task
from fpt_viz.experiments._settings import tasks_at
from fpt_viz.experiments._systems import FPT, NOTED, RANDOM as RANDOM_FROZEN, absent, row, system
from fpt_viz.experiments.base import Cell, Experiment, Scale

__all__ = ["table_2"]

MEMORY, VIT = "bit-memory pretrained", "ViT pretrained"
NEEDS_HUB = "no package carries pretrained ViT weights: at the paper scale they come from the Hub or a folder"


def _cells(scale: Scale) -> list[Cell]:
    settings = tasks_at(scale)
    pretraining = system(scale, tasks_at(scale)["bit_memory"], init="random", trained=("all",))
    memory = row(MEMORY, scale, settings, published=by_task(100, 100, 35.4, 97.8, 62.6, 36.7, 7.8), init="random")
    vit = "vit-tiny-random" if scale == "smoke" else "vit-base"
    return [
        *row(FPT, scale, settings, published=PRETRAINED),
        *row(RANDOM_FROZEN, scale, settings, published=RANDOM, init="random"),
        *(replace(cell, starts_from=pretraining) for cell in memory),
        *(
            absent(VIT, settings, NEEDS_HUB)
            if scale == "laptop"
            else row(VIT, scale, settings, published=by_task(100, 100, 37.4, 97.8, 72.5, 43.0, 7.5), backbone=vit)
        ),
    ]


table_2 = Experiment(
    title="Pretraining modality (table 2)",
    claim="Language helps about as much as images, and more than bit memory or nothing at all [S1].",
    cells=_cells,
    notes=(f"{MEMORY}: everything was first trained on bit memory, from random weights; then frozen.", NOTED["laptop"]),
)

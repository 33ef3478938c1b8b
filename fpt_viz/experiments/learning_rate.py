"""Learning rates (Rothermel et al., 2021): does freezing still win where every system has its own?"""

from __future__ import annotations

from dataclasses import replace

from fpt_viz.experiments._settings import FEW_TASKS, Setting, tasks_at
from fpt_viz.experiments._systems import NOTED, cell, percent_of, system
from fpt_viz.experiments.base import Cell, Experiment, Scale
from fpt_viz.freeze import PAPER_GROUPS

__all__ = ["learning_rate"]

RATES: dict[Scale, tuple[float, ...]] = {
    "smoke": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "laptop": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "paper": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2),
}
TASKS = ("listops", "mnist", "cifar10", "cifar10_lra")
REPORTED = {
    "frozen pretrained": (46.1, 98.5, 66.3, 54.7),
    "frozen random": (38.9, 98.0, 61.8, 44.2),
    "unfrozen pretrained": (56.3, 99.0, 77.7, 67.8),
    "unfrozen random": (57.6, 98.7, 77.8, 62.0),
}
LAPTOP_STEPS = 250


def _cells(scale: Scale) -> list[Cell]:
    settings = tasks_at(scale, of=TASKS) if scale == "paper" else tasks_at(scale, on_laptop=FEW_TASKS)
    if scale == "laptop":
        settings = {task: setting.capped(LAPTOP_STEPS) for task, setting in settings.items()}
    elif scale == "paper":
        settings["listops"] = _corrected(settings["listops"])
    elif scale == "smoke":
        settings = {"bit_xor": settings["bit_xor"]}
    found = []
    for task, setting in settings.items():
        for name, values in REPORTED.items():
            freezing, init = name.split()
            published = percent_of(dict(zip(TASKS, values, strict=True)), task, setting, source="R")
            trained = PAPER_GROUPS if freezing == "frozen" else ("all",)
            for rate in RATES[scale]:
                config = system(scale, setting, init=init, trained=trained, learning_rate=rate)
                found.append(
                    cell(
                        name,
                        task,
                        scale=scale,
                        setting=setting,
                        config=config,
                        published=published,
                        versus="frozen pretrained",
                    )
                )
    return found


def _corrected(listops: Setting) -> Setting:
    """ListOps without the paper's faults, as Rothermel et al. have it."""
    options = {**listops.task.options, "paper_compatible": False}
    return replace(listops, task=replace(listops.task, options=options))


learning_rate = Experiment(
    title="Learning rates, each system at its own best (Rothermel et al.)",
    claim="That frozen beats unfrozen is an artefact of one learning rate for all; pretraining helps where the network "
    "stays frozen [R].",
    cells=_cells,
    quantity="rates",
    notes=(
        "The best rate has the highest validation accuracy, mean over seeds, after the last step; test accuracy is "
        "read at that rate alone.",
        "Rothermel et al. sweep 1e-6 to 1e-2 with batches of 8, stop early, and correct the paper's ListOps.",
        NOTED["laptop"],
    ),
)

"""Attention on bit memory: do heads find the string that matches by its content?"""

from __future__ import annotations

from fpt_viz.engines.base import Measure
from fpt_viz.experiments._settings import tasks_at
from fpt_viz.experiments._systems import FPT, NOTED, RANDOM as RANDOM_FROZEN, cell, system
from fpt_viz.experiments.base import Cell, Experiment, Scale

__all__ = ["attention_memory"]

MEASURES = (
    Measure(name="head_statistics", n_examples=128),
    Measure(name="head_statistics", split="test", n_examples=128),
)


def _cells(scale: Scale) -> list[Cell]:
    setting = tasks_at(scale)["bit_memory"]
    return [
        cell(
            name,
            "bit_memory",
            scale=scale,
            setting=setting,
            config=system(scale, setting, init=init),
            versus=FPT,
            measures=MEASURES,
        )
        for name, init in ((FPT, "pretrained"), (RANDOM_FROZEN, "random"))
    ]


attention_memory = Experiment(
    title="Attention on bit memory",
    claim="none at hand: the paper shows maps of the first layer, without numbers. Asked here: do heads find the "
    "string that is like the query in content, beyond what its place tells?",
    cells=_cells,
    quantity="routing",
    notes=(NOTED["laptop"],),
)

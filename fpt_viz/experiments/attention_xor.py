"""Attention on XOR: do heads look at the bits that the answer needs, also in longer strings?"""

from __future__ import annotations

from dataclasses import replace

from fpt_viz.config import TaskConfig
from fpt_viz.engines.base import Measure
from fpt_viz.experiments._settings import Setting, tasks_at
from fpt_viz.experiments._systems import FPT, NOTED, RANDOM as RANDOM_FROZEN, cell, system
from fpt_viz.experiments.base import Cell, Experiment, Published, Scale

__all__ = ["attention_xor"]

LENGTHS: dict[Scale, tuple[int, ...]] = {"smoke": (2, 3), "laptop": (5, 10, 20), "paper": (5, 20, 50, 100, 256)}
SHOWN = Published(value=0.518, source="CALC", of="first layer, mean over heads")
"""The mean of what the blog's heat map shows on the partner bit, tokens 5 to 9."""
MEASURES = (Measure(name="head_statistics"), Measure(name="head_statistics", split="test"))


def _cells(scale: Scale) -> list[Cell]:
    found = []
    for length in LENGTHS[scale]:
        task = "bit_xor" if length == 5 else f"bit_xor of {length} bits"
        setting = _with_bits(tasks_at(scale)["bit_xor"], length)
        for name, init in ((FPT, "pretrained"), (RANDOM_FROZEN, "random")):
            found.append(
                cell(
                    name,
                    task,
                    scale=scale,
                    setting=setting,
                    config=system(scale, setting, init=init),
                    versus=FPT,
                    measures=MEASURES,
                    published=SHOWN if (length, name) == (5, FPT) else None,
                )
            )
    return found


def _with_bits(setting: Setting, n_bits: int) -> Setting:
    options = {**setting.task.options, "n_bits": n_bits} if n_bits != 5 else setting.task.options
    return replace(setting, task=TaskConfig(name=setting.task.name, options=options))


attention_xor = Experiment(
    title="Attention on bit XOR",
    claim="Frozen layers are steered to attend to the two bits that an answer needs; it works up to strings of 256 "
    "bits [BAIR].",
    cells=_cells,
    quantity="routing",
    notes=("The value of CALC is a first layer's mean over heads: hold it against that column.", NOTED["laptop"]),
)

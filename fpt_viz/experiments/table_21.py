"""Table 21: parameter groups trained in turn, random."""

from __future__ import annotations

from fpt_viz.experiments._groups import in_turn
from fpt_viz.experiments._systems import NOTED
from fpt_viz.experiments.base import Cell, Experiment, Scale

__all__ = ["table_21"]

REPORTED = {
    "bit_xor": (50, 100, 100, 100),
    "listops": (17, 35, 36, 37),
    "mnist": (25, 83, 92, 92),
    "cifar10": (20, 46, 56, 62),
    "cifar10_lra": (11, 34, 36, 36),
}


def _cells(scale: Scale) -> list[Cell]:
    return in_turn(scale, init="random", published=REPORTED)


table_21 = Experiment(
    title="Parameter groups in turn, random (table 21)",
    claim="The layer norms matter most in random networks too [S1].",
    cells=_cells,
    notes=("Each row is tested against the last, which trains all of the paper's groups.", NOTED["laptop"]),
)

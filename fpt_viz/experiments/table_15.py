"""Table 15: parameter groups trained in turn, pretrained."""

from __future__ import annotations

from fpt_viz.experiments._groups import in_turn
from fpt_viz.experiments._systems import NOTED
from fpt_viz.experiments.base import Cell, Experiment, Scale

__all__ = ["table_15"]

REPORTED = {
    "bit_memory": (76, 94, 100, 100),
    "bit_xor": (56, 98, 98, 100),
    "listops": (15, 36, 36, 38),
    "mnist": (23, 96, 98, 98),
    "cifar10": (25, 54, 60, 68),
    "cifar10_lra": (17, 39, 39, 39),
    "remote_homology": (2, 9, 10, 13),
}


def _cells(scale: Scale) -> list[Cell]:
    return in_turn(scale, init="pretrained", published=REPORTED)


table_15 = Experiment(
    title="Parameter groups in turn, pretrained (table 15)",
    claim="The layer norms matter most [S1].",
    cells=_cells,
    notes=("Each row is tested against the last, which trains all of the paper's groups.", NOTED["laptop"]),
)

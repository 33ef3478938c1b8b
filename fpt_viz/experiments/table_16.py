"""Table 16: layer norms frozen and tuned."""

from __future__ import annotations

from fpt_viz.experiments._settings import tasks_at
from fpt_viz.experiments._systems import NOTED, row
from fpt_viz.experiments.base import Cell, Experiment, Scale
from fpt_viz.freeze import PAPER_GROUPS

__all__ = ["table_16"]

REPORTED = {"pretrained": (61.5, 68.2), "random": (55.0, 61.7)}


def _cells(scale: Scale) -> list[Cell]:
    settings = tasks_at(scale, of=("cifar10",))
    frozen = tuple(group for group in PAPER_GROUPS if group != "layer_norm")
    found = []
    for init, (without, with_norms) in REPORTED.items():
        tuned = f"{init}, layer norms tuned"
        found += row(
            f"{init}, layer norms frozen",
            scale,
            settings,
            published={"cifar10": without},
            versus=tuned,
            init=init,
            trained=frozen,
        )
        found += row(tuned, scale, settings, published={"cifar10": with_norms}, versus=tuned, init=init)
    return found


table_16 = Experiment(
    title="Layer norms frozen and tuned (table 16)",
    claim="Pretraining is worth 6.5 points whether the layer norms are tuned or not [S1].",
    cells=_cells,
    notes=("Frozen layer norms are tested against tuned ones.", NOTED["laptop"]),
)

"""Table 11: depth, with output layer and layer norms trained."""

from __future__ import annotations

from fpt_viz.experiments._settings import tasks_at
from fpt_viz.experiments._systems import NOTED, row
from fpt_viz.experiments.base import Cell, Experiment, Scale

__all__ = ["table_11"]

DEPTHS: dict[Scale, tuple[int, ...]] = {"smoke": (1, 2), "laptop": (1, 2, 6), "paper": (1, 2, 6)}
REPORTED = {"pretrained": {1: 17, 2: 36, 6: 38}, "random": {1: 17, 2: 16, 6: 35}}


def _cells(scale: Scale) -> list[Cell]:
    settings = tasks_at(scale, of=("listops",))
    found = []
    for depth in DEPTHS[scale]:
        layers = f"{depth} layer{'s' if depth > 1 else ''}"
        against = f"{layers}, pretrained"
        for init in ("pretrained", "random"):
            reported = REPORTED[init].get(depth)
            found += row(
                f"{layers}, {init}",
                scale,
                settings,
                published={} if reported is None else {"listops": reported},
                versus=against,
                init=init,
                n_layers=depth,
                trained=("output", "layer_norm"),
            )
    return found


table_11 = Experiment(
    title="Depth on ListOps, output layer and layer norms trained (table 11)",
    claim="Two pretrained layers do what random ones need six for [S1].",
    cells=_cells,
    notes=("Each depth's random network is tested against the pretrained one.", NOTED["laptop"]),
)

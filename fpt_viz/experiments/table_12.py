"""Table 12: depth, with the output layer alone trained."""

from __future__ import annotations

from fpt_viz.experiments._settings import tasks_at
from fpt_viz.experiments._systems import NOTED, row
from fpt_viz.experiments.base import Cell, Experiment, Scale

__all__ = ["table_12"]

DEPTHS: dict[Scale, tuple[int, ...]] = {"smoke": (1, 3), "laptop": (1, 3, 6), "paper": (1, 3, 6, 12, 24)}
REPORTED = {"pretrained": {1: 12, 3: 18, 6: 33, 12: 33}, "random": {12: 17, 24: 17}}
GPT2_LAYERS = 12
"""No deeper one is pretrained."""


def _cells(scale: Scale) -> list[Cell]:
    settings = tasks_at(scale, of=("listops",))
    found = []
    for depth in DEPTHS[scale]:
        layers = f"{depth} layer{'s' if depth > 1 else ''}"
        against = f"{layers}, pretrained" if depth <= GPT2_LAYERS else ""
        inits = ("pretrained", "random") if depth <= GPT2_LAYERS else ("random",)
        for init in inits:
            reported = REPORTED[init].get(depth)
            found += row(
                f"{layers}, {init}",
                scale,
                settings,
                published={} if reported is None else {"listops": reported},
                versus=against,
                init=init,
                n_layers=depth,
                trained=("output",),
            )
    return found


table_12 = Experiment(
    title="Depth on ListOps, output layer alone trained (table 12)",
    claim="With nothing to train that mixes tokens, six pretrained layers already mix usefully; random ones do not, "
    "however many [S1].",
    cells=_cells,
    notes=(
        "Each depth's random network is tested against the pretrained one.",
        NOTED["laptop"],
    ),
)

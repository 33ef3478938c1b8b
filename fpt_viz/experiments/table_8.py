"""Table 8: larger frozen networks."""

from __future__ import annotations

from fpt_viz.experiments._settings import tasks_at
from fpt_viz.experiments._systems import row
from fpt_viz.experiments.base import Cell, Experiment, Scale

__all__ = ["table_8"]

BACKBONES: dict[Scale, tuple[str, ...]] = {
    "smoke": ("bert-tiny-random", "gpt2-tiny-random"),
    "laptop": ("minilm", "smollm2"),
    "paper": ("gpt2", "gpt2-medium", "gpt2-large"),
}
REPORTED = {"gpt2": (68.2, 61.7), "gpt2-medium": (69.8, 64.0), "gpt2-large": (72.1, 65.7)}
LAPTOP_STEPS = 150
"""SmolLM2 takes about twenty times as long a step as MiniLM."""


def _cells(scale: Scale) -> list[Cell]:
    settings = tasks_at(scale, of=("cifar10",))
    if scale == "laptop":
        settings = {"digits": settings["digits"].capped(LAPTOP_STEPS)}
    found = []
    for backbone in BACKBONES[scale]:
        pretrained, random = REPORTED.get(backbone, (None, None))
        name = f"{backbone} pretrained"
        for system, init, value in ((name, "pretrained", pretrained), (f"{backbone} random", "random", random)):
            published = {} if value is None else {"cifar10": value}
            found += row(system, scale, settings, published=published, versus=name, init=init, backbone=backbone)
    return found


table_8 = Experiment(
    title="Model size (table 8)",
    claim="Larger frozen networks are better, pretrained and random [S1].",
    cells=_cells,
    extras=("sizes",),
    own_backbones=True,
    notes=(
        "Each is tested against the pretrained network of its size.",
        "At the laptop scale sizes differ in family too (MiniLM reads both ways, SmolLM2 from left to right), so they "
        "say little of size alone.",
    ),
)

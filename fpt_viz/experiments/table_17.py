"""Table 17: other pretrained backbones."""

from __future__ import annotations

from fpt_viz.experiments._settings import tasks_at
from fpt_viz.experiments._systems import row
from fpt_viz.experiments.base import Cell, Experiment, Scale

__all__ = ["table_17"]

ROWS: dict[Scale, tuple[tuple[str, str, int | None, dict[str, float | int]], ...]] = {
    "smoke": (
        ("GPT-2", "gpt2-tiny-random", None, {}),
        ("BERT", "bert-tiny-random", None, {}),
        ("T5 encoder", "t5-tiny-random", None, {}),
        ("Longformer", "longformer-tiny-random", None, {}),
    ),
    "laptop": (("SmolLM2, first 6 layers", "smollm2", 6, {}), ("MiniLM", "minilm", None, {})),
    "paper": (
        ("GPT-2", "gpt2", None, {"cifar10": 68.2, "listops": 38.4}),
        ("BERT", "bert:google-bert/bert-base-uncased", None, {"cifar10": 68.8, "listops": 38.3}),
        ("T5 encoder", "t5-base", None, {"cifar10": 64.7, "listops": 15.4}),
        ("Longformer", "longformer-base", None, {"cifar10": 66.8, "listops": 17.0}),
    ),
}
"""Name, backbone, layers kept, and what the paper reports."""


def _cells(scale: Scale) -> list[Cell]:
    settings = tasks_at(scale, of=("cifar10", "listops"))
    first = ROWS[scale][0][0]
    return [
        cell
        for name, backbone, n_layers, published in ROWS[scale]
        for cell in row(name, scale, settings, published=published, versus=first, backbone=backbone, n_layers=n_layers)
    ]


table_17 = Experiment(
    title="Other backbones (table 17)",
    claim="BERT does as well as GPT-2; T5 and Longformer fail on ListOps [S1].",
    cells=_cells,
    own_backbones=True,
    notes=("The paper does not report SmolLM2 or MiniLM.",),
)

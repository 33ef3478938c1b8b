"""An experiment of a user's own: runs that are never done, which only being stopped saves."""

from __future__ import annotations

from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.experiments.base import Cell, Experiment, Scale

__all__ = ["long"]

FIRST_FRAME = 2
"""Steps after which a run shows that it takes some."""


def _cells(scale: Scale) -> list[Cell]:
    train = TrainConfig(
        n_steps=1_000_000, batch_size=16, validate_every=0, checkpoint_every=1_000_000, telemetry_every=FIRST_FRAME
    )
    config = RunConfig(
        task=TaskConfig(name="bit_xor", options={"n_bits": 5}),
        backbone=BackboneConfig(name="bert-tiny-random", init="random"),
        train=train,
    )
    return [Cell(system="all", task="bit_xor", config=config, seeds=(0, 1, 2))]


long = Experiment(title="A long list", claim="None.", cells=_cells)

"""An experiment of a user's own in which one system diverges, one cannot be built, and one is well."""

from __future__ import annotations

from dataclasses import replace

from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.experiments.base import Cell, Experiment, Scale

__all__ = ["diverging"]


def _cells(scale: Scale) -> list[Cell]:
    train = TrainConfig(n_steps=8, batch_size=8, validate_every=2, n_validation=8, checkpoint_every=2)
    well = RunConfig(
        task=TaskConfig(name="bit_xor", options={"n_bits": 2}),
        backbone=BackboneConfig(name="bert-tiny-random", init="random"),
        train=train,
    )
    wild = replace(well, train=replace(train, learning_rate=1e30))
    absent = replace(well, backbone=BackboneConfig(name="bert-tiny-random", init="pretrained"))
    return [
        Cell(system="wild", task="bit_xor", config=wild, seeds=(0,), versus="well"),
        Cell(system="absent", task="bit_xor", config=absent, seeds=(0,), versus="well"),
        Cell(system="well", task="bit_xor", config=well, seeds=(0,)),
    ]


diverging = Experiment(title="Divergence", claim="None.", cells=_cells)

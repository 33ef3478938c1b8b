"""An experiment of a user's own: a few runs that take a second each, so that they can be killed in the middle."""

from __future__ import annotations

from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.experiments.base import Cell, Experiment, Published, Scale

__all__ = ["listed"]

N_STEPS = 120


def _cells(scale: Scale) -> list[Cell]:
    train = TrainConfig(
        n_steps=N_STEPS, batch_size=16, validate_every=40, n_validation=16, checkpoint_every=10, learning_rate=3e-3
    )
    backbone = BackboneConfig(name="bert-tiny-random", init="random")
    found = []
    for system, trained in (("all", ("all",)), ("output", ("output",))):
        config = RunConfig(
            task=TaskConfig(name="bit_xor", options={"n_bits": 3}), backbone=backbone, trained=trained, train=train
        )
        versus = "all" if system == "output" else ""
        published = Published(value=0.5) if system == "all" else None
        found.append(
            Cell(system=system, task="bit_xor", config=config, seeds=(0, 1, 2), versus=versus, published=published)
        )
    return [*found, Cell(system="none", task="bit_xor", why_not="there is none")]


listed = Experiment(title="A list", claim="None.", cells=_cells)

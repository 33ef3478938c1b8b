"""Every widget on something small, by its class's name; for checks that all of them must pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from made_attention import make_maps

import fpt_viz as fpt
from fpt_viz.widgets.base import Widget


def model_of(task_name: str) -> fpt.FrozenPretrainedTransformer:
    """A tiny random model of a task."""
    task = fpt.load_task(task_name)
    return fpt.FrozenPretrainedTransformer(fpt.load_backbone("bert-tiny-random", "random"), task).eval()


def run_in(folder: Path, *, seed: int = 0) -> fpt.RunConfig:
    """A short run with telemetry, made in ``folder``."""
    config = fpt.RunConfig.from_dict({
        "task": {"name": "bit_xor"},
        "backbone": {"name": "bert-tiny-random", "init": "random"},
        "train": {"n_steps": 6, "batch_size": 8, "validate_every": 2, "n_validation": 16, "telemetry_every": 2,
                  "n_telemetry": 4, "seed": seed},
    })  # fmt: skip
    if not (folder / "result.json").exists():
        fpt.run(config, folder, progress=False)
    return config


def movie(folder: Path) -> Widget:
    """The movie of two short runs."""
    for seed in (0, 1):
        run_in(folder / f"seed-{seed}", seed=seed)
    first, second = (fpt.load_run(folder / f"seed-{seed}") for seed in (0, 1))
    return fpt.widgets.TrainingMovie(first, compare=second)


def live(_folder: Path) -> Widget:
    """A training that has ended."""
    model = model_of("bit_xor")
    steps = fpt.train(model, model.task, fpt.TrainConfig(n_steps=4, batch_size=4))
    widget = fpt.widgets.LiveTraining(steps, running=False)
    widget.run()
    return widget


def browser(folder: Path) -> Widget:
    """A folder of two runs."""
    movie(folder)
    return fpt.widgets.RunBrowser(folder)


MADE: dict[str, Callable[[Path], Widget]] = {
    "AttentionExplorer": lambda _: fpt.widgets.AttentionExplorer(make_maps(2, 4, 6)),
    "BitLab": lambda _: fpt.widgets.BitLab(model_of("bit_xor"), n_examples=2),
    "HeadLab": lambda _: fpt.widgets.HeadLab(model_of("bit_xor")),
    "LiveTraining": live,
    "PatchExplorer": lambda _: fpt.widgets.PatchExplorer(model_of("digits"), n_examples=2),
    "RunBrowser": browser,
    "TrainingMovie": movie,
}
"""Each makes its widget; what it needs on disk goes into the folder that it is given."""

"""The paper's systems as configurations: what computes, from which weights, and what of it learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fpt_viz.config import BackboneConfig, RunConfig
from fpt_viz.engines.base import Measure
from fpt_viz.experiments._settings import Setting
from fpt_viz.experiments.base import Cell, Published, Scale
from fpt_viz.freeze import PAPER_GROUPS

SEEDS = (0, 1, 2)
BACKBONES: dict[Scale, str] = {"smoke": "bert-tiny-random", "laptop": "minilm", "paper": "gpt2"}
LSTMS: dict[Scale, str] = {"smoke": "lstm-tiny-random", "laptop": "lstm-norm-384", "paper": "lstm-norm"}
DEEP_LSTMS: dict[Scale, str] = {"smoke": "lstm-tiny-random", "laptop": "lstm-12-384", "paper": "lstm-12"}
LSTM_RATE = 3e-4
"""Of Adam, for the LSTMs (S1, appendix C)."""
FULL_LAYERS = 3
"""Blocks of the paper's fully trained transformers: 12 were unstable (S1, appendix D.1)."""
IN_FULL: dict[str, Any] = {"init": "random", "n_layers": FULL_LAYERS, "trained": ("all",)}
"""What makes such a transformer of the scale's backbone."""
ON_TRAIN = Measure(name="evaluate", split="train", n_examples=1024)
"""Accuracy on training examples, for table 7."""
FPT, RANDOM, STATISTICS = "FPT", "random frozen", "statistics only"
FULL, LSTM = "full transformer", "LSTM"
NOTED: dict[Scale, str] = {
    "smoke": "Tiny random networks and a few steps: these numbers mean nothing.",
    "laptop": "Ours is MiniLM (BERT, 6 layers, hidden 384); the paper's is GPT-2 with 12 layers.",
    "paper": "",
}


def system(
    scale: Scale,
    setting: Setting,
    *,
    init: str = "pretrained",
    backbone: str | None = None,
    n_layers: int | None = None,
    trained: Sequence[str] = PAPER_GROUPS,
    **train: Any,
) -> RunConfig:
    """What is trained at ``scale`` on the task of ``setting``.

    Args:
        scale: Smoke has no pretrained weights; its networks are all random.
        setting: The task, and how systems are trained on it.
        init: As in :class:`fpt_viz.config.BackboneConfig`.
        backbone: None for the scale's own.
        n_layers: None for all.
        trained: Parameter groups.
        train: Options of training that differ from the setting's.
    """
    init = "random" if scale == "smoke" else init
    named = BackboneConfig(name=backbone or BACKBONES[scale], init=init, n_layers=n_layers)
    return RunConfig(task=setting.task, backbone=named, trained=tuple(trained), train=replace(setting.train, **train))


def lstm(scale: Scale, setting: Setting, *, trained: Sequence[str] = ("all",), deep: bool = False) -> RunConfig:
    """The paper's LSTM of three layers; ``deep``: twelve, with residuals and positions."""
    name = (DEEP_LSTMS if deep else LSTMS)[scale]
    return system(scale, setting, init="random", backbone=name, trained=trained, learning_rate=LSTM_RATE)


def row(
    name: str,
    scale: Scale,
    settings: Mapping[str, Setting],
    *,
    published: Mapping[str, float | int] | None = None,
    versus: str = FPT,
    make: Callable[..., RunConfig] = system,
    **options: Any,
) -> list[Cell]:
    """One system on several tasks.

    Args:
        name: The system's.
        scale: Smoke has one seed.
        settings: By task.
        published: What the paper reports of it, in per cent, by the paper's task.
        versus: What it is tested against, unless it is that system itself.
        make: :func:`system`, or :func:`lstm`.
        options: Of ``make``.
    """
    return [
        cell(
            name,
            task,
            scale=scale,
            setting=setting,
            config=make(scale, setting, **options),
            published=percent_of(published or {}, task, setting),
            versus=versus,
        )
        for task, setting in settings.items()
    ]


def cell(name: str, task: str, *, scale: Scale, setting: Setting, config: RunConfig, **more: Any) -> Cell:
    """One system on one task, with the seeds of the scale and the threshold of the setting; ``more`` is the rest."""
    more["versus"] = "" if more.get("versus") == name else more.get("versus", "")
    seeds = (0,) if scale == "smoke" else more.pop("seeds", SEEDS)
    more.pop("seeds", None)
    return Cell(system=name, task=task, config=config, seeds=seeds, threshold=setting.threshold, **more)


def percent_of(
    published: Mapping[str, float | int], task: str, setting: Setting, *, source: str = "S1"
) -> Published | None:
    """What is ``published``, in per cent by task, of ``task`` or of the one that it stands for."""
    if task in published:
        return Published(value=round(published[task] / 100, 6), source=source, of=setting.of)
    if setting.stands_for in published:
        return Published(value=round(published[setting.stands_for] / 100, 6), source=source, of=setting.stands_for)
    return None


def full(scale: Scale, settings: Mapping[str, Setting], **more: Any) -> list[Cell]:
    """The paper's fully trained transformer; ``more`` goes to :func:`row`.

    Tables 1, 7 and 10 share its runs. At the paper's scale its weights are too large to keep, so every table measures
    what table 7 shows.
    """
    cells = row(FULL, scale, settings, **IN_FULL, **more)
    return [replace(cell, measures=(ON_TRAIN,)) for cell in cells] if scale == "paper" else cells


def absent(name: str, tasks: Iterable[str], why: str) -> list[Cell]:
    """Rows of a system that is not run at a scale, and why."""
    return [Cell(system=name, task=task, why_not=why) for task in tasks]

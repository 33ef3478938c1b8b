"""``demo`` and ``train``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
import contextlib
from dataclasses import asdict, fields
import os
from pathlib import Path
import shlex
from typing import TYPE_CHECKING

from fpt_viz import registry
from fpt_viz.cli.answer import Answer
from fpt_viz.cli.words import between, noted, percent
from fpt_viz.errors import ConfigError

if TYPE_CHECKING:
    from fpt_viz.config import RunConfig

RUNS = Path("data/runs")
"""Where runs go that are given no folder."""


def demo(arguments: Namespace) -> Answer:
    """The main job."""
    from fpt_viz.demo import run_demo

    set_machine(arguments)
    out = arguments.out
    with _resumable(arguments.argv):
        result = run_demo(
            out,
            scale=arguments.scale,
            seed=arguments.seed,
            device=arguments.device,
            resume=arguments.resume,
            overwrite=arguments.overwrite,
        )
    return Answer(result.to_json(), [*result.summary(), f"Open {out / 'report.html'} in a browser."])


def train(arguments: Namespace) -> Answer:
    """One run, in its folder."""
    from fpt_viz.run_folder import RunFolder
    from fpt_viz.train import run

    set_machine(arguments)
    config = _config(arguments)
    out = arguments.out or RUNS / RunFolder(Path(), config).run_id
    with _resumable(arguments.argv):
        record = run(config, out, device=arguments.device, resume=arguments.resume, overwrite=arguments.overwrite)
    found, result = record.evaluation, record.result
    told = ("run_id", "status", "n_steps", "steps_to_solve", "frozen_intact", "seconds")
    data = {name: result[name] for name in told} | {"evaluation": asdict(found), "path": record.path}
    solved = "" if record.steps_to_solve is None else f", solved at step {record.steps_to_solve}"
    intact = "no frozen weight moved" if result["frozen_intact"] else f"frozen weights moved: {result['moved'][:3]}"
    shown = [
        f"{record.name}: {result['n_steps']} steps in {result['seconds']:.0f} s{solved}; {intact}",
        f"{found.split} accuracy {percent(found.accuracy)} ({between(found.interval)}), chance {percent(found.chance)}",
        *noted(record.note, record.config["task"]["name"]),
        f"saved in {record.path}",
    ]
    return Answer(data, shown)


def set_machine(arguments: Namespace) -> None:
    """Let torch use as many threads as ``--threads`` says, and tasks look for data where ``--data-dir`` says.

    Raises:
        ConfigError: There must be at least one thread, and the folder must be there.
    """
    set_data_dir(arguments)
    if arguments.threads is None:
        return
    if arguments.threads < 1:
        raise ConfigError(f"--threads must be at least 1, got {arguments.threads}")
    import torch

    torch.set_num_threads(arguments.threads)


def set_data_dir(arguments: Namespace) -> None:
    """Let tasks look for data first in the folder of ``--data-dir``.

    Raises:
        ConfigError: There is no such folder.
    """
    if arguments.data_dir is None:
        return
    if not arguments.data_dir.is_dir():
        raise ConfigError(f"no folder {arguments.data_dir}: --data-dir takes one that holds a folder for each data set")
    os.environ["FPT_VIZ_DATA"] = str(arguments.data_dir)


def _config(arguments: Namespace) -> RunConfig:
    """What the config file, the flags and the settings say together; the later, the stronger.

    With ``--resume`` and no task the file is the one in the run's folder.
    """
    from fpt_viz.cli.given import parsed
    from fpt_viz.config import RunConfig, with_settings
    from fpt_viz.tasks import load_task

    asked = arguments.task and not arguments.task.endswith(".py")  # a file's path is given again, since its code runs
    resumed = arguments.out / "config.toml" if arguments.resume and arguments.out and not asked else None
    file = arguments.config or (resumed if resumed and resumed.exists() else None)
    base = RunConfig.load(file).to_dict() if file else {}
    flags = {
        "task.name": arguments.task,
        "backbone.name": arguments.backbone,
        "backbone.init": arguments.init,
        "backbone.n_layers": arguments.layers,
        "trained": arguments.trained,
        "train.seed": arguments.seed,
    }
    settings = {name: value for name, value in flags.items() if value is not None} | parsed(arguments.settings)
    in_file = base.get("task", {}).get("name")
    if file is resumed and str(in_file).endswith(".py") and arguments.task is None:
        raise ConfigError(f"the task of {arguments.out} is the file {in_file}, whose code would run: give --task PATH")
    task = str(settings.get("task.name", in_file or ""))
    if not task:
        raise ConfigError("no task is given: name one with --task (see fpt-viz list tasks), or give a CONFIG.toml")
    if task != in_file:
        base["task"] = {}  # the file's options are another task's
    options = [option.name for option in fields(registry.load("tasks", task))]
    config = RunConfig.from_dict(with_settings(base, settings, options))
    load_task(config.task.name, **config.task.options)  # its options are checked before anything is written
    return config


@contextlib.contextmanager
def _resumable(argv: Sequence[str]) -> Iterator[None]:
    """Say, after Ctrl-C, how to go on: the command in ``argv`` with ``--resume``."""
    try:
        yield
    except KeyboardInterrupt as stop:
        said = str(stop).partition(":")[0] or "stopped; what was saved before is whole"
        words = [word for word in argv if word not in ("--overwrite", "--resume")]
        raise KeyboardInterrupt(f"{said}: go on with {shlex.join(['fpt-viz', *words, '--resume'])}") from None

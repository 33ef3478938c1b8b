"""Steps of a run handed to a tracker: TensorBoard, Weights & Biases or trackio, each a package that may be absent.

A tracker only takes :class:`fpt_viz.records.Step`, so live training and saved runs are logged alike::

    with tracker("tensorboard", "xor", config, folder="logs") as log:
        for step in fpt.train(model, config=config):
            log.add(step)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from fpt_viz.errors import SourceError, UnknownNameError
from fpt_viz.records import RunRecord, Step

Name = Literal["tensorboard", "trackio", "wandb"]
NAMES = ("tensorboard", "trackio", "wandb")


@runtime_checkable
class Tracker(Protocol):
    """Takes the steps of one run, and is told when it ends; a context manager that ends itself."""

    def add(self, step: Step) -> None:
        """Take one step."""
        ...

    def end(self) -> None:
        """Write what is still held back."""
        ...

    def __enter__(self) -> Tracker: ...

    def __exit__(self, *_: object) -> None: ...


def tracker(
    name: str, run: str, config: Mapping[str, Any], *, folder: str | Path = "data/runs/logs", project: str = "fpt_viz"
) -> Tracker:
    """The tracker called ``name``, ready for the steps of one run.

    Args:
        name: ``tensorboard``, ``trackio`` or ``wandb``.
        run: What the run is called there.
        config: Its options, nested or not.
        folder: Of TensorBoard's files; each run gets a folder of its own in it.
        project: Of the others, which decide themselves where they write, and whether they need an account.

    Raises:
        UnknownNameError: No such tracker.
        SourceError: Its package is not installed.
    """
    if name not in NAMES:
        raise UnknownNameError("tracker", name, NAMES)
    try:
        if name == "tensorboard":
            from torch.utils import tensorboard

            return _TensorBoard(tensorboard, run, config, Path(folder))
        if name == "wandb":
            import wandb

            return _Wandb(wandb, run, config, project)
        import trackio

        return _Wandb(trackio, run, config, project)
    except ImportError as error:
        raise SourceError(f"{name} is not installed ({error}): pip install {name}") from error


def hand_over(record: RunRecord, log: Tracker) -> None:
    """Give every step of a finished run to ``log``."""
    with log:
        for step in record.steps:
            log.add(step)


def numbers_of(step: Step) -> dict[str, float]:
    """What a tracker shows of ``step``, by name; validation where there was a check."""
    found = {
        "train/loss": step.loss,
        "train/accuracy": step.accuracy,
        "train/grad_norm": step.grad_norm,
        "train/learning_rate": step.learning_rate,
    }
    if step.validation is not None:
        found |= {"validation/loss": step.validation.loss, "validation/accuracy": step.validation.accuracy}
    return found


class _Ending:
    """Ends with its block."""

    def end(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class _TensorBoard(_Ending):
    """Event files, which ``tensorboard --logdir`` reads."""

    def __init__(self, module: Any, run: str, config: Mapping[str, Any], folder: Path) -> None:
        self.writer = module.SummaryWriter(log_dir=str(folder / run))
        rows = "\n".join(f"| {name} | {value} |" for name, value in _flat(config).items())
        self.writer.add_text("config", f"| option | value |\n| --- | --- |\n{rows}", 0)

    def add(self, step: Step) -> None:
        for name, value in numbers_of(step).items():
            self.writer.add_scalar(name, value, step.index + 1)

    def end(self) -> None:
        self.writer.close()


class _Wandb(_Ending):
    """Weights & Biases, and trackio, which has the same calls."""

    def __init__(self, module: Any, run: str, config: Mapping[str, Any], project: str) -> None:
        self.module = module
        module.init(project=project, name=run, config=_flat(config))

    def add(self, step: Step) -> None:
        self.module.log(numbers_of(step), step=step.index + 1)

    def end(self) -> None:
        self.module.finish()


def _flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return found

"""The training loop, as a generator of steps, and a whole run in its folder.

The loop keeps a random state of its own: what a caller does between two steps changes nothing, and a run that is cut
off and resumed ends with the same weights, bit for bit on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from dataclasses import replace
from functools import partial
import math
from pathlib import Path
import signal
import threading
from time import perf_counter
from types import FrameType

import torch

from fpt_viz.config import RunConfig, TrainConfig
from fpt_viz.errors import ConfigError, Terminated
from fpt_viz.features import Features
from fpt_viz.loading import build_model
from fpt_viz.measures.base import outcomes_of
from fpt_viz.measures.evaluate import evaluate, summarise
from fpt_viz.memory import check_fits, has_room_to_pack
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.progress import shown
from fpt_viz.records import Evaluation, RunRecord, Step, load_run
from fpt_viz.run_folder import RunFolder
from fpt_viz.tasks import Task
from fpt_viz.telemetry import Probe
from fpt_viz.training_pass import TrainingPass, n_parts_of, pick_precision
from fpt_viz.training_state import TrainingState
from fpt_viz.updates import Forward, Updates


def train(
    model: FrozenPretrainedTransformer,
    task: Task | None = None,
    config: TrainConfig | None = None,
    *,
    state: TrainingState | None = None,
) -> Iterator[Step]:
    """Train ``model`` in place, one gradient step for each item taken (:func:`run` takes them all).

    Args:
        model: On the device where it is to train.
        task: None for the model's own.
        config: None for the defaults.
        state: Where to go on from; None for a new start. It is kept up to date, so that it can be saved after any step.

    Raises:
        TrainingError: The loss or gradient is not finite; the model's weights are then as after the step before.
    """
    task, config = task or model.task, config or TrainConfig()
    state = state or TrainingState(model, config)
    model.set_dropout(config.dropout)
    before = state.elapsed_seconds
    start = perf_counter()
    features = Features.of(model, task, config)
    state.n_cached = features.n_kept if features is not None else 0
    n_parts = n_parts_of(model, config, task) if features is None else config.n_parts or 1
    config, state.n_parts = replace(config, n_parts=n_parts), n_parts  # once for all steps, whoever looks on later
    forward = _forward(model, task, config) if features is None else _reading(model, features)
    updates = Updates(task, state, config)
    while state.n_steps < config.n_steps and not state.done(config):
        batch = task.sample(config.batch_size, state.data_rng)
        rate = learning_rate(config, state.n_steps)
        parts = [batch[rows] for rows in torch.arange(len(batch)).tensor_split(min(n_parts, len(batch)))]
        with state.own_rng():
            measured = updates.take(parts if n_parts > 1 else [batch], forward, rate)
        state.n_steps += 1
        model.step = state.n_steps
        if updates.due():
            updates.look()
        checked = config.validate_every and state.n_steps % config.validate_every == 0
        validation = _checked(model, task, config, features) if checked else None
        if validation is not None:
            state.note_check(solved=validation.exact == 1)
        state.elapsed_seconds = before + perf_counter() - start
        yield Step(
            index=state.n_steps - 1,
            measured=measured,
            learning_rate=rate,
            n_examples=len(batch),
            elapsed_seconds=state.elapsed_seconds,
            validation=validation,
        )


def _forward(model: FrozenPretrainedTransformer, task: Task, config: TrainConfig) -> Forward:
    """Forward passes of the whole model."""
    return TrainingPass(model, config, task, may_pack=has_room_to_pack(model, config, task)).of


def _reading(model: FrozenPretrainedTransformer, features: Features) -> Forward:
    """Forward passes of the output layer alone, on kept features."""
    return lambda batch: contextlib.nullcontext(partial(model.read, features(batch)))


def _checked(
    model: FrozenPretrainedTransformer, task: Task, config: TrainConfig, features: Features | None
) -> Evaluation:
    """How well ``model`` does on the validation split."""
    if features is None:
        return evaluate(model, task, n_examples=config.n_validation, split="validation")
    with torch.no_grad():
        states, batch = features.of_split(config.n_validation, "validation")
        return summarise(outcomes_of(model.read(states), task, batch.targets), task, "validation")


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of the zero-based ``step``: a linear rise over the warm-up, then the schedule."""
    if step < config.n_warmup_steps:
        return config.learning_rate * (step + 1) / config.n_warmup_steps
    passed = (step - config.n_warmup_steps) / max(1, config.n_steps - config.n_warmup_steps)
    factors = {"constant": 1.0, "linear": 1 - passed, "cosine": (1 + math.cos(math.pi * passed)) / 2}
    return config.learning_rate * factors[config.schedule]


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop, and whose state is saved."""


def run(
    config: RunConfig,
    out: str | Path,
    *,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
) -> RunRecord:
    """Train what ``config`` describes and leave a whole record of it in the folder ``out``.

    Args:
        config: What to train and how.
        out: A new folder, unless ``resume`` or ``overwrite`` says otherwise.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"`` (accepted, and untested); None takes CUDA where there is one.
        resume: Go on from the last checkpoint in ``out``; a finished run is returned as it is.
        overwrite: Remove the run that ``out`` holds. Other files there are left alone.
        progress: A bar on stderr; None shows it on a terminal.

    Raises:
        RunFolderError: ``out`` holds a run already, another process writes to it, or it holds another run than
            ``config`` describes.
        TrainingError: The loss or gradient is not finite.
        ConfigError: No such device, or a step needs more memory than is free.
        Interrupted: Ctrl-C or SIGTERM came; the state is saved, and ``resume`` goes on.
    """
    chosen = pick_device(device)
    config = replace(config, train=replace(config.train, precision=pick_precision(config.train.precision, chosen)))
    with RunFolder.claim(Path(out), config, resume=resume, overwrite=overwrite) as folder:
        if folder.finished:
            return load_run(out)
        model = build_model(folder.started_as(), device=chosen)
        model.set_dropout(config.train.dropout)
        check_fits(model, config.train)
        state = TrainingState(model, config.train)
        probe = Probe.of(model, config.train)  # before a resume, so that it sees the start
        folder.begin(model, state)
        model.run_id = folder.run_id
        if probe and not state.n_steps:
            folder.add_frame(probe.frame())
        with (
            _stop_requests() as stopped,
            shown(folder.run_id, config.train.n_steps, state.n_steps, visible=progress) as tell,
        ):
            for step in train(model, config=config.train, state=state):
                folder.add(step)
                if probe and probe.due(state.n_steps):
                    folder.add_frame(probe.frame())  # before the checkpoint, which no frame may lack
                tell(step)
                if stopped.is_set():
                    folder.checkpoint(state)
                    raise Interrupted(
                        f"stopped after {state.n_steps} steps, all saved: go on with --resume --out {out}"
                    ) from stopped.by
                if state.n_steps % config.train.checkpoint_every == 0:
                    folder.checkpoint(state)
        folder.checkpoint(state)  # before the evaluation, which may be cut off
        folder.finish(model, state, _final(model, config.train))
    return load_run(out)


def _final(model: FrozenPretrainedTransformer, config: TrainConfig) -> Evaluation:
    return evaluate(model, split="test", n_examples=1024, seed=config.seed)


def pick_device(device: str | None) -> torch.device:
    """The device called ``device``; None is CUDA where there is one, else the CPU.

    Raises:
        ConfigError: The device is not there.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = device.partition(":")[0]
    if not available.get(kind, False):
        there = ", ".join(name for name, has in available.items() if has)
        raise ConfigError(f"no device {device!r} on this machine; there are: {there}")
    return torch.device(device)


class _StopRequest(threading.Event):
    """Set when the run is to stop."""

    by: KeyboardInterrupt | None = None
    """What asked for it, where that was not Ctrl-C."""


@contextlib.contextmanager
def _stop_requests() -> Iterator[_StopRequest]:
    """An event that Ctrl-C and SIGTERM set within the block, so that no step is cut in half.

    A second Ctrl-C breaks in. A second SIGTERM does not: schedulers send it to parent and child, and the parent hands
    on its own. A signal that is ignored stays so.
    """
    stopped = _StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stopped  # only the main thread hears signals
        return

    def ask(number: int, frame: FrameType | None) -> None:
        by = Terminated() if number == signal.SIGTERM else None
        if not stopped.is_set():
            stopped.by = by
            stopped.set()
        elif by is None:
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, ask)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

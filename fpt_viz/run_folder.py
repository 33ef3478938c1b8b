"""One run's folder while it is written: claimed by one process, appended to, checkpointed, sealed at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
from dataclasses import asdict, replace
from datetime import UTC, datetime
import hashlib
from importlib.metadata import version
import json
import os
from pathlib import Path
import platform
import socket
import sys
from typing import Any

from filelock import FileLock, Timeout
import torch

from fpt_viz import registry
from fpt_viz.backbones._inits import check_start
from fpt_viz.backbones._own_files import split_path
from fpt_viz.config import RunConfig
from fpt_viz.errors import ConfigError, RecordError, RunFolderError, UnknownNameError
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import Evaluation, Ledger, Step, store
from fpt_viz.records.run import (
    ADAPTER,
    ADAPTER_INITIAL,
    CHECKPOINT,
    CONFIG,
    ENVIRONMENT,
    LEDGER,
    LOCK,
    RESULT,
    SEALED,
    STEPS,
    commit_in,
    init_name,
    seal,
)
from fpt_viz.records.steps import read_steps, write_steps
from fpt_viz.records.telemetry import FOLDER, TelemetryFrame, check_complete, frame_path, frames_of
from fpt_viz.training_state import TrainingState

HOLDER = "writer.json"
CAPTURED = (
    *("attention_maps*.safetensors", "head_statistics*.safetensors", "ablate_*.json", "evaluate*.json"),
    *("patch_*.safetensors", "routing_breakdown*.safetensors", "what_moved*.safetensors"),
)
"""What measures leave beside a run: removed with it."""


class RunFolder:
    """A folder that this process alone writes a run into."""

    def __init__(
        self, path: Path, config: RunConfig, *, finished: bool = False, resumed: bool = False, replaces: bool = False
    ) -> None:
        self.path, self.config, self.finished, self.resumed, self.replaces = path, config, finished, resumed, replaces
        self.goes_on = False
        """Whether it is the run that the folder holds, which may have no checkpoint yet."""
        digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()[:8]
        task = Path(config.task.name).stem
        backbone = config.backbone.name.replace(":", "-").replace("/", "-")
        init = init_name(config.backbone.init).replace(" ", "-")
        self.run_id = f"{task}-{backbone}-{init}-s{config.train.seed}-{digest}"
        self._pending: list[Step] = []

    @classmethod
    @contextlib.contextmanager
    def claim(cls, path: Path, config: RunConfig, *, resume: bool, overwrite: bool) -> Iterator[RunFolder]:
        """The folder ``path`` for the run that ``config`` describes, locked within the block.

        Raises:
            RunFolderError: It holds a run and neither ``resume`` nor ``overwrite`` is given, it holds another run than
                ``config`` describes, or another process writes to it.
        """
        if split_path(config.backbone.name) is not None:
            raise ConfigError(
                f"no run is recorded of the backbone in {config.backbone.name}, since reading it back would run that "
                "file: train it step by step, with fpt_viz.train and a model of fpt_viz.load_backbone, or put the file "
                "into fpt_viz/backbones"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"{path} cannot be made: {error.strerror or error}") from error
        lock = FileLock(path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunFolderError(
                f"{path} is being written by {_holder(path)}: wait for it, or choose another folder"
            ) from None
        except OSError as error:
            raise RunFolderError(f"{path} cannot be written: {error.strerror or error}") from error
        try:
            me = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
            store.write_json(path / HOLDER, me)
            yield cls._opened(path, config, resume=resume, overwrite=overwrite)
        finally:
            (path / HOLDER).unlink(missing_ok=True)
            lock.release()

    @classmethod
    def _opened(cls, path: Path, config: RunConfig, *, resume: bool, overwrite: bool) -> RunFolder:
        """The folder after the question what to do with a run that it holds."""
        if overwrite:
            return cls(path, config, replaces=True)
        if not (path / CONFIG).exists():
            for name in (RESULT, CHECKPOINT, ADAPTER):
                if (path / name).exists():
                    raise RecordError(
                        f"{path} holds {name} of a run, but its {CONFIG} is missing: restore it, overwrite the run, or "
                        "choose another folder"
                    )
            return cls(path, config)
        if not resume:
            raise RunFolderError(f"{path} holds a run already: resume it, overwrite it, or choose another folder")
        _check_same(path, config)
        finished, resumed = (path / RESULT).exists(), (path / CHECKPOINT).exists()
        folder = cls(path, config, finished=finished, resumed=resumed, replaces=not resumed)
        folder.goes_on = True
        return folder

    def started_as(self) -> RunConfig:
        """The config, with weights and data at the commits of the Hub that a run which goes on here was started on."""
        if not self.goes_on:
            return self.config
        ledger, here = Ledger.load(self.path / LEDGER), store.read_json(self.path / ENVIRONMENT)
        backbone = commit_in(ledger.backbone, self.path / LEDGER)
        data = commit_in(here.get("data", {}), self.path / ENVIRONMENT)
        return self.config.at_commits(backbone=backbone, data=data).found_from(self.path)

    def begin(self, model: FrozenPretrainedTransformer, state: TrainingState) -> None:
        """Write what is known before the first step, or take up the last checkpoint.

        A run that is overwritten is removed here: not before all that the new one needs was found.
        """
        data: dict[str, Any] = getattr(model.task, "source", dict)()
        sources = {"task_sha256": registry.ran_sha256(self.config.task.name), "data": data}
        _remove_parts(self.path)
        if self.replaces:
            _remove_run(self.path)
        if self.resumed:
            self._check_sources(sources, model)
            steps = self._restored(state)
            model.step = state.n_steps
        else:
            steps = ()
            store.write_json(self.path / LEDGER, model.ledger().to_json())
            store.write_json(self.path / ENVIRONMENT, environment(state.device) | sources)
            store.write_tensors(self.path / ADAPTER_INITIAL, dict(model.trained_tensors()), "adapter", {"step": 0})
            store.write_bytes(self.path / CONFIG, self.config.to_toml().encode())
        write_steps(self.path / STEPS, steps)

    def _check_sources(self, sources: Mapping[str, Any], model: FrozenPretrainedTransformer) -> None:
        """Raise where the run would go on with another task, other data or other weights than it was started on."""
        then = store.read_json(self.path / ENVIRONMENT)
        was, now = {"data": sources["data"]} | then, sources
        ledger = Ledger.load(self.path / LEDGER)
        check_start(model.backbone.provenance, ledger, self.path)
        what = ""
        if was.get("task_sha256") != now["task_sha256"]:
            what = f"{self.config.task.name} is another file"
            detail = f"SHA-256 {now['task_sha256']}, then {was.get('task_sha256')}"
        elif was["data"] != now["data"]:
            what, detail = "the data are others", _apart(now["data"], was["data"])
        elif moved := model.verify(ledger):
            what = "the backbone's weights are others"
            detail = f"{len(moved)} frozen tensors differ, such as {moved[0]}"
        if what:
            raise RunFolderError(
                f"{what} than the run in {self.path} was started on: {detail}; restore what was, or start anew with "
                "overwrite"
            )

    def _restored(self, state: TrainingState) -> tuple[Step, ...]:
        """The steps up to the last checkpoint, which ``state`` becomes."""
        tensors, fields = store.read_tensors(self.path / CHECKPOINT, "checkpoint")
        state.restore(tensors, fields, str(self.path / CHECKPOINT))
        steps = _whole_steps(self.path / STEPS)[: state.n_steps]
        if len(steps) < state.n_steps:
            raise RecordError(f"{self.path / STEPS} holds {len(steps)} steps, the checkpoint {state.n_steps}")
        for step, frame in frames_of(self.path).items():
            if step > state.n_steps:
                frame.unlink()
        check_complete(self.path, self.config.train.telemetry_every, state.n_steps)
        return steps

    def add(self, step: Step) -> None:
        """Take ``step`` for ``steps.jsonl``, which it reaches with the next checkpoint."""
        self._pending.append(step)

    def add_frame(self, frame: TelemetryFrame) -> None:
        """Save a capture at once, so that no checkpoint of a later step lacks it; a resume cuts off later ones."""
        frame.save(frame_path(self.path, frame.step))

    def checkpoint(self, state: TrainingState) -> None:
        """Save ``state`` in the place of the last checkpoint, the steps before it."""
        self._flush()
        store.write_tensors(self.path / CHECKPOINT, state.tensors(), "checkpoint", state.fields())

    def finish(self, model: FrozenPretrainedTransformer, state: TrainingState, evaluation: Evaluation) -> None:
        """Save the trained tensors, prove that nothing frozen moved, and seal the folder."""
        self.checkpoint(state)
        store.write_tensors(self.path / ADAPTER, dict(model.trained_tensors()), "adapter", {"step": state.n_steps})
        moved = model.verify(Ledger.load(self.path / LEDGER))
        started_on = store.read_json(self.path / ENVIRONMENT)
        result = {
            "run_id": self.run_id,
            "status": "solved" if state.done(self.config.train) else "finished",
            "n_steps": state.n_steps,
            "steps_to_solve": state.steps_to_solve,
            "seconds": state.elapsed_seconds,
            "evaluation": asdict(evaluation),
            "frozen_intact": not moved,
            "moved": moved,
            "n_cached": state.n_cached,
            "n_parts": state.n_parts,
            "task_sha256": started_on.get("task_sha256"),
            "data": started_on.get("data", {}),
            "note": model.task.note,
        }
        seal(self.path, result)

    def _flush(self) -> None:
        """Append the steps since the last checkpoint to ``steps.jsonl``; what a failure leaves, a resume cuts off."""
        try:
            with (self.path / STEPS).open("a", encoding="utf-8") as log:
                log.writelines(f"{step.to_json()}\n" for step in self._pending)
                log.flush()
                os.fsync(log.fileno())
        except OSError as error:
            raise RecordError(f"{self.path / STEPS} could not be written: {error.strerror or error}") from error
        self._pending.clear()


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, for ``environment.json``."""
    packages = ("fpt_viz", "torch", "transformers", "numpy", "safetensors")
    return {
        "python": sys.version.split()[0],
        **{name: version(name) for name in packages},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "started": _now(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _holder(path: Path) -> str:
    """The process that holds the lock, in words."""
    try:
        held = store.read_json(path / HOLDER)
        return f"process {held['pid']} on {held['host']} since {held['since']}"
    except (RecordError, KeyError, TypeError):
        return "another process"


def _whole_steps(path: Path) -> tuple[Step, ...]:
    """The steps in ``path``, without a last line that a kill left half written."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    whole, newline, _ = text.rpartition("\n")
    if text and not text.endswith("\n"):
        store.write_bytes(path, (whole + newline).encode())
    return read_steps(path)


def _check_same(path: Path, config: RunConfig) -> None:
    """Raise where the folder's run is another than ``config`` describes; the message names an option that differs."""
    try:
        there = RunConfig.load(path / CONFIG)
    except (ConfigError, UnknownNameError) as error:
        raise RecordError(f"{path / CONFIG} is no whole config of a run: {error}") from error
    if _in_any_place(there) != _in_any_place(config):
        wanted, found = _flat(_in_any_place(config).to_dict()), _flat(_in_any_place(there).to_dict())
        differing = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        name = differing[0]
        raise RunFolderError(
            f"{path} holds another run: {name} is {found.get(name)!r} there and {wanted.get(name)!r} here"
            f"{f' ({len(differing)} options differ)' if len(differing) > 1 else ''}: choose another folder"
        )


def _in_any_place(config: RunConfig) -> RunConfig:
    """``config`` with the run that it starts from by its folder's name alone: that folder may have been moved.

    Whether it is still the same network is compared by its checksum, when it is loaded.
    """
    return replace(config, backbone=replace(config.backbone, init=Path(config.backbone.init).name))


def _apart(now: Mapping[str, Any], then: Mapping[str, Any]) -> str:
    """The first difference between what a run is on ``now`` and what it was on ``then``."""
    flat_now, flat_then = _flat(dict(now)), _flat(dict(then))
    name = min(name for name in {*flat_now, *flat_then} if flat_now.get(name) != flat_then.get(name))
    return f"{name} {flat_now.get(name)}, then {flat_then.get(name)}"


def _flat(data: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested options by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return flat


def _remove_run(path: Path) -> None:
    """Remove the files of a run and what was captured from it; nothing else in the folder.

    A kill on the way leaves no finished run, no checkpoint without its config, and a config to overwrite again.
    """
    for name in (RESULT, CHECKPOINT):
        (path / name).unlink(missing_ok=True)
    for pattern in CAPTURED:
        for file in path.glob(pattern):
            file.unlink()
    for frame in frames_of(path).values():
        frame.unlink()
    with contextlib.suppress(OSError):
        (path / FOLDER).rmdir()  # unless it holds files of others
    for name in sorted(SEALED, key=lambda name: name == CONFIG):  # the config last
        (path / name).unlink(missing_ok=True)


def _remove_parts(path: Path) -> None:
    """Remove what a kill in the middle of a save left of the run's files."""
    for name in (*SEALED, RESULT, CHECKPOINT, HOLDER):
        for part in path.glob(f".{name}.*.part"):
            part.unlink(missing_ok=True)
    for part in path.glob(f"{FOLDER}/.step_*.part"):
        part.unlink(missing_ok=True)

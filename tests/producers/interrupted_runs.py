"""A program for the tests of resuming: starts one run for each way to be cut off, each in a process of its own.

``python interrupted_runs.py FOLDER`` leaves ``FOLDER/<way>``, a run cut off in that way, and prints as JSON how each
process ended and what it said. It imports everything once and forks, so that ten runs cost little more than one.
"""

from __future__ import annotations

from collections.abc import Callable
import json
import os
from pathlib import Path
import signal
import sys

from fpt_viz import run_folder
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.errors import FptVizError
from fpt_viz.records import run as run_files, store
from fpt_viz.run_folder import RunFolder
from fpt_viz.train import run

CONFIG = RunConfig(
    task=TaskConfig(name="bit_xor", options={"n_bits": 2}),
    backbone=BackboneConfig(name="gpt2-tiny-random", init="random", n_layers=1),
    train=TrainConfig(n_steps=11, batch_size=8, learning_rate=1e-2, checkpoint_every=4, validate_every=3, seed=5),
)


def die() -> None:
    """End this process as the kernel would: at once, with nothing flushed or cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(index: int, act: Callable[[], None]) -> Callable[[], None]:
    """A way to be cut off: ``act`` when the step with that index was taken."""

    def install() -> None:
        add = RunFolder.add

        def adding(self, step):
            add(self, step)
            if step.index == index:
                act()

        RunFolder.add = adding

    return install


def at_write(name: str, number: int, *, where: str) -> Callable[[], None]:
    """A way to be cut off: in the middle or at the end of the ``number``-th write of the file ``name``."""

    def install() -> None:
        write, replace, seen = Path.write_bytes, Path.replace, []

        def writing(self, content):
            if self.name.startswith(f".{name}."):
                seen.append(self)
                if where == "middle" and len(seen) == number:
                    write(self, content[: len(content) // 2])
                    die()
            return write(self, content)

        def replacing(self, target):
            if where == "end" and Path(target).name == name and len(seen) == number:
                die()
            return replace(self, target)

        Path.write_bytes, Path.replace = writing, replacing

    return install


def between_steps_and_checkpoint() -> None:
    write_tensors, seen = store.write_tensors, []

    def writing(path, *rest):
        if path.name == run_files.CHECKPOINT:
            seen.append(path)
            if len(seen) == 2:
                die()
        write_tensors(path, *rest)

    store.write_tensors = writing


def in_the_middle_of_steps() -> None:
    flush, seen = RunFolder._flush, []

    def flushing(self):
        seen.append(self)
        if len(seen) == 2:
            text = "".join(f"{step.to_json()}\n" for step in self._pending)
            with (self.path / run_files.STEPS).open("a") as log:
                log.write(text[:-20])
            die()
        flush(self)

    RunFolder._flush = flushing


def before_sealing() -> None:
    run_folder.seal = lambda *_: die()


WAYS: dict[str, Callable[[], None]] = {
    "killed-before-its-config": at_write("config.toml", 1, where="end"),
    "killed-before-a-checkpoint": at_step(2, die),
    "killed-after-a-checkpoint": at_step(5, die),
    "killed-at-the-last-step": at_step(10, die),
    "killed-in-the-middle-of-the-first-checkpoint": at_write("checkpoint.safetensors", 1, where="middle"),
    "killed-in-the-middle-of-a-checkpoint": at_write("checkpoint.safetensors", 2, where="middle"),
    "killed-as-a-checkpoint-takes-its-place": at_write("checkpoint.safetensors", 2, where="end"),
    "killed-between-steps-and-checkpoint": between_steps_and_checkpoint,
    "killed-in-the-middle-of-steps": in_the_middle_of_steps,
    "killed-in-the-middle-of-the-last-weights": at_write("adapter.safetensors", 1, where="middle"),
    "killed-before-sealing": before_sealing,
    "asked-to-stop-by-ctrl-c": at_step(6, lambda: os.kill(os.getpid(), signal.SIGINT)),
    "asked-to-stop-by-sigterm": at_step(1, lambda: os.kill(os.getpid(), signal.SIGTERM)),
}


def forked(act: Callable[[], str]) -> tuple[int, str]:
    """How a process that does ``act`` ended (negative: by that signal), and what ``act`` returned or raised."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            told = act()
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        os.write(writing, told.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status), told


def two_on_one_folder(path: Path) -> str:
    """What the second of two processes is told; the first is this one."""

    def second() -> str:
        try:
            run(CONFIG, path, resume=True)
        except FptVizError as error:
            return f"{type(error).__name__}: {error}"
        return "both write"

    with RunFolder.claim(path, CONFIG, resume=False, overwrite=False):
        return forked(second)[1]


def main(folder: Path) -> None:
    ends = {}
    for way, install in WAYS.items():

        def cut_off(way: str = way, install: Callable[[], None] = install) -> str:
            install()
            run(CONFIG, folder / way)
            return "finished"

        ends[way] = forked(cut_off)
    ends["two-on-one-folder"] = (os.getpid(), two_on_one_folder(folder / "two-on-one-folder"))
    json.dump(ends, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""SIGTERM, which schedulers and containers send, ends a command as Ctrl-C does, with an exit code of its own."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
import os
import shlex
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import long_runs
import psutil
import pytest

from fpt_viz.cli import looking, main
from fpt_viz.cli.answer import Answer, Table
from fpt_viz.engines.in_process import InProcess
from fpt_viz.records import load_run
from fpt_viz.records.telemetry import frame_path
from fpt_viz.reproduce import Choice, reproduce
from fpt_viz.run_folder import RunFolder

if TYPE_CHECKING:
    from conftest import Said

TINY = ("--task", "bit_xor", "--backbone", "bert-tiny-random", "--init", "random", "--set", "n_bits=2", "n_steps=8")
SHORT = ("validate_every=2", "n_validation=8", "batch_size=4")
PROGRAM = (sys.executable, "-c", "import sys; from fpt_viz.cli import main; sys.exit(main())")


def end_this() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def ended_after(shown: list[str | Table]) -> Callable[[Namespace], Answer]:
    """A command that SIGTERM reaches before it answers."""

    def handler(arguments: Namespace) -> Answer:
        end_this()
        return Answer({}, shown)

    return handler


@pytest.fixture
def sigterm_at(monkeypatch):
    """Send SIGTERM to this process when so many steps were taken, over all runs; once or ``times`` in a row."""

    def install(n_steps: int, times: int = 1) -> None:
        add, seen = RunFolder.add, []

        def adding(self, step):
            add(self, step)
            seen.append(step)
            for _ in range(times if len(seen) == n_steps else 0):
                end_this()

        monkeypatch.setattr(RunFolder, "add", adding)

    return install


def the_line(said: Said) -> str:
    assert (said.code, said.out) == (143, "")
    [line] = [line for line in said.err.splitlines() if line.startswith("fpt-viz: ")]
    assert "Traceback" not in said.err
    return line


def test_sigterm_ends_a_command_in_one_line(call, monkeypatch):
    monkeypatch.setattr(looking, "list_names", ended_after([]))
    assert "stopped" in the_line(call("list", "tasks"))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_sigterm_does_not_cut_off_what_the_first_began(call, monkeypatch):
    tidied = []

    def handler(arguments: Namespace) -> Answer:
        try:
            end_this()
        finally:
            end_this()
            tidied.append("all")
        return Answer({}, [])

    monkeypatch.setattr(looking, "list_names", handler)
    assert "stopped" in the_line(call("list", "tasks"))
    assert tidied == ["all"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_sigterm_does_not_break_into_the_step(call, sigterm_at, tmp_path):
    sigterm_at(3, times=2)
    assert the_line(call("train", *TINY, *SHORT, "--out", tmp_path)).startswith("fpt-viz: stopped after 3 steps, all ")
    assert len((tmp_path / "steps.jsonl").read_text().splitlines()) == 3


def test_a_run_that_is_to_ignore_sigterm_does(call, sigterm_at, tmp_path):
    """As under nohup, which has SIGHUP ignored."""
    sigterm_at(3)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert call("train", *TINY, *SHORT, "--out", tmp_path).code == 0
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / "result.json").exists()


def test_after_sigterm_a_run_is_saved_and_the_line_that_is_given_goes_on(call, sigterm_at, tmp_path):
    sigterm_at(3)
    line = the_line(call("train", *TINY, *SHORT, "--out", tmp_path / "run"))
    assert line.startswith("fpt-viz: stopped after 3 steps, all saved: go on with fpt-viz train ")
    assert main(shlex.split(line.partition("go on with fpt-viz ")[2])) == 0
    assert main(["train", *TINY, *SHORT, "--out", str(tmp_path / "unbroken")]) == 0
    ended, unbroken = (load_run(tmp_path / name) for name in ("run", "unbroken"))
    assert [step.loss for step in ended.steps] == [step.loss for step in unbroken.steps]


@pytest.mark.slow
def test_after_sigterm_a_list_keeps_what_is_finished_and_the_same_command_goes_on(call, sigterm_at, tmp_path):
    command = ["reproduce", "table_14", "--scale", "smoke", "--engine", "in_process", "--out", tmp_path]
    sigterm_at(6)  # runs of 4 steps: in the middle of the second
    assert "1 of 3 runs ended and the others saved: the same command goes on" in the_line(call(*command))
    [first] = tmp_path.glob("runs/*/result.json")
    kept = first.read_bytes()
    assert "seed 0 not finished" in (tmp_path / "table_14-smoke/table.md").read_text()
    assert call(*command).code == 0
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 3
    assert first.read_bytes() == kept


def test_who_hears_sigterm_already_goes_on_hearing_it(call, monkeypatch):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        monkeypatch.setattr(looking, "list_names", ended_after(["there"]))
        assert call("list", "tasks").code == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_runs_that_were_cut_off_are_not_said_to_be_saved(tmp_path):
    class CutOff(InProcess):
        n_cut_off = 1

        def run(self, jobs):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="0 of 3 runs ended, 1 cut off before it was saved, and the others"):
        reproduce("table_14", out=tmp_path, engine=CutOff(), choice=Choice(scale="smoke"))


@pytest.mark.slow
@pytest.mark.parametrize("n_signals", [1, 3])
def test_after_sigterm_every_worker_has_saved_its_run_and_none_is_left(tmp_path, n_signals):
    words = ("reproduce", long_runs.__file__, "--scale", "smoke", "--out", str(tmp_path), "--workers", "2")
    parent = subprocess.Popen([*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while sum(frame_path(run, long_runs.FIRST_FRAME).exists() for run in tmp_path.glob("runs/*")) < 2:
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = psutil.Process(parent.pid).children()
    started = list(tmp_path.glob("runs/*"))
    assert len(workers) == len(started) == 2
    assert not list(tmp_path.glob("runs/*/checkpoint.safetensors"))  # what is there later was saved by being stopped
    for _ in range(n_signals):  # a scheduler sends more than one, while the workers save
        parent.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    stdout, stderr = parent.communicate(timeout=90)
    assert (parent.returncode, stdout) == (143, "")
    assert stderr.splitlines()[-1].endswith("0 of 3 runs ended and the others saved: the same command goes on")
    assert not any(worker.is_running() for worker in workers)
    for run in started:
        assert (run / "checkpoint.safetensors").exists()
        assert len((run / "steps.jsonl").read_text().splitlines()) >= long_runs.FIRST_FRAME

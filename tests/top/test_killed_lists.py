"""Lists of runs whose worker or parent is killed: no finished run is lost, and the table ends up the same."""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import list_of_runs
import psutil
import pytest

from fpt_viz.records import load_run
from fpt_viz.reproduce import result_in

FILE = list_of_runs.__file__
N_RUNS = 6
PROGRAM = (sys.executable, "-c", "import sys; from fpt_viz.cli import main; sys.exit(main())")
TABLES = ("table.md", "table.html", "table.csv", "table.tex")


def command(out: Path, *more: str) -> list[str]:
    return [*PROGRAM, "reproduce", FILE, "--scale", "smoke", "--out", str(out), "--threads", "1", *more]


def started(out: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command(out, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(happens: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def finished(out: Path) -> set[Path]:
    return {path.parent for path in out.glob("runs/*/result.json")}


def in_the_middle(out: Path, n_finished: int) -> bool:
    """Whether so many runs are finished, and another has saved a checkpoint."""
    return len(finished(out)) >= n_finished and any(
        not (path.parent / "result.json").exists() for path in out.glob("runs/*/checkpoint.safetensors")
    )


def worker_of(parent: subprocess.Popen[str]) -> psutil.Process:
    [worker] = psutil.Process(parent.pid).children()
    return worker


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The list done without a break, in one process."""
    out = tmp_path_factory.mktemp("lists") / "unbroken"
    done = subprocess.run(command(out, "--engine", "in_process"), capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return out


def same_tables(out: Path, unbroken: Path) -> None:
    [ours], [theirs] = (list(folder.glob("list_of_runs-smoke")) for folder in (out, unbroken))
    assert len(finished(out)) == N_RUNS
    for name in (*TABLES, "figure.pdf", "figure.svg"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_parent_lose_no_finished_run(tmp_path, unbroken):
    out = tmp_path / "killed"
    parent = started(out, "--workers", "1")
    until(lambda: in_the_middle(out, 1))
    os.kill(worker_of(parent).pid, signal.SIGKILL)
    until(lambda: in_the_middle(out, 3))
    worker, kept = worker_of(parent), {path: (path / "result.json").read_bytes() for path in finished(out)}
    parent.kill()
    parent.communicate()
    until(lambda: not worker.is_running())  # it saves its run and ends by itself
    again = subprocess.run(command(out, "--workers", "1"), capture_output=True, text=True, timeout=250)
    assert again.returncode == 0, again.stderr
    assert len(kept) >= 3
    for path, content in kept.items():
        assert (path / "result.json").read_bytes() == content
        assert f"{path.name}," not in again.stderr  # not run again
    same_tables(out, unbroken)


@pytest.mark.slow
def test_two_workers_make_the_same_table_and_ctrl_c_saves_everything(tmp_path, unbroken):
    out = tmp_path / "stopped"
    parent = started(out, "--workers", "2")
    until(lambda: in_the_middle(out, 1))
    parent.send_signal(signal.SIGINT)
    stdout, stderr = parent.communicate(timeout=90)
    assert (parent.returncode, stdout) == (130, "")
    assert "the same command goes on" in stderr.splitlines()[-1]
    shown = (out / "list_of_runs-smoke/table.md").read_text()
    assert "not finished" in shown
    again = subprocess.run(command(out, "--workers", "2"), capture_output=True, text=True, timeout=250)
    assert again.returncode == 0, again.stderr
    same_tables(out, unbroken)


@pytest.mark.slow
def test_a_deleted_record_alone_is_made_again(tmp_path, unbroken):
    import shutil

    out = Path(shutil.copytree(unbroken, tmp_path / "deleted"))
    gone = sorted(finished(out))[0]
    shutil.rmtree(gone)
    (out / "list_of_runs-smoke/plan.json").write_text('{"half": ')  # and the plan half written
    again = subprocess.run(command(out, "--workers", "1"), capture_output=True, text=True, timeout=250)
    assert again.returncode == 0, again.stderr
    assert f"1 of 1: {gone.name}," in again.stderr
    same_tables(out, unbroken)


@pytest.mark.slow
def test_table_and_figure_are_made_again_from_the_records_alone(tmp_path, unbroken):
    import shutil

    out = Path(shutil.copytree(unbroken, tmp_path / "moved"))
    folder = out / "list_of_runs-smoke"
    for name in (*TABLES, "figure.pdf", "figure.svg"):
        (folder / name).unlink()
    result_in(folder, experiment=FILE).save()
    same_tables(out, unbroken)


@pytest.mark.slow
def test_the_runs_of_a_list_are_those_of_train(unbroken):
    records = [load_run(path) for path in finished(unbroken)]
    assert sorted((r.config["trained"], r.config["train"]["seed"]) for r in records) == [
        ([group], seed) for group in ("all", "output") for seed in (0, 1, 2)
    ]
    assert all(len(record.steps) == list_of_runs.N_STEPS and record.result["frozen_intact"] for record in records)

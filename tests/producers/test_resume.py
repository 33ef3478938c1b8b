"""A run that is cut off, however and whenever, goes on to the very weights of an unbroken one."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
import runpy
import shutil
import subprocess
import sys

import pytest
import torch

from fpt_viz.errors import RecordError
from fpt_viz.records import RunRecord, load_run, store
from fpt_viz.run_folder import RunFolder
from fpt_viz.train import run

PROGRAM = Path(__file__).with_name("interrupted_runs.py")
CUT_OFF = runpy.run_path(str(PROGRAM))
CONFIG, WAYS = CUT_OFF["CONFIG"], list(CUT_OFF["WAYS"])


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> RunRecord:
    return run(CONFIG, tmp_path_factory.mktemp("unbroken") / "run")


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory) -> tuple[Path, dict[str, list]]:
    """The folder with every run that was cut off, and how each process ended."""
    folder = tmp_path_factory.mktemp("cut_off")
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    program = [sys.executable, str(PROGRAM), str(folder)]
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def check_equals_unbroken(record: RunRecord, unbroken: RunRecord) -> None:
    """Same weights bit for bit, same steps with no gap and none twice, and nothing else left in the folder."""
    found, wanted = (store.read_tensors(one.path / "adapter.safetensors", "adapter")[0] for one in (record, unbroken))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert [step.index for step in record.steps] == list(range(11))
    assert [_without_time(step) for step in record.steps] == [_without_time(step) for step in unbroken.steps]
    assert record.evaluation == unbroken.evaluation
    assert record.result["frozen_intact"]
    names = {path.name for path in record.path.iterdir()} - {"writer.lock"}
    assert names == {path.name for path in unbroken.path.iterdir()} - {"writer.lock"}


def _without_time(step) -> dict:
    row = json.loads(step.to_json())
    del row["elapsed_seconds"]
    return row


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.slow
def test_a_run_that_was_cut_off_ends_as_an_unbroken_one(way, cut_off, unbroken):
    folder, ends = cut_off
    code, told = ends[way]
    if way.startswith("killed"):
        assert (code, told) == (-9, "")
    else:
        assert told.startswith("Interrupted: stopped after")
    with pytest.raises(RecordError, match=r"not finished|holds no run"):
        load_run(folder / way)

    check_equals_unbroken(run(CONFIG, folder / way, resume=True), unbroken)


@pytest.mark.slow
def test_ctrl_c_saves_the_very_step_and_says_how_to_go_on(cut_off):
    folder, ends = cut_off
    _, told = ends["asked-to-stop-by-ctrl-c"]
    assert (
        told
        == f"Interrupted: stopped after 7 steps, all saved: go on with --resume --out {folder}/asked-to-stop-by-ctrl-c"
    )


@pytest.mark.slow
def test_a_second_process_is_told_who_holds_the_folder(cut_off):
    folder, ends = cut_off
    pid, told = ends["two-on-one-folder"]
    assert told.startswith(f"RunFolderError: {folder}/two-on-one-folder is being written by process {pid} on ")


@pytest.mark.slow
def test_the_folder_is_free_again_once_its_writer_was_killed(cut_off, tmp_path):
    folder, _ = cut_off
    shutil.copytree(folder / WAYS[1], tmp_path / "run")
    assert run(CONFIG, tmp_path / "run", overwrite=True).result["n_steps"] == 11


# A full disk


def full(monkeypatch, file: str, number: int) -> None:
    """From the ``number``-th write of ``file`` on, the disk is full; the write before the error is half done."""
    write, opened, seen = Path.write_bytes, Path.open, []
    message = os.strerror(errno.ENOSPC)

    def writing(self, content):
        if self.name.startswith(f".{file}."):
            seen.append(self)
            if len(seen) >= number:
                write(self, content[: len(content) // 2])
                raise OSError(errno.ENOSPC, message)
        return write(self, content)

    def opening(self, mode="r", *args, **options):
        found = opened(self, mode, *args, **options)
        if self.name == file and mode == "a":
            seen.append(self)
            if len(seen) >= number:
                found.writelines = lambda lines: (_ for _ in ()).throw(OSError(errno.ENOSPC, message))
        return found

    monkeypatch.setattr(Path, "write_bytes", writing)
    monkeypatch.setattr(Path, "open", opening)


@pytest.mark.parametrize(
    ("file", "number"),
    [("checkpoint.safetensors", 2), ("steps.jsonl", 3), ("adapter.safetensors", 1), ("result.json", 1)],
)
def test_a_full_disk_keeps_the_last_checkpoint_and_says_what_could_not_be_written(
    tmp_path, monkeypatch, unbroken, file, number
):
    with monkeypatch.context() as patched:
        full(patched, file, number)
        with pytest.raises(RecordError, match=rf"{file} could not be written.*No space left on device"):
            run(CONFIG, tmp_path / "run")

    _, fields = store.read_tensors(tmp_path / "run" / "checkpoint.safetensors", "checkpoint")
    assert fields["n_steps"] in (4, 8, 11)
    check_equals_unbroken(run(CONFIG, tmp_path / "run", resume=True), unbroken)


def test_a_disk_that_is_full_from_the_start_is_one_clear_error(tmp_path, monkeypatch):
    full(monkeypatch, "writer.json", 1)
    with pytest.raises(RecordError, match=r"writer\.json could not be written \(No space left on device\)"):
        run(CONFIG, tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match=r"file/run cannot be made: Not a directory"):
        run(CONFIG, tmp_path / "file" / "run")


# What is resumed must be whole


@pytest.fixture
def stopped(tmp_path, monkeypatch) -> Path:
    """A run stopped after 6 steps, with a checkpoint at 4."""
    add = RunFolder.add

    def adding(self, step):
        add(self, step)
        if step.index == 5:
            raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "add", adding)
        with pytest.raises(ZeroDivisionError):
            run(CONFIG, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_that_raised_goes_on_from_its_checkpoint(stopped, unbroken):
    check_equals_unbroken(run(CONFIG, stopped, resume=True), unbroken)


@pytest.mark.parametrize("file", ["checkpoint.safetensors", "config.toml", "ledger.json"])
@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_resuming_from_a_damaged_file_is_an_error_that_names_it_and_writes_nothing(stopped, file, damage):
    content = (stopped / file).read_bytes()
    middle = len(content) // 2
    if file == "config.toml":  # the end of a line would leave a shorter config that is whole
        middle = content.index(b"=", middle) + 1
    changed = content[:middle] if damage == "truncated" else content[:middle] + b"\x00?" + content[middle + 2 :]
    (stopped / file).write_bytes(changed)
    before = {path.name: path.read_bytes() for path in stopped.iterdir() if not path.name.startswith("writer")}

    with pytest.raises(Exception, match=rf"{file}"):
        run(CONFIG, stopped, resume=True)

    after = {path.name: path.read_bytes() for path in stopped.iterdir() if not path.name.startswith("writer")}
    if file != "ledger.json":  # which is read at the end alone
        assert after == before


def test_resuming_with_steps_missing_is_an_error_that_counts_them(stopped):
    lines = (stopped / "steps.jsonl").read_text().splitlines(keepends=True)
    (stopped / "steps.jsonl").write_text("".join(lines[:2]))
    with pytest.raises(RecordError, match=r"steps\.jsonl holds 2 steps, the checkpoint 4"):
        run(CONFIG, stopped, resume=True)

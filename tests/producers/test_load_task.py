from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
from pathlib import Path
import pickle
import py_compile
import sys

import pytest
import torch

from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.run_folder import RunFolder
from fpt_viz.tasks import load_task
from fpt_viz.train import run

OWN_TASK = '''
from __future__ import annotations
from dataclasses import dataclass
from fpt_viz.tasks.bit_xor import BitXor

__all__ = ["Own"]

@dataclass(frozen=True)
class Own(BitXor):
    """Bit XOR with an option of its own."""

    colour: str = "red"
'''


def test_an_unknown_task_is_named_with_its_nearest():
    with pytest.raises(UnknownNameError, match=r"no task 'bit_xr'\. Did you mean 'bit_xor'"):
        load_task("bit_xr")


def test_a_path_loads_a_task_whose_name_is_a_path_that_loads_it_again(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN_TASK)
    task = load_task(str(path), n_bits=3, colour="blue")

    assert task.sample(2, torch.Generator()).inputs.shape == (2, 6, 1)
    assert load_task(task.name, **task.options()) == task


def test_a_file_without_a_task_is_refused(tmp_path):
    path = tmp_path / "other.py"
    path.write_text("__all__ = ['number']\nnumber = 3\n")

    with pytest.raises(ConfigError, match="its public name 3 is no subclass of"):
        load_task(str(path))


def test_an_option_without_default_must_be_given(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        OWN_TASK.replace("class Own(BitXor)", "class Own(BitXor)")
        .replace("@dataclass(frozen=True)", "@dataclass(frozen=True, kw_only=True)")
        .replace('str = "red"', "str")
    )

    with pytest.raises(ConfigError, match="needs the option colour, which has no default"):
        load_task(str(path))


@pytest.fixture
def writes_bytecode(monkeypatch) -> None:
    """As Python is outside our tests: it may write and read ``__pycache__``."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)


@pytest.mark.usefixtures("writes_bytecode")
def test_what_runs_is_what_the_file_holds_however_fast_it_was_edited(tmp_path):
    path = tmp_path / "own.py"
    colours = []
    for colour in ("red", "tan", "sky"):  # of one length, and of one time of change
        path.write_text(OWN_TASK.replace("red", colour))
        os.utime(path, (1e9, 1e9))
        colours.append(load_task(str(path)).colour)
    assert colours == ["red", "tan", "sky"]
    assert [one.name for one in tmp_path.iterdir()] == ["own.py"]


@pytest.mark.usefixtures("writes_bytecode")
def test_compiled_code_beside_the_file_does_not_run_in_its_place(tmp_path):
    path, other = tmp_path / "own.py", tmp_path / "other.py"
    path.write_text(OWN_TASK)
    other.write_text(OWN_TASK.replace("red", "tan"))
    planted = Path(importlib.util.cache_from_source(str(path)))
    py_compile.compile(str(other), str(planted), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    assert load_task(str(path)).colour == "red"


def test_a_run_records_the_checksum_of_the_task_that_ran_and_not_of_a_later_edit(tmp_path, monkeypatch):
    path = tmp_path / "own.py"
    path.write_text(OWN_TASK)
    wanted = hashlib.sha256(path.read_bytes()).hexdigest()
    begin = RunFolder.begin

    def edited_before(self, *args):
        path.write_text(OWN_TASK.replace("red", "tan"))
        begin(self, *args)

    monkeypatch.setattr(RunFolder, "begin", edited_before)
    config = RunConfig(
        task=TaskConfig(name=str(path), options={"n_bits": 2}),
        backbone=BackboneConfig(name="bert-tiny-random", init="random"),
        train=TrainConfig(n_steps=1, batch_size=2),
    )
    assert run(config, tmp_path / "run", progress=False).result["task_sha256"] == wanted


def test_a_task_of_a_file_has_a_source_and_can_be_pickled(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN_TASK)
    task = load_task(str(path), n_bits=3)
    assert 'colour: str = "red"' in inspect.getsource(type(task))
    assert pickle.loads(pickle.dumps(task)) == task

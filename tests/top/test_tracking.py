"""Steps reach a tracker by the calls that it documents; one that is not installed is an error with its cure."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from fpt_viz.errors import SourceError, UnknownNameError
from fpt_viz.records import load_run
from fpt_viz.tracking import NAMES, Tracker, hand_over, tracker


class Told:
    """Stands for the module of a tracker, and keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *words, **options: self.calls.append((name, words, options))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_steps_reach_weights_and_biases_and_trackio(name, trained, monkeypatch):
    told = Told()
    monkeypatch.setitem(sys.modules, name, told)
    record = load_run(trained)
    log = tracker(name, "tiny", record.config, project="p")
    assert isinstance(log, Tracker)
    hand_over(record, log)
    (first, _, options), *logged, (last, _, _) = told.calls
    assert (first, last) == ("init", "finish")
    assert (options["project"], options["name"]) == ("p", "tiny")
    assert options["config"]["task.options.n_bits"] == 3
    assert [call[2]["step"] for call in logged] == [1, 2, 3, 4, 5, 6]
    assert [call[1][0]["train/loss"] for call in logged] == [step.loss for step in record.steps]
    assert ["validation/accuracy" in call[1][0] for call in logged] == [False, False, True] * 2


def test_steps_reach_tensorboard(trained, tmp_path, monkeypatch):
    written = Told()
    module = ModuleType("torch.utils.tensorboard")
    folders = []

    def writer(log_dir: str) -> Told:
        folders.append(log_dir)
        return written

    module.SummaryWriter = writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(torch.utils, "tensorboard", module, raising=False)  # where it was imported before
    record = load_run(trained)
    hand_over(record, tracker("tensorboard", "tiny", record.config, folder=tmp_path))
    assert folders == [str(tmp_path / "tiny")]
    losses = [words[1:] for name, words, _ in written.calls if name == "add_scalar" and words[0] == "train/loss"]
    assert losses == [(step.loss, step.index + 1) for step in record.steps]
    assert written.calls[-1][0] == "close"


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_that_is_not_installed_is_an_error_with_its_cure(name, monkeypatch, call, trained):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if name == "tensorboard" else name, None)
    if name == "tensorboard":
        monkeypatch.delattr(torch.utils, name, raising=False)
    with pytest.raises(SourceError, match=f"pip install {name}"):
        tracker(name, "tiny", {})
    said = call("log", trained, "--to", name)
    assert said.code == 2
    assert f"pip install {name}" in said.err


def test_an_unknown_tracker_is_an_error():
    with pytest.raises(UnknownNameError, match="Did you mean 'wandb'"):
        tracker("wandbb", "tiny", {})

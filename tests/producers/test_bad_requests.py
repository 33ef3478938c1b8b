"""What cannot be done is said in one error, before anything is written or computed."""

from __future__ import annotations

from pathlib import Path
import sys

import pytest

from fpt_viz.capture import capture_attention
from fpt_viz.cli import main
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.errors import ConfigError, RecordError, RunFolderError
from fpt_viz.loading import build_model
from fpt_viz.measures.ablate_top_heads import ablate_top_heads
from fpt_viz.measures.evaluate import evaluate
from fpt_viz.measures.head_statistics import head_statistics
from fpt_viz.train import run

TINY = BackboneConfig(name="bert-tiny-random", init="random")


def tiny_config(seed: int = 0, task: str = "bit_xor") -> RunConfig:
    return RunConfig(task=TaskConfig(name=task), backbone=TINY, train=TrainConfig(n_steps=2, batch_size=2, seed=seed))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_without_its_config_is_not_overwritten_unasked(tmp_path):
    run(tiny_config(), tmp_path)
    (tmp_path / "config.toml").unlink()
    before = contents(tmp_path)

    for resume in (False, True):
        with pytest.raises(RecordError, match=r"its config\.toml is missing"):
            run(tiny_config(seed=1), tmp_path, resume=resume)
    assert contents(tmp_path) == before

    assert run(tiny_config(seed=1), tmp_path, overwrite=True).config["train"]["seed"] == 1


def test_an_evaluation_that_is_cut_off_loses_no_step(tmp_path, monkeypatch):
    def cut_off(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["fpt_viz.train"], "_final", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(tiny_config(), tmp_path)
    assert len((tmp_path / "steps.jsonl").read_text().splitlines()) == 2
    assert run(tiny_config(), tmp_path, resume=True).result["n_steps"] == 2


def test_resuming_runs_no_file_that_only_the_folder_names(tmp_path, capsys):
    marker, payload = tmp_path / "ran", tmp_path / "payload.py"
    payload.write_text(f"open({str(marker)!r}, 'w').close()\n__all__ = ['x']\nx = 1\n")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml").write_text(tiny_config(task=str(payload)).to_toml())

    assert main(["train", "--out", str(folder), "--resume"]) == 2
    assert "give --task PATH" in capsys.readouterr().err
    assert not marker.exists()


def test_empty_choices_are_named():
    model = build_model(tiny_config())
    batch = model.task.distinct(2, "test")
    with pytest.raises(ConfigError, match="no layer is chosen"):
        capture_attention(model, batch, layers=[])
    for measure in (evaluate, head_statistics):
        with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
            measure(model, batch_size=0)
    with pytest.raises(ConfigError, match="n_random must be at least 1, got 0"):
        ablate_top_heads(model, ranking=[(0, 0)], ks=(1,), n_random=0)


def test_a_range_that_ends_before_it_begins_is_named(tmp_path, capsys):
    assert main(["capture", str(tmp_path), "--layers", "3-1"]) == 2
    assert "the range '3-1' is empty" in capsys.readouterr().err


def test_a_task_file_that_changed_is_not_resumed(tmp_path, repository):
    task = tmp_path / "my_task.py"
    text = (repository / "fpt_viz/tasks/bit_xor.py").read_text()
    task.write_text(text)
    run(tiny_config(task=str(task)), tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    task.write_text(text + "# changed\n")

    with pytest.raises(RunFolderError, match="is another file than the run"):
        run(tiny_config(task=str(task)), tmp_path / "run", resume=True)


def test_data_is_looked_for_where_the_command_line_says(made_data, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("FPT_VIZ_DATA", str(tmp_path))  # put back at the end, whatever the command sets
    assert main(["doctor", "--data", "mnist", "--data-dir", str(made_data)]) == 0
    assert "mnist train       ok" in capsys.readouterr().out
    assert main(["doctor", "--data", "mnist", "--data-dir", str(tmp_path / "none")]) == 2
    assert "no folder" in capsys.readouterr().err

"""A run folder is written by one run, refused to another, and overwritten only where that is asked for."""

from __future__ import annotations

from dataclasses import replace
import hashlib
import json
from pathlib import Path

import pytest

from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.errors import FptVizError, RecordError, RunFolderError, TrainingError, UnknownNameError
from fpt_viz.progress import shown
from fpt_viz.records import Step, load_run
from fpt_viz.run_folder import RunFolder
from fpt_viz.train import run

CONFIG = RunConfig(
    task=TaskConfig(name="bit_xor", options={"n_bits": 2}),
    backbone=BackboneConfig(name="bert-tiny-random", init="random", n_layers=1),
    train=TrainConfig(n_steps=3, batch_size=4, checkpoint_every=2),
)
FILES = {
    "config.toml", "steps.jsonl", "adapter.safetensors", "adapter_initial.safetensors", "ledger.json",
    "environment.json", "result.json", "checkpoint.safetensors",
}  # fmt: skip


def contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file but the lock."""
    files = (path for path in folder.iterdir() if path.is_file() and path.name != "writer.lock")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def folder(tmp_path) -> Path:
    """The folder of a finished run."""
    run(CONFIG, tmp_path / "run")
    return tmp_path / "run"


def test_a_finished_run_leaves_the_files_of_the_contract(folder):
    assert set(contents(folder)) == FILES


def test_a_record_says_what_was_run_and_what_came_of_it(folder):
    record = load_run(folder)
    assert RunConfig.from_dict(record.config) == CONFIG
    assert RunConfig.load(folder / "config.toml") == CONFIG
    assert (record.result["status"], record.result["n_steps"], record.result["steps_to_solve"]) == ("finished", 3, None)
    assert record.result["frozen_intact"] is True
    assert record.result["moved"] == []
    assert record.evaluation.split == "test"
    assert record.name == "bert-tiny-random random 1 layers seed 0"
    assert record.environment["device"] == "cpu"
    assert {"torch", "transformers", "python", "threads"} <= set(record.environment)
    assert record.result["run_id"].startswith("bit_xor-bert-tiny-random-random-s0-")


def test_runs_of_other_options_have_other_ids(tmp_path):
    configs = [CONFIG, replace(CONFIG, input_init="paper"), replace(CONFIG, trained=("output",))]
    assert len({RunFolder(tmp_path, config).run_id for config in configs}) == 3
    assert RunFolder(tmp_path / "elsewhere", CONFIG).run_id == RunFolder(tmp_path, CONFIG).run_id


def test_a_frozen_weight_that_moved_is_named_in_the_result(tmp_path, monkeypatch):
    name = "backbone.network.encoder.layer.0.attention.self.query.weight"
    finish = RunFolder.finish

    def flipping(self, model, *rest):
        model.get_parameter(name).data[0, 0] += 1
        finish(self, model, *rest)

    monkeypatch.setattr(RunFolder, "finish", flipping)
    record = run(CONFIG, tmp_path / "run")
    assert record.result["frozen_intact"] is False
    assert record.result["moved"] == [name]


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(folder):
    before = contents(folder)
    with pytest.raises(RunFolderError, match=r"run holds a run already: resume it, overwrite it, or choose another"):
        run(CONFIG, folder)
    assert contents(folder) == before


def test_resuming_a_finished_run_returns_it_as_it_is(folder):
    before = contents(folder)
    record = run(CONFIG, folder, resume=True)
    assert record.result == load_run(folder).result
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"train": replace(CONFIG.train, seed=7)}, r"train\.seed is 0 there and 7 here: choose"),
        ({"task": TaskConfig(name="bit_xor", options={"n_bits": 3})}, r"task\.options\.n_bits is 2 there and 3 here"),
        ({"trained": ("output",)}, r"trained is \['output', 'input', .*\] there and \['output'\] here"),
        ({"backbone": replace(CONFIG.backbone, n_layers=None)}, r"backbone\.n_layers is 1 there and None here"),
        (
            {"train": replace(CONFIG.train, batch_size=9, learning_rate=0.5)},
            r"train\.batch_size is 4 there and 9 here \(2 options differ\)",
        ),
    ],
)
def test_resuming_with_another_config_is_an_error_that_names_an_option_that_differs(folder, other, message):
    before = contents(folder)
    with pytest.raises(RunFolderError, match=message):
        run(replace(CONFIG, **other), folder, resume=True)
    assert contents(folder) == before


def test_overwriting_removes_the_runs_files_and_nothing_else(folder):
    captured = ["attention_maps.safetensors", "head_statistics_test.safetensors", "ablate_heads.json", "evaluate.json"]
    others = ["notes.md", "my_head_statistics.pdf", "sub/config.toml", "weights.safetensors"]
    (folder / "sub").mkdir()
    for name in (*captured, *others):
        (folder / name).write_text("kept?")
    other = replace(CONFIG, trained=("output",))

    record = run(other, folder, overwrite=True)

    assert RunConfig.from_dict(record.config) == other
    assert not [name for name in captured if (folder / name).exists()]
    assert [(folder / name).read_text() for name in others] == ["kept?"] * len(others)


@pytest.mark.parametrize(
    "wrong",
    [
        {"task": TaskConfig(name="bit_xr")},
        {"task": TaskConfig(name="bit_xor", options={"bits": 2})},
        {"backbone": BackboneConfig(name="minlm")},
        {"backbone": BackboneConfig(name="gpt2", init="pretrained")},
        {"trained": ("atention",)},
    ],
    ids=["task", "option", "preset", "weights", "group"],
)
def test_a_run_that_cannot_start_overwrites_nothing(folder, wrong):
    before = contents(folder)
    with pytest.raises(FptVizError):
        run(replace(CONFIG, **wrong), folder, overwrite=True)
    assert contents(folder) == before
    assert load_run(folder).result["n_steps"] == 3


def test_a_run_that_cannot_start_leaves_no_run_behind(tmp_path):
    with pytest.raises(UnknownNameError, match=r"no task 'bit_xr'. Did you mean 'bit_xor'\?"):
        run(replace(CONFIG, task=TaskConfig(name="bit_xr")), tmp_path / "run")
    assert contents(tmp_path / "run") == {}
    assert run(CONFIG, tmp_path / "run").result["n_steps"] == 3


def test_a_loss_that_is_no_number_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    from fpt_viz.tasks.bit_xor import BitXor

    calls = []
    loss = BitXor.loss

    def diverging(self, logits, targets):
        calls.append(1)
        return loss(self, logits, targets) * (float("nan") if len(calls) == 3 else 1)

    with monkeypatch.context() as patched:
        patched.setattr(BitXor, "loss", diverging)
        with pytest.raises(TrainingError, match=r"the loss is nan at step 2"):
            run(CONFIG, tmp_path / "run")

    resumed = run(CONFIG, tmp_path / "run", resume=True)
    assert resumed.steps[-1].loss == pytest.approx(run(CONFIG, tmp_path / "unbroken").steps[-1].loss, abs=0)


def test_an_unfinished_run_is_told_how_to_go_on(folder):
    (folder / "result.json").unlink()
    with pytest.raises(RecordError, match=rf"not finished .*fpt-viz train --out {folder} --resume"):
        load_run(folder)


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(RecordError, match=r"holds no run: config\.toml is missing"):
        load_run(tmp_path)


def test_two_writers_in_one_process_are_told_apart_too(tmp_path):
    with (
        RunFolder.claim(tmp_path, CONFIG, resume=False, overwrite=False),
        pytest.raises(RunFolderError, match=r"is being written by process \d+ on .* since .*: wait for it"),
        RunFolder.claim(tmp_path, CONFIG, resume=True, overwrite=False),
    ):
        pass
    with RunFolder.claim(tmp_path, CONFIG, resume=False, overwrite=False):
        pass  # free again


# The bar


def step(index: int, seconds: float) -> Step:
    measured = {"loss": 0.5, "accuracy": 0.75, "grad_norm": 1.0}
    return Step(index=index, measured=measured, learning_rate=1e-3, n_examples=100, elapsed_seconds=seconds)


def test_nothing_is_shown_where_there_is_no_terminal(capfd, tmp_path):
    run(CONFIG, tmp_path / "run")
    assert capfd.readouterr() == ("", "")


def test_the_bar_tells_loss_accuracy_and_examples_a_second(capfd):
    with shown("a run", 3, 0, visible=True) as tell:
        for index in range(3):
            tell(step(index, seconds=index + 1.0))
    told = capfd.readouterr()
    assert told.out == ""
    for part in ("a run", "3/3", "loss 0.5000", "accuracy 0.750", "100 examples/s"):
        assert part in told.err


def test_the_bar_of_a_resumed_run_counts_only_the_time_of_this_sitting(capfd):
    with shown("a run", 12, 10, visible=True) as tell:
        tell(step(10, seconds=1000.0))
        tell(step(11, seconds=1001.0))
    assert "100 examples/s" in capfd.readouterr().err


def test_steps_reach_the_disk_as_lines_that_any_program_reads(folder):
    rows = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == [0, 1, 2]
    wanted = {"index", "loss", "accuracy", "grad_norm", "learning_rate", "n_examples", "elapsed_seconds"}
    assert all(set(row) == wanted for row in rows)

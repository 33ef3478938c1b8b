"""What must be known of a task whose loader loses part of its input is said wherever a result of it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from fpt_viz.cli import main
from fpt_viz.records import AblationEffects, AttentionMaps, HeadStatistics, load_run
from fpt_viz.tasks import listops

NOTE = "paper's lossy loader: brackets dropped, cut or padded to 512 tokens, padding not masked"
SETTINGS = ("paper_compatible=true", "max_tokens=16", "min_tokens=8", "n_steps=2", "batch_size=4", "validate_every=2")


@pytest.fixture(autouse=True)
def short_inputs(monkeypatch):
    """The loader of the paper, which cuts much earlier, so that tests are quick."""
    monkeypatch.setattr(listops, "N_PAPER", 12)


@pytest.fixture(scope="module")
def lossy(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "lossy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listops, "N_PAPER", 12)
        command = ["train", "--task", "listops", "--backbone", "bert-tiny-random", "--init", "random", "--layers", "1"]
        assert main([*command, "--set", *SETTINGS, "--out", str(out)]) == 0
        for measure in ("statistics", "ablate", "capture"):
            assert main([measure, str(out)]) == 0
    return out


def test_training_says_it(call, lossy, tmp_path):
    command = ("train", lossy / "config.toml", "--out", tmp_path / "run")
    assert f"listops: {NOTE}\n" in call(*command).out
    assert call(*command, "--overwrite", "--json").json()["evaluation"]["note"] == NOTE


@pytest.mark.parametrize("command", ["evaluate", "statistics", "ablate", "capture", "measure evaluate"])
def test_every_command_that_asks_the_model_says_it(call, lossy, command):
    assert f"listops: {NOTE}\n" in call(*command.split(), lossy).out
    assert call(*command.split(), lossy, "--json").json()["note"] == NOTE


def test_a_comparison_says_it_once_for_a_task(call, lossy, trained):
    told = call("compare", lossy, trained).out
    assert told.count(NOTE) == 1
    [line] = [line for line in told.splitlines() if line.endswith(NOTE)]
    assert line.startswith("listops (")
    lossy_row, other_row = call("compare", lossy, trained, "--json").json()["rows"]
    assert (lossy_row["note"], other_row["note"]) == (NOTE, "")


def test_everything_saved_says_it(lossy):
    record = load_run(lossy)
    assert record.note == record.source["note"] == record.evaluation.note == NOTE
    assert record.steps[-1].validation.note == NOTE
    assert NOTE in repr(record)
    saved = (
        HeadStatistics.load(lossy / "head_statistics.safetensors"),
        AttentionMaps.load(lossy / "attention_maps.safetensors"),
        AblationEffects.load(lossy / "ablate_heads.json"),
    )
    assert all(each.source["note"] == NOTE for each in saved)


@pytest.mark.parametrize(
    "name", ["head_grid", "attention_heatmap", "training_curves", "run_comparison", "ablation_effects"]
)
def test_a_figure_says_it(call, lossy, tmp_path, name):
    out = tmp_path / "figure.svg"
    told = call("figure", name, lossy, "-o", out, "--preset", "icml", "--json").json()
    assert told["caveat"] == f"listops: {NOTE}."
    assert NOTE in told["alt"]
    assert NOTE.partition(": ")[2] in out.read_text()
    assert f"listops: {NOTE}." in call("figure", name, lossy, "-o", out).out


def test_other_tasks_say_nothing(call, trained):
    assert "note" not in call("capture", trained, "--json").json()
    assert load_run(trained).source.keys() == {"run", "task", "backbone", "init", "seed", "step"}

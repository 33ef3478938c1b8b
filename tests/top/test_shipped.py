"""The page of shipped results says what is in the records, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
import shutil

import pytest

from fpt_viz import registry
from fpt_viz.engines._job import note_failure
from fpt_viz.engines.in_process import InProcess
from fpt_viz.errors import TrainingError
from fpt_viz.experiments import _shipped
from fpt_viz.experiments._shipped import ROWS, Shipped, _bring, collect, page
from fpt_viz.records import load_run, store
from fpt_viz.reproduce import load_plan, plan_of, reproduce, result_in

pytestmark = pytest.mark.slow  # half a minute in all

DONE = Shipped("Done", "table_14", ("digits",), scale="smoke")
NOT_DONE = Shipped("Not done", "table_16", ("digits",), scale="smoke")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One row that was run, in a folder of its own."""
    out = tmp_path_factory.mktemp("made")
    reproduce(DONE.experiment, out=out, engine=InProcess(), choice=DONE.choice)
    return out


@pytest.fixture
def shipped(made, tmp_path, monkeypatch) -> Path:
    """What is collected of two rows, of which one is run."""
    monkeypatch.setattr(_shipped, "ROWS", (DONE, NOT_DONE))
    collect(made, tmp_path / "results")
    return tmp_path / "results"


def test_every_row_names_an_experiment_and_a_task_of_it():
    for row in ROWS:
        cells = registry.load("experiments", row.experiment).cells(row.scale)
        assert set(row.tasks) <= {cell.task for cell in cells}


def test_records_are_shipped_without_weights_and_stay_readable(shipped, made):
    there = sorted(path.parent for path in shipped.glob("runs/*/result.json"))
    assert [path.name for path in there] == sorted(path.parent.name for path in made.glob("runs/*/result.json"))
    assert not list(shipped.rglob("*adapter*"))
    for path in there:
        assert load_run(path).evaluation == load_run(made / "runs" / path.name).evaluation


def test_the_table_of_the_page_is_that_of_the_runs(shipped, made):
    told = page(shipped, "data/results")
    caption, table, *notes = (made / "table_14-smoke-digits/table.md").read_text().rstrip().split("\n\n")
    assert f"{caption}\n\n{table}" in told
    own = [note for note in notes if note.startswith(("At most ", "Difference"))]
    assert len(own) == 2
    assert all(told.count(note) >= 1 for note in own)  # below its table, though others have the same
    shared = told.partition("## How to read the tables")[2]
    assert not any(note in shared for note in own)
    assert all(told.count(note) == 1 for note in notes if note not in own)
    assert "3 of 3 runs finished" in told
    assert "```\nfpt-viz reproduce table_14 --scale smoke --tasks digits\n```" in told


def row_of(page: str, title: str) -> str:
    return page.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_a_row_with_fewer_seeds_tells_which_are_left_out_and_what_they_cost(tmp_path, monkeypatch):
    """Two of three seeds of each system, as ``--seeds 2`` leaves them, and a third of one."""
    three = Shipped("Three seeds", "table_14", ("digits",), scale="smoke")
    whole = replace(three.choice, n_seeds=3)
    monkeypatch.setattr(Shipped, "choice", property(lambda row: whole))
    monkeypatch.setattr(_shipped, "ROWS", (three,))
    reproduce("table_14", out=tmp_path / "made", engine=InProcess(), choice=replace(whole, n_seeds=2))
    collect(tmp_path / "made", tmp_path / "results")
    section = row_of(page(tmp_path / "results", "data/results"), "Three seeds")
    assert "6 of 9 runs finished" in section
    assert "**The others are not run**: at most" in section
    assert section.count("| digits | 2 |") == 3
    assert section.count("seed 2 not run") == 3
    assert "At most 4 steps: digits." in section
    assert "No test: that takes three seeds of each" in section
    assert section.count("(too few seeds to test)") == 2


def test_a_row_whose_runs_all_diverged_is_shown_and_not_called_not_run(shipped):
    folder = shipped / "table_14-smoke-digits"
    for run in {run for entry in load_plan(folder).entries for run in entry.runs.values()}:
        (run / "result.json").unlink()
        note_failure(run, TrainingError("the loss is nan"))
    result_in(folder).save()
    section = row_of(page(shipped, "data/results"), "Done")
    assert "0 of 3 runs finished" in section
    assert "3 failed" in section
    assert section.count("seed 0 diverged after") == 3
    assert "Not run" not in section


def test_finished_runs_that_fill_no_row_are_told_as_such(tmp_path, monkeypatch):
    """No learning rate is chosen before a seed has run at all of them."""
    rates = Shipped("Rates", "learning_rate", ("bit_xor",), scale="smoke")
    monkeypatch.setattr(_shipped, "ROWS", (rates,))
    plan = plan_of("learning_rate", registry.load("experiments", "learning_rate"), rates.choice, tmp_path / "made")
    [_] = InProcess().run([next(plan.jobs())])
    collect(tmp_path / "made", tmp_path / "results")
    section = row_of(page(tmp_path / "results", "data/results"), "Rates")
    assert "1 of 10 runs finished" in section
    assert "They do not fill a row of its table yet." in section
    assert "At most 4 steps: bit_xor." in section
    assert "| System |" not in section


def test_a_row_that_was_not_run_is_told_with_its_measured_cost(shipped):
    section = page(shipped, "data/results").partition("## Not done")[2]
    assert "**Not run**" in section or "The others are not run" in section
    assert "minutes of one worker, from steps measured" in section


def test_the_page_is_the_same_when_made_again(shipped):
    assert page(shipped, "data/results") == page(shipped, "data/results")


def test_what_was_collected_before_stays(shipped, made, tmp_path):
    before = {path: path.read_bytes() for path in shipped.glob("runs/*/*")}
    empty = tmp_path / "empty"
    shutil.copytree(made / "table_14-smoke-digits", empty / "table_14-smoke-digits")
    collect(empty, shipped)
    assert {path: path.read_bytes() for path in shipped.glob("runs/*/*")} == before


def test_a_failed_run_brings_no_weights_and_gives_way_to_its_later_success(shipped, made, tmp_path):
    name = next(made.glob("runs/*/result.json")).parent.name
    failed = tmp_path / "failed" / name
    shutil.copytree(made / "runs" / name, failed)
    (failed / "result.json").unlink()
    note_failure(failed, TrainingError("the loss is nan"))
    target = tmp_path / "target" / name
    _bring(failed, target, keep=True)
    assert (target / "failure.json").exists()
    assert not list(target.glob("*adapter*"))
    _bring(made / "runs" / name, target, keep=False)
    assert not (target / "failure.json").exists()
    assert load_run(target).evaluation == load_run(made / "runs" / name).evaluation


def test_a_cost_that_could_not_be_measured_is_told(shipped):
    path = shipped / "table_16-smoke-digits/forecast.json"
    data = store.read_json(path)
    data["kinds"][0] |= {"seconds": None, "error": "no such file"}
    store.write_json(path, data)
    assert "not measured (no such file)" in page(shipped, "data/results")

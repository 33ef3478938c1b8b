"""The page of shipped results says what is in the records, and nothing else."""

from __future__ import annotations

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
from fpt_viz.reproduce import reproduce

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
    caps = [note for note in notes if note.startswith("At most ")]
    assert [told.count(note) for note in caps] == [2]  # below each table, though both have the same
    assert all(told.count(note) == 1 for note in notes if note not in caps)
    assert "3 of 3 runs finished" in told
    assert "```\nfpt-viz reproduce table_14 --scale smoke --tasks digits\n```" in told


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

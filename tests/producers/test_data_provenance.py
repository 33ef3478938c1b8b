"""A run says which data it was trained on, and what a reader must know of it."""

from __future__ import annotations

import hashlib

from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.loading import load_model
from fpt_viz.records import load_run
from fpt_viz.report import write_report
from fpt_viz.train import run


def one_step(name: str, **options: object) -> RunConfig:
    return RunConfig(
        task=TaskConfig(name=name, options=options),
        backbone=BackboneConfig(name="bert-tiny-random", init="random"),
        train=TrainConfig(n_steps=1, batch_size=2),
    )


def test_a_run_on_files_keeps_their_checksums(made_data, tmp_path):
    record = run(one_step("mnist", n_validation=4), tmp_path / "run")
    files = {path.name: path for path in (made_data / "mnist").rglob("*") if path.is_file()}

    assert record.data["sha256"]
    for name, checksum in record.data["sha256"].items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == checksum
    assert load_model(load_run(tmp_path / "run")).task.name == "mnist"


def test_a_run_on_generated_examples_has_no_files(tmp_path):
    assert run(one_step("bit_xor"), tmp_path / "run").data == {}


def test_the_report_says_that_a_loader_loses_part_of_its_input(tmp_path, monkeypatch):
    record = run(one_step("listops", max_tokens=16, min_tokens=4), tmp_path / "whole")
    assert record.note == ""
    monkeypatch.setitem(record.result, "note", "brackets are dropped")

    page = write_report(tmp_path / "report.html", [record], title="ListOps").read_text()

    assert "<li>brackets are dropped" in page or "<p>brackets are dropped" in page
    assert page.count("listops: brackets are dropped.") >= 2  # in the captions of both figures

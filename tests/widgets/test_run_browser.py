"""Which runs the browser finds in a folder, what it says of broken ones, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path
import re
import runpy
import shutil

import pytest

from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.records import run as run_files
from fpt_viz.widgets.run_browser import RunBrowser

made = runpy.run_path(str(Path(__file__).parents[1] / "viewers" / "conftest.py"))


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """Two finished runs, one of them two folders down."""
    folder = tmp_path_factory.mktemp("runs")
    made["make_run"](folder / "xor" / "deep" / "pretrained")
    made["make_run"](folder / "random", "random", solved=None, learning_rate=0.01)
    return folder


@pytest.fixture
def runs(template, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(template, tmp_path / "runs"))


def row(browser: RunBrowser, path: str):
    return next(one for one in browser.table if one.path == path)


def test_runs_are_found_at_any_depth_with_their_numbers(runs):
    browser = RunBrowser(runs)
    assert [one.path for one in browser.table] == ["random", "xor/deep/pretrained"]
    found = row(browser, "xor/deep/pretrained")
    assert found.status == "finished"
    wanted = {"task": "bit_xor", "backbone": "minilm", "init": "pretrained", "seed": 0, "n_steps": 60, "solved": 50}
    assert wanted.items() <= found.cells.items()
    assert found.evaluation == {"accuracy": 0.9992, "low": 0.9872, "high": 1.0, "split": "test", "n_examples": 205}
    assert row(browser, "random").cells["solved"] is None


def test_a_folder_that_is_itself_a_run_is_found(runs):
    assert [one.path for one in RunBrowser(runs / "random").table] == ["."]


def cut(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:-9])


def without(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def written(name: str, content: bytes) -> Callable[[Path], None]:
    def write(run: Path) -> None:
        (run / name).write_bytes(content)

    return write


def resealed(change: Callable[[dict], dict]) -> Callable[[Path], None]:
    """A result with a right checksum and a wrong content."""

    def seal(run: Path) -> None:
        record = run_files.load_run(run)
        run_files.seal(run, change({k: v for k, v in record.result.items() if k not in ("files", "sha256")}))

    return seal


@pytest.mark.parametrize(
    ("damage", "status", "told"),
    [
        (without(run_files.RESULT), "unfinished", "60 of at most 60 steps are saved; .*--resume"),
        (cut(run_files.ADAPTER), "damaged", "adapter.safetensors was truncated or altered"),
        (without(run_files.ADAPTER), "damaged", "adapter.safetensors is missing"),
        (cut(run_files.STEPS), "damaged", "steps.jsonl was truncated"),
        (without(run_files.CONFIG), "damaged", "config.toml is missing"),
        (written(run_files.CONFIG, b"[task\nname"), "damaged", "config.toml was truncated or altered"),
        (written(run_files.CONFIG, b"\xff\xfe"), "damaged", "config.toml was truncated or altered"),
        (written(run_files.RESULT, b""), "damaged", "result.json is not whole"),
        (written(run_files.RESULT, b"[1, 2]"), "damaged", "result.json"),
        (written(run_files.RESULT, b"\xff"), "damaged", "result.json cannot be read"),
        (resealed(lambda result: {**result, "evaluation": {}}), "damaged", "KeyError: 'interval'"),
        (resealed(lambda result: {"evaluation": result["evaluation"]}), "damaged", "whole result.*n_steps"),
    ],
    ids=[
        "unfinished", "adapter cut", "adapter gone", "steps cut", "config gone", "config garbled", "config binary",
        "result empty", "result a list", "result binary", "empty evaluation", "no steps",
    ],
)  # fmt: skip
def test_a_broken_run_is_listed_with_the_reason_and_the_others_stay(runs, damage, status, told):
    damage(runs / "random")
    browser = RunBrowser(runs)
    found = row(browser, "random")
    assert found.status == status
    assert re.search(told, found.reason)
    assert row(browser, "xor/deep/pretrained").status == "finished"
    with pytest.raises(ConfigError, match=f"random is {status} and cannot be selected"):
        browser.choose(selected=["random"])
    assert browser.figure().alt
    assert f"1 {status}" in browser.alt


def test_an_unfinished_run_whose_config_is_garbled_too_is_damaged(runs):
    without(run_files.RESULT)(runs / "random")
    written(run_files.CONFIG, b"= =")(runs / "random")
    assert row(RunBrowser(runs), "random").status == "damaged"


def test_a_folder_that_cannot_be_read_is_listed(runs, monkeypatch):
    scan = os.scandir

    def refused(path):
        if str(path).endswith("xor"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    found = row(RunBrowser(runs), "xor")
    assert (found.status, found.reason) == ("damaged", "the folder cannot be read: Permission denied")


def test_a_link_that_leads_back_is_not_followed(runs):
    (runs / "xor" / "loop").symlink_to(runs)
    assert len(RunBrowser(runs).table) == 2


def test_selected_gives_the_records_in_the_order_of_selection(runs):
    browser = RunBrowser(runs)
    assert browser.selected == []
    browser.choose(selected=["xor/deep/pretrained", "random", "random"])
    assert [record.path for record in browser.selected] == [runs / "xor/deep/pretrained", runs / "random"]
    assert [record.evaluation.accuracy for record in browser.selected] == [0.9992, 0.5132]


def test_only_options_that_differ_are_told(runs):
    browser = RunBrowser(runs)
    browser.choose(selected=["random", "xor/deep/pretrained"])
    assert browser.differences == {"backbone.init": ["random", "pretrained"], "train.learning_rate": ["0.01", "0.001"]}
    browser.choose(selected=["random"])
    assert browser.differences == {}


def test_looking_again_finds_new_runs_and_lets_go_of_removed_ones(runs):
    browser = RunBrowser(runs)
    browser.choose(selected=["random", "xor/deep/pretrained"])
    made["make_run"](runs / "later", seed=3)
    shutil.rmtree(runs / "random")
    browser.look_again()
    assert [one.path for one in browser.table] == ["later", "xor/deep/pretrained"]
    assert browser.choice["selected"] == ["xor/deep/pretrained"]
    assert "random" in browser.notice


def test_a_run_removed_meanwhile_is_an_error_only_where_it_is_read(runs):
    browser = RunBrowser(runs)
    browser.choose(selected=["random"])
    shutil.rmtree(runs / "random")
    with pytest.raises(RecordError, match="holds no run"):
        assert browser.selected
    assert browser.figure().alt == browser.alt


def test_an_empty_folder_says_that_there_is_nothing(tmp_path):
    browser = RunBrowser(tmp_path)
    assert browser.table == []
    assert "0 finished" in browser.alt
    assert browser.figure().title == f"Runs in {tmp_path.name}"
    browser.save(tmp_path / "nothing.svg")


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_what_is_no_folder_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=f"there is no folder .*{name}"):
        RunBrowser(tmp_path / name)


def test_one_record_instead_of_a_folder_is_told_its_folder(runs):
    with pytest.raises(ConfigError, match="give the folder") as told:
        RunBrowser(run_files.load_run(runs / "random"))
    assert str(runs) in str(told.value)


def test_the_figure_holds_the_runs_selected_or_all_of_one_task(runs):
    browser = RunBrowser(runs)
    assert "2 runs" in browser.figure().alt
    browser.choose(selected=["random"])
    assert "minilm random seed 0" in browser.figure().alt
    assert "pretrained" not in browser.figure().alt


def test_runs_of_different_tasks_draw_those_of_the_first(runs):
    text = (runs / "random" / run_files.CONFIG).read_text().replace("bit_xor", "bit_memory")
    record = run_files.load_run(runs / "random")
    (runs / "random" / run_files.CONFIG).write_text(text)
    run_files.seal(runs / "random", {k: v for k, v in record.result.items() if k not in ("files", "sha256")})
    browser = RunBrowser(runs)
    browser.choose(selected=["xor/deep/pretrained", "random"])
    assert "on bit_xor" in browser.figure().alt
    assert "bit_memory" not in browser.figure().alt


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"sort": "colour"}, "cannot be sorted by 'colour'"), ({"selected": ["gone"]}, "there is no run 'gone'")],
    ids=["sort", "run"],
)
def test_what_is_not_there_cannot_be_chosen(runs, fields, told):
    with pytest.raises(ConfigError, match=told):
        RunBrowser(runs).choose(**fields)


def test_the_state_recreates_the_browser(runs):
    browser = RunBrowser(runs, "xor")
    browser.choose(selected=["random"], sort="accuracy", descending=True)
    again = RunBrowser(runs, state=browser.state)
    assert again.choice == browser.choice == {
        "looks": 0, "filter": "xor", "sort": "accuracy", "descending": True, "selected": ["random"],
    }  # fmt: skip


def test_a_state_whose_run_is_gone_says_so(runs):
    browser = RunBrowser(runs)
    browser.choose(selected=["random", "xor/deep/pretrained"])
    state = browser.state
    shutil.rmtree(runs / "random")
    again = RunBrowser(runs, state=state)
    assert again.choice["selected"] == ["xor/deep/pretrained"]
    assert "no finished run is there: random" in again.notice

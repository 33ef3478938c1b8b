"""The command and the origin that a figure claims are those of what it shows; where they cannot be, it says why."""

from __future__ import annotations

from collections.abc import Callable
import copy
from dataclasses import replace
import inspect
import json
import os
from pathlib import Path
import pickle
import shutil
from typing import Any

import numpy as np
import pytest

from fpt_viz import figures
from fpt_viz.cli import main
from fpt_viz.export import PRESETS, Figure, Recipe, provenance
from fpt_viz.export.recipe import made
from fpt_viz.export.settings import MOST_LETTERS, as_setting
from fpt_viz.figures import _made
from fpt_viz.records import HeadStatistics, RunRecord, load_run, store


@pytest.fixture
def place(runs: list[RunRecord], tmp_path: Path) -> Path:
    """A folder with copies of two runs in ``runs``."""
    for record, name in zip(runs, ("one", "two"), strict=True):
        shutil.copytree(record.path, tmp_path / "runs" / name)
    return tmp_path


def told_of(figure: Figure, path: Path, **page: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"{figure.save(path, **page)}.json").read_text())
    return found


def why_not(figure: Figure) -> str:
    assert made(figure).recipe is None
    return made(figure).why_not


def test_a_record_in_the_folder_of_another_run_is_told_by_what_it_says_of_itself(place):
    one, two = (load_run(place / "runs" / name) for name in ("one", "two"))
    replace(one.statistics(), source=two.source).save(place / "runs/one/guest.safetensors")
    guest = HeadStatistics.load(place / "runs/one/guest.safetensors")
    [shown] = told_of(figures.head_grid(guest), place / "a.svg")["inputs"]
    assert (shown["run"], shown["init"]) == ("xor-random", "random")
    assert "config_sha256" not in shown


def test_a_record_of_another_step_is_not_told_as_the_finished_run(place):
    one = load_run(place / "runs/one")
    replace(one.statistics(), source=one.source | {"step": 20}).save(place / "runs/one/early.safetensors")
    early = HeadStatistics.load(place / "runs/one/early.safetensors")
    [shown] = told_of(figures.head_grid(early), place / "a.svg")["inputs"]
    assert shown["step"] == 20
    assert "config_sha256" not in shown


def test_an_array_beside_a_run_is_told_as_a_file_alone(place):
    np.save(place / "runs/one/shares.npy", np.full((2, 2), 0.5))
    out = place / "a.svg"
    assert main(["figure", "rollout", str(place / "runs/one/shares.npy"), "-o", str(out)]) == 0
    [shown] = provenance.read(out)["inputs"]
    assert sorted(shown) == ["path", "sha256"]


@pytest.mark.parametrize("field", ["steps", "ledger", "environment"])
def test_a_run_changed_by_replace_has_no_command(place, field):
    one = load_run(place / "runs/one")
    values = {"steps": one.steps[:20], "ledger": replace(one.ledger, rows=()), "environment": {}}
    changed = replace(one, **{field: values[field]})
    assert "are not the runs that lie in their folders" in why_not(figures.training_curves(changed))


def test_a_file_overwritten_between_drawing_and_saving_is_not_sealed(place):
    one = load_run(place / "runs/one")
    figure = figures.head_grid(one.statistics())
    replace(one.statistics(), n_examples=3).save(one.path / "head_statistics.safetensors")
    told = told_of(figure, place / "a.svg")
    assert "command" not in told
    assert told["no_command"] == "runs/one/head_statistics.safetensors was changed after it was drawn: draw it again"
    assert told["inputs"] == [{"path": "runs/one/head_statistics.safetensors"}]


def in_place(statistics: HeadStatistics) -> HeadStatistics:
    statistics.entropy[0, 0] += 1
    return statistics


COPIES: dict[str, Callable[[HeadStatistics], HeadStatistics]] = {
    "in place": in_place,
    "copied": copy.copy,
    "deeply copied": copy.deepcopy,
    "pickled": lambda statistics: pickle.loads(pickle.dumps(statistics)),
}


@pytest.mark.parametrize("name", sorted(COPIES))
def test_what_was_changed_or_copied_in_memory_lies_in_no_file(place, name):
    read = load_run(place / "runs/one").statistics()
    assert store.file_of(read) is not None
    assert store.file_of(COPIES[name](read)) is None


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_another(place):
    path = place / "runs/one/head_statistics.safetensors"
    read, before = HeadStatistics.load(path), path.stat()
    shutil.copyfile(path, place / "other")
    os.utime(place / "other", ns=(before.st_atime_ns, before.st_mtime_ns))
    (place / "other").replace(path)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert store.file_of(read) is None


def test_a_file_changed_while_it_is_read_does_not_hold_what_was_read(place, monkeypatch):
    path, digest = place / "runs/one/head_statistics.safetensors", store._digest

    def late(*arguments: Any) -> str:
        shutil.copyfile(path, place / "other")
        (place / "other").replace(path)
        return digest(*arguments)

    monkeypatch.setattr(store, "_digest", late)
    assert store.file_of(HeadStatistics.load(path)) is None


def test_no_note_outlives_its_record(place):
    read = load_run(place / "runs/one").statistics()
    key = id(read)
    assert key in store._NOTES
    del read
    assert key not in store._NOTES


@pytest.mark.parametrize("name", ["statistics.bin", "statistics.json", "statistics.npy"])
def test_a_record_under_a_name_that_the_command_line_does_not_read_has_no_command(place, name):
    load_run(place / "runs/one").statistics().save(place / name)
    said = why_not(figures.head_grid(HeadStatistics.load(place / name)))
    assert said.startswith(f"source lies in {name}, which the command line takes for no record: save it as")


@pytest.mark.parametrize("name", ["run.json", "run.npy", "run.safetensors", "-run", " run"])
def test_a_run_in_a_folder_of_any_name_is_read_by_its_command(place, name):
    (place / "runs/one").rename(place / name)
    path = place / "a.svg"
    told_of(figures.training_curves(load_run(place / name)), path)
    assert main(["figure", "--check", str(path)]) == 0


def test_names_that_look_like_options_or_lead_with_a_blank_are_said_so_that_they_are_read(place, capsys):
    one = load_run(place / "runs/one")
    for name in ("-shown.safetensors", " test.safetensors"):
        one.statistics().save(place / name)
    shown, test = (HeadStatistics.load(place / name) for name in ("-shown.safetensors", " test.safetensors"))
    path = place / "-out.svg"
    told = told_of(figures.routing_table(shown, test), path)
    assert told["command"] == (
        "fpt-viz figure routing_table ./-shown.safetensors -o ./-out.svg --set 'test=./ test.safetensors'"
    )
    assert main(["figure", "--check", str(path)]) == 0, capsys.readouterr().out


def test_the_command_is_right_though_the_working_folder_changed(place, monkeypatch):
    monkeypatch.chdir(place)
    one = load_run("runs/one")
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    figure = figures.training_curves(one)
    own = Recipe(figure="training_curves", inputs=(Path("../runs/one"),))
    monkeypatch.chdir(place)
    for drawn in (figure, own.command(place / "a.svg")):
        said = drawn if isinstance(drawn, str) else told_of(drawn, place / "a.svg")["command"]
        assert said == "fpt-viz figure training_curves runs/one -o a.svg"


@pytest.mark.parametrize("options", [{"layer": 1.0}, {"vmax": True}, {"name": 3}], ids=str)
def test_a_value_that_the_command_line_refuses_is_no_setting(place, options):
    def draw(source: HeadStatistics, *, layer: int = 0, vmax: float = 1.0, name: str = "") -> Figure:
        raise NotImplementedError

    bound = {"source": load_run(place / "runs/one").statistics(), **options}
    found = _made._made(draw, inspect.signature(draw).parameters, bound)
    assert f"{next(iter(options))} cannot be said on a command line" in found.why_not


def test_long_values_are_cut_before_they_are_written(place):
    class Counted(list[Any]):
        seen = 0

        def __iter__(self) -> Any:
            for each in super().__iter__():
                Counted.seen += 1
                yield each

    long = Counted([(0, 1)] * 100_000)
    assert as_setting(long) is None
    assert Counted.seen <= MOST_LETTERS
    assert as_setting("x" * (MOST_LETTERS + 1)) is None
    figure = figures.head_grid(load_run(place / "runs/one").statistics(), highlight=[(0, 1)] * 100_000)
    assert "highlight cannot be said on a command line: [(0, 1), (0, 1)" in why_not(figure)
    assert len(made(figure).call) < 300


def test_a_preset_that_has_a_name_is_said_by_it(place):
    figure = figures.head_grid(load_run(place / "runs/one").maps())
    told = told_of(figure, place / "a.svg", preset=PRESETS["icml"])
    assert told["command"].endswith("--preset icml")


ALTERED: dict[str, tuple[dict[str, Any], str]] = {
    "help": ({"command": "fpt-viz figure --help"}, "names a command that draws no figure"),
    "quotes": ({"command": "fpt-viz figure 'a"}, "names a command that cannot be read (No closing quotation)"),
    "empty": ({"command": " "}, "names another command than fpt-viz figure"),
    "nothing shown": ({"command": "fpt-viz figure head_grid -o a.svg"}, "names a command that draws no figure"),
    "unknown option": ({"command": "fpt-viz figure a b --bogus"}, "names a command that cannot be read"),
    "no number": ({"command": "fpt-viz figure a b -o a.svg --dpi x"}, "names a command that cannot be read"),
    "type": ({"command": 3}, "was altered: command is not"),
    "no inputs": ({"inputs": None}, "was altered: inputs is not"),
    "no path": ({"inputs": [{}]}, "was altered: inputs is not"),
    "schema": ({"schema": "1"}, "was altered: schema is not"),
    "numbers": ({"numbers_sha256": None}, "was altered: numbers_sha256 is not"),
}


@pytest.fixture
def altered(place: Path) -> Callable[[dict[str, Any]], Path]:
    """A figure beside whose file stand other facts."""
    path = place / "a.svg"
    figures.head_grid(load_run(place / "runs/one").statistics()).save(path)

    def alter(changes: dict[str, Any]) -> Path:
        facts = json.loads(Path(f"{path}.json").read_text()) | changes
        kept = {name: value for name, value in facts.items() if value != "remove"}
        Path(f"{path}.json").write_text(json.dumps(kept))
        return path

    return alter


@pytest.mark.parametrize("name", sorted(ALTERED))
def test_an_altered_sidecar_is_one_line_that_says_what_is_wrong(altered, capsys, name):
    changes, message = ALTERED[name]
    path = altered(changes)
    for option in ("--check", "--again"):
        assert main(["figure", option, str(path)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert message in said.err
        assert said.err.count("\n") == 1


def test_a_sidecar_that_names_no_numbers_is_one_line_too(altered, capsys):
    assert main(["figure", "--check", str(altered({"numbers_sha256": "remove"}))]) == 2
    assert "was altered: numbers_sha256" in capsys.readouterr().err


def test_check_misses_inputs_that_are_not_told_or_not_drawn(altered, capsys):
    assert main(["figure", "--check", str(altered({"inputs": "remove"}))]) == 2
    assert "head_statistics.safetensors: the file does not say that it was drawn of it" in capsys.readouterr().out
    assert main(["figure", "--check", str(altered({"inputs": [{"path": "runs/two"}]}))]) == 2
    assert "runs/two: its command does not draw it" in capsys.readouterr().out


def test_help_names_every_kind_of_file_that_is_shown(capsys):
    assert main(["figure", "--help"]) == 0
    assert "files of single records or a .npy array" in " ".join(capsys.readouterr().out.split())

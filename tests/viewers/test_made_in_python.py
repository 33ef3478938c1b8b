"""A figure saved from Python says the command that makes it again, or the call that made it and why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import json
import math
from pathlib import Path
import shutil
from typing import Any

from made_why import make_language_roles, make_shift
import numpy as np
import pytest

from fpt_viz import figures
from fpt_viz.cli import main
from fpt_viz.cli.given import parsed
from fpt_viz.export import PRESETS, Figure, compose, provenance
from fpt_viz.export.recipe import made
from fpt_viz.export.settings import as_setting
from fpt_viz.records import HeadStatistics, RunRecord, load_run


@pytest.fixture
def place(runs: list[RunRecord], statistics: HeadStatistics, tmp_path: Path) -> Path:
    """A folder with copies of two runs in ``runs``; beside the first lies all that is measured."""
    for record, name in zip(runs, ("one", "two"), strict=True):
        shutil.copytree(record.path, tmp_path / "runs" / name)
    one = tmp_path / "runs/one"
    statistics.save(one / "head_statistics_test.safetensors")
    make_shift().save(one / "what_moved.safetensors")
    make_language_roles().save(one / "language_roles.safetensors")
    return tmp_path


def saved(figure: Figure, place: Path, name: str = "figure.svg", **page: Any) -> tuple[Path, dict[str, Any]]:
    path = figure.save(place / "out" / name, **page)
    return path, json.loads(Path(f"{path}.json").read_text())


DRAWN: dict[str, Callable[[RunRecord, RunRecord], Figure]] = {
    "ablation_effects": lambda one, _: figures.ablation_effects(one.ablation(), outcome="loss"),
    "ablation_effects with": lambda one, _: figures.ablation_effects(one.ablation(), stats=one.statistics("test")),
    "attention_difference": lambda one, _: figures.attention_difference(one.maps(), one.maps(), layer=1, example=1),
    "attention_heatmap": lambda one, _: figures.attention_heatmap(one.maps(), layer=1, head=2),
    "head_grid of maps": lambda one, _: figures.head_grid(one.maps(), vmax=0.7),
    "head_grid of test": lambda one, _: figures.head_grid(one.statistics("test"), highlight=[(0, 1), (1, 2)]),
    "head_view": lambda one, _: figures.head_view(one.maps(), least=0.1),
    "language_roles": lambda one, _: figures.language_roles(one.language_roles()),
    "pattern_shift": lambda one, _: figures.pattern_shift(one.what_moved(), top=3),
    "routing_table": lambda one, _: figures.routing_table(one.statistics(), one.statistics("test")),
    "run_comparison": lambda one, two: figures.run_comparison(
        [one, two], paper=[1.0, float("nan")], paper_source='a "source" of 50 % & more'
    ),
    "steps_to_solve": lambda one, two: figures.steps_to_solve(iter((one, two))),
    "top_heads": lambda one, _: figures.top_heads(one.top_heads()),
    "training_curves": lambda one, _: figures.training_curves(one),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DRAWN))
def test_its_own_command_makes_the_same_bytes(place, capsys, name):
    path, told = saved(DRAWN[name](load_run(place / "runs/one"), load_run(place / "runs/two")), place)
    assert told["command"].startswith(f"fpt-viz figure {name.split()[0]} ../runs/one")
    before = path.read_bytes()
    assert main(["figure", "--check", str(path)]) == 0, capsys.readouterr().out
    assert main(["figure", "--again", str(path)]) == 0
    assert path.read_bytes() == before


def test_a_record_alone_is_told_with_the_config_step_and_versions_of_the_run_that_it_lies_beside(place):
    one = load_run(place / "runs/one")
    own = place / "runs/one/head_statistics.safetensors"
    replace(one.statistics(), source=one.source).save(own)
    _, told = saved(figures.head_grid(HeadStatistics.load(own)), place)
    [shown] = told["inputs"]
    assert shown["path"] == "../runs/one/head_statistics.safetensors"
    assert shown["config_sha256"] == one.result["files"]["config.toml"]
    assert (shown["run"], shown["seed"], shown["step"]) == ("xor-pretrained", 0, 60)
    assert shown["versions"]["torch"] == "2.13.0"
    assert str(place) not in json.dumps(told)


def test_check_says_that_the_file_drawn_is_another_now(place, capsys, test_statistics):
    one = load_run(place / "runs/one")
    path, _ = saved(figures.head_grid(one.statistics("test")), place)
    test_statistics.save(place / "runs/one/head_statistics_test.safetensors")
    assert main(["figure", "--check", str(path)]) == 2
    said = capsys.readouterr().out
    assert "../runs/one/head_statistics_test.safetensors: sha256 was" in said


def test_the_page_is_part_of_the_command(place):
    figure = figures.head_grid(load_run(place / "runs/one").maps())
    page = {"preset": "icml", "width_mm": 60.123456789, "font_size": 7.0, "headed": True, "max_height_mm": 80.0}
    _, told = saved(figure, place, **page)
    assert told["command"].endswith("--preset icml --width-mm 60.123456789 --font-size 7 --headed --max-height-mm 80")


def test_a_record_that_was_just_saved_is_known_to_lie_there(place, statistics):
    fresh = replace(statistics)
    assert "command" not in saved(figures.head_grid(fresh), place)[1]
    fresh.save(place / "fresh.safetensors")
    assert saved(figures.head_grid(fresh), place)[1]["command"].split()[3] == "../fresh.safetensors"


WHY_NOT: dict[str, tuple[Callable[[RunRecord], Figure], str]] = {
    "array": (lambda one: figures.rollout(np.full((2, 2), 0.5)), "shares is an array that lies in no file"),
    "unsaved": (
        lambda one: figures.head_grid(replace(one.statistics())),
        "source lies in no file, or in one that was changed since",
    ),
    "other run": (
        lambda one: figures.training_curves(replace(one, result={**one.result, "steps_to_solve": 3})),
        "runs are not the runs that lie in their folders",
    ),
    "changed": (
        lambda one: replace(figures.head_grid(one.maps()), title="Mine"),
        "put together, or changed, in Python",
    ),
    "composed": (
        lambda one: compose([figures.head_grid(one.maps()), figures.head_view(one.maps())]),
        "several figures in one are put together in Python",
    ),
}


@pytest.mark.parametrize("name", sorted(WHY_NOT))
def test_what_no_command_makes_says_why_and_by_which_call_it_was_made(place, capsys, name):
    draw, why = WHY_NOT[name]
    path, told = saved(draw(load_run(place / "runs/one")), place)
    assert "command" not in told
    assert why in told["no_command"]
    assert provenance.read(path)["numbers_sha256"]
    for option in ("--check", "--again"):
        assert main(["figure", option, str(path)]) == 2
        said = capsys.readouterr().err
        assert "was saved from Python" in said
        assert why in said
        assert said.count("\n") == 1


def test_a_composed_figure_names_its_parts_and_their_files(place):
    one = load_run(place / "runs/one")
    _, told = saved(compose([figures.head_grid(one.statistics()), figures.head_view(one.maps(), head=2)]), place)
    assert told["call"].startswith("compose([head_grid(source=HeadStatistics(2 layers x 4 heads")
    assert "head_view(source=AttentionMaps" in told["call"]
    paths = [each["path"] for each in told["inputs"]]
    assert paths == ["../runs/one/head_statistics.safetensors", "../runs/one/attention_maps.safetensors"]


def test_a_page_made_by_hand_is_no_command(place):
    figure = figures.head_grid(load_run(place / "runs/one").maps())
    _, told = saved(figure, place, preset=replace(PRESETS["icml"], width_inches=2.0))
    assert "preset made by hand" in told["no_command"]
    assert told["call"].startswith("head_grid(")


def test_files_of_single_records_serve_on_the_command_line(place, capsys):
    out, one = place / "a.svg", place / "runs/one"
    test = one / "head_statistics_test.safetensors"
    words = ["figure", "routing_table", one, "-o", out, "--set", f"test={test}", "top=3"]
    assert main([str(word) for word in words]) == 0
    told = provenance.read(out)
    assert told["command"] == (
        "fpt-viz figure routing_table runs/one -o a.svg --set top=3 test=runs/one/head_statistics_test.safetensors"
    )
    capsys.readouterr()
    for given, message in (
        (["head_grid", one / "ablate_heads.json"], "head_grid shows head statistics or captured attention"),
        (["training_curves", test], "training_curves shows runs, not arrays or other files"),
        (["head_grid", one / "result.json"], "result.json holds no record; figures are drawn of"),
        (["head_grid", one / "none.safetensors"], "none.safetensors is missing"),
        (["routing_table", one, "--set", f"test={one}/ablate_heads.json"], "test of routing_table must be"),
    ):
        assert main(["figure", "-o", str(out), *map(str, given)]) == 2
        assert message in capsys.readouterr().err


def test_every_figure_remembers(gallery):
    for name, figure in gallery.items():
        assert made(figure).call.startswith(f"{name}("), name


def test_a_wrong_call_is_still_a_type_error():
    with pytest.raises(TypeError, match=r"missing .*'source'"):
        figures.head_grid()


@pytest.mark.parametrize(
    "value",
    [
        True,
        3,
        -0.1,
        1e-7,
        math.inf,
        "plain",
        "3",
        "true",
        'a "quote" \\ and\nline',
        "é…",
        [0, 1],
        [[0, 1], [2, 3]],
        ["a"],
    ],
    ids=repr,
)
def test_a_setting_is_read_back_as_what_it_was(value):
    text = as_setting(value)
    read = parsed([f"option={text}"])["option"]
    assert (read, type(read)) == (value, type(value))


def test_numbers_of_numpy_are_settings_and_what_toml_cannot_say_is_none():
    assert as_setting((np.int64(2), np.float32(0.5))) == "[2, 0.5]"
    for value in (np.zeros(2), {"a": 1}, object(), [None], "\x7f"):
        assert as_setting(value) is None


def test_a_file_that_was_written_over_is_no_longer_where_a_record_lies(place):
    one = load_run(place / "runs/one")
    shown = one.statistics()
    replace(shown, n_examples=2_560).save(place / "runs/one/head_statistics.safetensors")
    _, told = saved(figures.head_grid(shown), place)
    assert "or in one that was changed since" in told["no_command"]

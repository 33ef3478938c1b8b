"""The figures of why heads do it: what moved them, when, and what they did with words before."""

from __future__ import annotations

from dataclasses import replace
import json
from pathlib import Path
import shutil
from typing import Any

from made_why import make_language_roles, make_shift, make_telemetry
import numpy as np
import pytest
import torch

from fpt_viz import registry
from fpt_viz.cli import main
from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.export import Figure, Heatmap, Line, Points, Tiles
from fpt_viz.paper_kit import write_kit
from fpt_viz.records import LanguageRoles, PatternShift, RunRecord, load_run


def show(name: str, *args: Any, **options: Any) -> Figure:
    figure: Figure = registry.load("figures", name)(*args, **options)
    return figure


def marks_of(figure: Figure, kind: type) -> list[Any]:
    return [mark for mark in figure.marks() if isinstance(mark, kind)]


# What moved the heads


def test_shares_are_drawn_with_their_sign_and_interval_a_mark_a_group():
    shift = make_shift()
    figure = show("pattern_shift", shift, top=3)
    groups = marks_of(figure, Points)
    assert [mark.label for mark in groups] == ["input", "position", "layer norm", "feed forward"]
    at = [shift.heads.index((1, 2)), *sorted(range(7, -1, -1), key=lambda i: -shift.score_end[i])[1:3]]
    np.testing.assert_allclose(groups[0].x, shift.share[0, at])
    np.testing.assert_allclose(groups[0].low, shift.share_interval[0, at, 0])
    assert groups[0].x[0] < 0  # the input layer worked against the change of the best head
    assert sum(mark.x[0] for mark in groups) == pytest.approx(1.0)
    assert [mark.hollow for mark in groups] == [False, False, False, True]
    assert figure.panels[0].y_ticks[1][0] == "L1H2 (0.55)"


def test_heads_can_be_chosen_and_a_task_without_scores_shows_those_that_changed_most():
    assert show("pattern_shift", make_shift(), heads=["L0H3", "L0H0"]).panels[0].y_ticks[1] == (
        "L0H3 (0.34)", "L0H0 (0.25)",
    )  # fmt: skip
    first = show("pattern_shift", make_shift(scored=False), top=2).panels[0].y_ticks[1]
    assert first == ("L1H2 (0.55)", "L1H3 (0.45)")
    with pytest.raises(RecordError, match="no head L5H0 was measured"):
        show("pattern_shift", make_shift(), heads=["L5H0"])


def test_patterns_at_start_and_end_are_means_of_the_first_and_last_capture():
    captures = make_telemetry()
    [tiles] = marks_of(show("pattern_shift", make_shift(), captures, heads=["L1H2", "L0H1"]), Tiles)
    at = [captures.heads.index((1, 2)), captures.heads.index((0, 1))]
    np.testing.assert_allclose(tiles.z[:, 0], captures.patterns[0, at].float().mean(1))
    np.testing.assert_allclose(tiles.z[:, 1], captures.patterns[-1, at].float().mean(1))
    assert tiles.column_labels == ("step 0", "step 60")
    assert tiles.y_labels == ("b0", "b1", "b2")


def test_heads_whose_patterns_were_not_kept_are_shown_without():
    captures = make_telemetry()
    some = replace(captures, heads=captures.heads[:2], patterns=captures.patterns[:, :2])
    figure = show("pattern_shift", make_shift(), some, heads=["L1H2"])
    assert len(figure.panels) == 1
    assert "patterns" not in figure.note


# When


def test_every_head_is_a_line_and_the_best_at_the_end_are_named():
    captures = make_telemetry()
    figure = show("telemetry", captures, top=2)
    lines = [mark for mark in figure.panels[0].marks if isinstance(mark, Line)]
    assert len(lines) == 8
    named = [line for line in lines if not line.faint]
    assert named[0].label == "L1H2"
    np.testing.assert_allclose(named[0].y, captures.routing_score[:, 1, 2])
    assert "L1H2 0.100 to 0.800, half of its way by step 40" in figure.finding
    assert "pale: the other 6 heads" in figure.note


def test_gains_are_their_mean_in_a_band_and_the_one_that_moved_most():
    captures = make_telemetry()
    mean, most = [mark for mark in show("telemetry", captures).panels[1].marks if isinstance(mark, Line)]
    np.testing.assert_allclose(mean.y, captures.gain_change.mean(1), rtol=1e-5)
    np.testing.assert_allclose(mean.high, captures.gain_change.amax(1))
    assert most.label == "layer.4.output.LayerNorm"


def test_without_scores_the_gains_are_shown_alone():
    assert len(show("telemetry", make_telemetry(scored=False)).panels) == 1
    with pytest.raises(ConfigError, match="top must be from 1 to 6, got 9"):
        show("telemetry", make_telemetry(), top=9)


# What they did before


def test_roles_stand_beside_the_routing_score_of_the_heads_that_route_best():
    roles = make_language_roles()
    figure = show("language_roles", roles, top=2)
    [heatmap] = marks_of(figure, Heatmap)
    assert heatmap.x_labels == ("routing", "previous", "duplicate", "sink", "delimiter", "best offset", "offset -3")
    assert heatmap.y_labels[0] == "L1H2"
    np.testing.assert_allclose(heatmap.z[0], [roles.routing_score[1, 2], *roles.score[:, 1, 2]])
    np.testing.assert_allclose(heatmap.z[-2, 1:], roles.score.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(heatmap.z[-1, 1:], roles.random.mean((1, 2)), rtol=1e-5)
    free, within = marks_of(figure, Points)
    np.testing.assert_allclose(free.x, roles.correlation)
    np.testing.assert_allclose(within.low, roles.within_interval[:, 0])
    assert "previous 0.800 (95 % interval 0.600 to 1.000, p = 0.04)" in figure.finding


def test_without_routing_scores_the_strongest_roles_are_shown_alone():
    figure = show("language_roles", make_language_roles(scored=False), top=1)
    assert len(figure.panels) == 1
    assert figure.finding == "Strongest: L1H2, previous 0.930."
    assert "has no routing score" in figure.note


# From a run's folder


@pytest.fixture
def record(runs: list[RunRecord], tmp_path: Path) -> RunRecord:
    return load_run(shutil.copytree(runs[0].path, tmp_path / "run"))


def test_the_command_line_draws_what_lies_beside_a_run(record, tmp_path, capsys):
    assert main(["figure", "pattern_shift", str(record.path), "-o", str(tmp_path / "x.pdf")]) == 2
    assert f"fpt-viz measure what_moved {record.path} makes them" in capsys.readouterr().err
    make_shift().save(record.path / "what_moved.safetensors")
    make_language_roles().save(record.path / "language_roles.safetensors")
    for name in ("pattern_shift", "language_roles"):
        path = tmp_path / f"{name}.svg"
        assert main(["figure", name, str(record.path), "-o", str(path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["path"] == str(path)
        assert main(["figure", "--check", str(path)]) == 0
        assert "matches its runs" in capsys.readouterr().out
    assert main(["figure", "telemetry", str(record.path), "-o", str(tmp_path / "t.svg")]) == 2
    assert "--set telemetry_every=50 makes them" in capsys.readouterr().err


def test_a_paper_kit_takes_them_in_and_says_how_to_make_those_that_lack(record, tmp_path):
    lacking = write_kit([record.path], tmp_path / "kit", text_only=True).skipped
    assert lacking["pattern_shift"] == f"not saved beside the run: fpt-viz measure what_moved {record.path}"
    make_shift().save(record.path / "what_moved.safetensors")
    make_language_roles().save(record.path / "language_roles.safetensors")
    kit = write_kit([record.path], tmp_path / "kit", text_only=True)
    assert {"pattern_shift", "language_roles"} <= {path.stem for path in kit.figures}


def test_records_of_a_run_are_read_where_they_are(record):
    assert record.what_moved() is None
    assert record.language_roles() is None
    make_shift().save(record.path / "what_moved.safetensors")
    make_language_roles().save(record.path / "language_roles.safetensors")
    shift, roles = record.what_moved(), record.language_roles()
    assert isinstance(shift, PatternShift)
    assert isinstance(roles, LanguageRoles)
    assert torch.equal(roles.score, make_language_roles().score)

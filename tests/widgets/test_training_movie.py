"""What the movie of a training run holds and says, without a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
import runpy
from typing import Any

import numpy as np
import pytest
import torch

from fpt_viz.errors import ConfigError, RecordError, UnknownNameError
from fpt_viz.records import RunRecord, TelemetryFrame, load_run, run as run_files, store
from fpt_viz.records.telemetry import frame_path
from fpt_viz.widgets import _captured, training_movie
from fpt_viz.widgets.training_movie import TrainingMovie

made = runpy.run_path(str(Path(__file__).parents[1] / "viewers" / "conftest.py"))
EVERY, N_EXAMPLES = 20, 3
HEADS = tuple((layer, head) for layer in range(2) for head in range(4))


def frame(step: int, n_steps: int, init: str, *, scored: bool = True, n_bits: int = 3) -> TelemetryFrame:
    """Attention that goes from even to that of a trained model, a little otherwise on each example."""
    start = torch.full((2, 4, n_bits, 2 * n_bits), 1 / (2 * n_bits))
    end = made["made_patterns"](2, 4, n_bits, made["BEST"] if init == "pretrained" else None)
    share = step / n_steps
    mean = (1 - share) * start + share * end
    mix = torch.tensor([0.8, 0.9, 1.0])[:, None, None]
    patterns = torch.stack([mix * one + (1 - mix) * one.roll(1, -1) for one in mean.flatten(0, 1)]).half()
    names = tuple(f"backbone.layer.{layer}.{part}.norm.weight" for layer in range(2) for part in ("attention", "mlp"))
    bits = [[(example >> i) & 1 for i in range(2 * n_bits)] for example in (5, 17, 44)]
    return TelemetryFrame(
        step=step,
        every=EVERY,
        heads=HEADS,
        patterns=patterns,
        queries=torch.arange(n_bits, 2 * n_bits).expand(N_EXAMPLES, -1).clone(),
        routing_score=mean[..., range(n_bits), range(n_bits)].mean(-1) if scored else None,
        norms=names,
        gain_change=share * torch.tensor([0.01, 0.02, 0.03, 0.04]),
        gain_rms=1 + share * torch.tensor([0.1, 0.2, 0.3, 0.4]),
        labels=tuple(
            tuple(f"{token}={bit}" for token, bit in zip(made["tokens"](n_bits), row, strict=True)) for row in bits
        ),
        split="validation",
        seed=0,
        source={"task": "bit_xor", "init": init},
    )


def filmed(
    folder: Path,
    init: str = "pretrained",
    *,
    change: Callable[[TelemetryFrame], TelemetryFrame] | None = None,
    **how: Any,
) -> RunRecord:
    """A finished run with a capture every 20 steps."""
    record = made["make_run"](folder, init, **({} if init == "pretrained" else {"solved": None}) | how)
    with (folder / run_files.CONFIG).open("a") as config:
        config.write(f"telemetry_every = {EVERY}\n")
    result = {name: value for name, value in record.result.items() if name not in ("files", "sha256")}
    run_files.seal(folder, result)
    n_steps = result["n_steps"]
    for step in range(0, n_steps + 1, EVERY):
        taken = frame(step, n_steps, init)
        (change(taken) if change else taken).save(frame_path(folder, step))
    return load_run(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[RunRecord, RunRecord]:
    folder = tmp_path_factory.mktemp("filmed")
    return filmed(folder / "pretrained"), filmed(folder / "random", "random")


def values(packed: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(packed["data"], dtype=packed["type"].removesuffix("Array").lower()).reshape(packed["shape"])


def weights(movie: TrainingMovie, run: int) -> np.ndarray:
    """The patterns as the page decodes them."""
    tiles = values(movie.frames["runs"][run]).astype(float)
    low, high = movie.frames["scale"]["low"], movie.frames["scale"]["high"]
    return np.where(tiles == 255, np.nan, low + tiles / 254 * (high - low))


# What it holds


def test_every_captured_step_of_every_head_is_in_the_movie_to_half_an_eighth_bit(pair):
    movie = TrainingMovie(pair[0], compare=pair[1])
    half_a_step = movie.frames["scale"]["high"] / 254 / 2
    for place, record in enumerate(pair):
        wanted = record.telemetry().patterns.double().mean(2).numpy()
        np.testing.assert_allclose(weights(movie, place), wanted, atol=half_a_step + 1e-6)


def test_one_example_is_that_example_and_not_the_mean(pair):
    movie = TrainingMovie(pair[0])
    movie.choose(example=2)
    wanted = pair[0].telemetry().patterns[:, :, 2].double().numpy()
    np.testing.assert_allclose(weights(movie, 0), wanted, atol=movie.frames["scale"]["high"] / 254 / 2 + 1e-6)
    assert movie.frames["names"][0]["column_labels"][:2] == ["a0=0", "a1=0"]


def test_both_runs_share_every_scale(pair):
    alone, both = TrainingMovie(pair[1]), TrainingMovie(pair[1], compare=pair[0])
    assert both.frames["scale"]["high"] > alone.frames["scale"]["high"]
    assert both.fixed["score_top"] > alone.fixed["score_top"]
    assert both.fixed["score_top"] >= float(pair[0].telemetry().routing_score.max())
    assert both.fixed["gain_top"]["change"] >= 0.04


def test_scores_and_gains_reach_the_page_as_they_were_captured(pair):
    one, telemetry = TrainingMovie(pair[0]).fixed["runs"][0], pair[0].telemetry()
    np.testing.assert_array_equal(values(one["scores"]), telemetry.routing_score)
    np.testing.assert_array_equal(values(one["gains"]["change"]), telemetry.gain_change)
    np.testing.assert_array_equal(values(one["gains"]["rms"]), telemetry.gain_rms)
    assert one["norms"] == list(telemetry.norms)


def test_curves_hold_the_mean_of_the_last_ten_steps_and_each_check(pair):
    curves, steps = TrainingMovie(pair[0]).fixed["runs"][0]["curves"], pair[0].steps
    assert curves["batch"]["step"] == list(range(1, 61))
    assert curves["batch"]["loss"][24] == pytest.approx(np.mean([step.loss for step in steps[15:25]]), rel=1e-4)
    assert curves["batch"]["loss"][3] == pytest.approx(np.mean([step.loss for step in steps[:4]]), rel=1e-4)
    checks = [(step.index + 1, step.validation.accuracy) for step in steps if step.validation]
    assert list(zip(curves["checks"]["step"], curves["checks"]["accuracy"], strict=True)) == checks


def test_chance_and_trivial_solvers_are_named_with_their_accuracy(pair):
    assert TrainingMovie(pair[0]).fixed["levels"] == [[0.5, "chance, copy a 50.0 %"], [0.55, "majority 55.0 %"]]


def test_it_starts_with_the_heads_that_route_most_at_the_end(pair):
    scores = pair[0].telemetry().routing_score[-1]
    best = [list(divmod(int(i), 4)) for i in scores.flatten().argsort(descending=True)[:2]]
    assert TrainingMovie(pair[0]).choice["heads"] == best
    assert TrainingMovie(pair[0], heads=[(0, 3)]).choice["heads"] == [[0, 3]]


def test_more_patterns_than_a_page_bears_are_those_of_the_best_heads(pair, monkeypatch):
    monkeypatch.setattr(training_movie, "PAYLOAD_BYTES", 2 * 4 * 3 * 6)  # two heads: 4 captures of 3 x 6
    movie = TrainingMovie(pair[0])
    assert movie.fixed["heads"] == sorted(movie.choice["heads"])
    assert values(movie.frames["runs"][0]).shape == (4, 2, 3, 6)
    left_out = next(head for head in HEADS if list(head) not in movie.fixed["heads"])
    with pytest.raises(ConfigError, match=f"no pattern of L{left_out[0]}H{left_out[1]} is at hand.*telemetry_heads"):
        movie.choose(heads=[left_out])


def test_long_sequences_are_binned_to_the_largest_weight(pair, monkeypatch):
    monkeypatch.setattr(_captured, "WHOLE_TOKENS", 3)
    movie, mean = TrainingMovie(pair[0]), pair[0].telemetry().patterns.double().mean(2).numpy()
    assert movie.frames["bin"] == 2
    assert movie.frames["names"][0]["column_labels"] == ["a0 … a1", "a2 … b0", "b1 … b2"]
    wanted = mean[..., :2, :].reshape(4, 8, 2, 3, 2).max((-1, -3))
    np.testing.assert_allclose(weights(movie, 0)[:, :, 0], wanted, atol=0.003)


def test_a_run_that_ended_early_keeps_its_last_capture(tmp_path, pair):
    short = filmed(tmp_path / "short", n_steps=40)
    movie = TrainingMovie(pair[0], compare=short)
    assert movie.fixed["steps"] == [0, 20, 40, 60]
    assert "at step 40" in movie.alt
    assert movie.reply({"ask": "weight", "run": 1, "head": [1, 2], "step": 60, "r": 0, "c": 0})[
        "weight"
    ] == pytest.approx(float(short.telemetry().patterns[-1, 6, :, 0, 0].float().mean()))


def test_a_run_whose_task_has_no_needs_has_a_movie_without_scores(tmp_path):
    record = filmed(tmp_path / "run", change=lambda taken: replace(taken, routing_score=None))
    movie = TrainingMovie(record)
    assert movie.fixed["runs"][0]["scores"] is None
    assert movie.fixed["score_top"] is None
    assert movie.choice["heads"] == [[0, 0], [0, 1]]


def test_without_a_head_chosen_the_figure_is_of_the_curves(pair):
    movie = TrainingMovie(pair[0])
    n_panels = len(movie.figure().panels)
    movie.choose(heads=[])
    assert len(movie.figure().panels) == n_panels - 1 == 2


# What it says


def test_the_alt_text_follows_the_step(pair):
    movie = TrainingMovie(pair[0])
    last = movie.alt
    movie.choose(step=20)
    assert "step 20 of 60" in movie.alt
    assert movie.alt != last


def test_the_state_recreates_the_movie(pair):
    movie = TrainingMovie(pair[0])
    movie.choose(step=40, example=1, heads=[[0, 2]], gains="rms", speed=8)
    again = TrainingMovie(pair[0], state=movie.state)
    assert again.choice == movie.choice
    assert again.frames == movie.frames


def test_the_exact_weight_is_the_one_captured(pair):
    found = TrainingMovie(pair[0]).reply({"ask": "weight", "run": 0, "head": [1, 2], "step": 40, "r": 1, "c": 4})
    wanted = pair[0].telemetry().patterns[2, 6, :, 1, 4].float().mean()
    assert found == {"weight": pytest.approx(float(wanted))}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"step": 30}, "no captured step 30 here; there are captured steps 0, 20, 40, 60"),
        ({"example": 3}, "no example 3"),
        ({"gains": "mean"}, "change, rms"),
        ({"speed": 3}, "1, 2, 4, 8 and 16"),
        ({"heads": [[5, 0]]}, "no pattern of L5H0"),
        ({"heads": [list(head) for head in HEADS]}, "at most 6 heads are shown at a time, got 8"),
    ],
    ids=["step", "example", "gains", "speed", "head", "too many heads"],
)
def test_what_is_not_there_cannot_be_chosen_and_nothing_changes(pair, fields, told):
    movie = TrainingMovie(pair[0])
    before = movie.choice
    with pytest.raises(ConfigError, match=told):
        movie.choose(**fields)
    assert movie.choice == before
    movie.choice = {**before, **fields}  # as a page would
    assert movie.choice == before
    assert movie.notice


def test_a_field_that_is_not_there_names_the_nearest(pair):
    with pytest.raises(UnknownNameError, match="Did you mean 'step'"):
        TrainingMovie(pair[0]).choose(steps=20)


# What it refuses


def test_a_run_without_captures_says_which_option_makes_them(tmp_path):
    record = made["make_run"](tmp_path / "run")
    with pytest.raises(RecordError, match=r"train\.telemetry_every=50") as told:
        TrainingMovie(record)
    assert str(record.path) in str(told.value)


def test_what_is_no_record_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"got str: TrainingMovie\(fpt_viz\.load_run"):
        TrainingMovie("data/runs/xor")


def test_a_damaged_capture_is_named(tmp_path):
    record = filmed(tmp_path / "run")
    frame_path(record.path, 40).write_bytes(b"cut")
    with pytest.raises(RecordError, match=r"step_00000040\.safetensors"):
        TrainingMovie(record)


def test_a_missing_capture_is_named(tmp_path):
    record = filmed(tmp_path / "run")
    frame_path(record.path, 20).unlink()
    with pytest.raises(RecordError, match=r"step_00000020\.safetensors is missing"):
        TrainingMovie(record)


def test_weights_that_are_no_numbers_are_refused_with_their_number(tmp_path):
    def spoilt(taken: TelemetryFrame) -> TelemetryFrame:
        if taken.step == 20:
            taken.patterns[0, 0, 0, :2] = float("nan")
        return taken

    with pytest.raises(RecordError, match="2 of 1728 attention weights"):
        TrainingMovie(filmed(tmp_path / "run", change=spoilt))


def test_runs_of_different_tasks_share_no_scale(tmp_path, pair):
    other = filmed(tmp_path / "other")
    text = (other.path / run_files.CONFIG).read_text().replace("bit_xor", "bit_memory")
    (other.path / run_files.CONFIG).write_text(text)
    run_files.seal(other.path, {k: v for k, v in other.result.items() if k not in ("files", "sha256")})
    with pytest.raises(ConfigError, match="bit_xor.*bit_memory"):
        TrainingMovie(pair[0], compare=load_run(other.path))


def test_runs_of_different_examples_are_compared_by_their_means_alone(tmp_path, pair):
    other = filmed(tmp_path / "run", change=lambda taken: replace(taken, labels=taken.labels[::-1]))
    movie = TrainingMovie(pair[0], compare=other)
    assert movie.fixed["n_examples"] == 0
    with pytest.raises(ConfigError, match="no example 0"):
        movie.choose(example=0)


def test_runs_of_different_lengths_are_refused_with_both_sizes(tmp_path, pair):
    def longer(taken: TelemetryFrame) -> TelemetryFrame:
        found = frame(taken.step, 60, "pretrained", n_bits=4)
        return found

    other = filmed(tmp_path / "run", change=longer)
    with pytest.raises(ConfigError, match="3 queries by 6 keys and 4 by 8"):
        TrainingMovie(pair[0], compare=other)


# The saved page


def test_a_saved_page_holds_every_example_and_step(pair, tmp_path):
    movie = TrainingMovie(pair[0])
    movie.choose(example=1)
    page = movie.to_html(tmp_path / "movie.html")
    assert (tmp_path / "movie.html").read_text() == page
    assert [choice["example"] for choice in movie.offline("frames")] == [1, -1, 0, 2]
    assert movie.choice["example"] == 1
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page


def test_a_saved_page_of_large_patterns_holds_fewer_examples(pair, monkeypatch):
    movie = TrainingMovie(pair[0])
    n_bytes = sum(len(one["data"]) for one in movie.frames["runs"])
    monkeypatch.setattr(training_movie, "OFFLINE_BYTES", 2 * n_bytes)
    assert len(movie.offline("frames")) == 2


def test_a_figure_is_saved_with_the_patterns_up_to_the_step(pair, tmp_path):
    movie = TrainingMovie(pair[0], compare=pair[1])
    movie.choose(step=40)
    figure = movie.figure()
    assert "3 steps across" in figure.alt
    movie.save(tmp_path / "movie.svg")
    assert (tmp_path / "movie.svg").stat().st_size > 10_000


def test_store_is_untouched_by_a_movie(pair):
    before = {path: store.sha256(path) for path in sorted(pair[0].path.rglob("*")) if path.is_file()}
    TrainingMovie(pair[0]).to_html()
    assert before == {path: store.sha256(path) for path in sorted(pair[0].path.rglob("*")) if path.is_file()}

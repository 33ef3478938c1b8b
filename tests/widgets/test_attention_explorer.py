"""What the explorer shows of each kind of source, through its traits; no browser."""

from __future__ import annotations

from dataclasses import replace

from made_attention import make_maps
import numpy as np
import pytest
import torch

import fpt_viz as fpt
from fpt_viz.errors import ConfigError, RecordError, UnknownNameError
from fpt_viz.widgets._patterns import binned, quantised
from fpt_viz.widgets.attention_explorer import AttentionExplorer


def detail(widget: AttentionExplorer) -> np.ndarray:
    values = widget.detail["values"]
    return np.frombuffer(values["data"], dtype=np.float32).reshape(values["shape"])


@pytest.fixture(scope="module")
def model():
    task = fpt.load_task("bit_xor")
    return fpt.FrozenPretrainedTransformer(fpt.load_backbone("bert-tiny-random", "random"), task).eval()


def test_arrays_of_any_library_show_their_own_weights():
    maps = make_maps()
    for source in (maps.weights.numpy(), list(maps.weights), maps):
        widget = AttentionExplorer(source)
        widget.choose(example=1, layer=1, head=2)
        np.testing.assert_array_equal(detail(widget), maps.weights[1, 1, 2])


def test_a_model_shows_what_it_captures_of_its_own_task(model):
    widget = AttentionExplorer(model, n_examples=3)
    batch = model.task.distinct(3, "validation", 0)
    maps = model.capture(batch, queries=None)
    widget.choose(example=2, layer=1, head=3)
    np.testing.assert_array_equal(detail(widget), maps.weights[1, 2, 3])
    assert widget.detail["row_labels"] == model.task.labels(batch.inputs[2])


def test_statistics_show_their_mean_patterns_and_scores(model):
    stats = fpt.head_statistics(model, model.task, n_examples=16)
    widget = AttentionExplorer(stats)
    layer, head = stats.ranking()[0]
    assert (widget.choice["layer"], widget.choice["head"]) == (layer, head)
    np.testing.assert_array_equal(detail(widget), stats.mean_pattern[layer, head])
    assert widget.fixed["metrics"]["a"]["routing"]["values"] == stats.routing_score.tolist()
    assert widget.fixed["n_examples"] == 0


def test_a_model_that_was_trained_since_says_so_and_keeps_what_it_shows(model):
    widget = AttentionExplorer(model, n_examples=2)
    before = widget.tiles
    with torch.no_grad():
        model.output.bias.add_(1.0)
    widget.choose(layer=1, head=1)
    assert "has changed since this widget was made" in widget.notice
    assert widget.tiles == before


def test_the_state_recreates_the_widget_and_is_plain_data():
    import json

    maps = make_maps()
    widget = AttentionExplorer(maps)
    widget.choose(example=3, layer=1, head=1, view="lines", sort="entropy", least=0.5)
    state = json.loads(json.dumps(widget.state))
    again = AttentionExplorer(maps, state=state)
    assert again.choice == widget.choice
    assert again.tiles == widget.tiles
    fresh = AttentionExplorer(maps)
    fresh.state = state
    assert fresh.choice == widget.choice


@pytest.mark.parametrize("suffix", ["pdf", "svg", "png", "html", "csv"])
def test_what_is_on_screen_is_what_is_saved(tmp_path, suffix):
    widget = AttentionExplorer(make_maps())
    widget.choose(example=1, layer=1, head=2)
    assert "head L1H2" in widget.figure().title
    assert widget.save(tmp_path / f"head.{suffix}").stat().st_size > 500


def test_the_figure_follows_the_view(tmp_path):
    maps = make_maps()
    widget = AttentionExplorer(maps, compare=make_maps(seed=4))
    assert widget.figure().title.startswith("Mean attention of all")
    widget.choose(example=0, view="lines")
    assert widget.figure().title.startswith("What head")
    widget.choose(side="difference", view="pattern")
    assert widget.figure().title.startswith("Difference of head")
    assert widget.alt == widget.figure().alt


def test_the_page_is_the_same_bytes_each_time():
    assert AttentionExplorer(make_maps()).to_html() == AttentionExplorer(make_maps()).to_html()


def test_a_notebook_gets_the_widget_a_still_picture_and_words():
    bundle, _ = AttentionExplorer(make_maps())._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/plain"].startswith("Grid of mean attention patterns")
    assert '<img alt="Grid of mean' in bundle["text/html"]


def test_a_choice_that_is_not_there_is_refused_with_what_there_is():
    widget = AttentionExplorer(make_maps())
    for choice, said in (
        ({"layer": 7}, "no layer 7 here; there are layers 0, 1"),
        ({"head": 3}, "no head 3 here"),
        ({"example": 9}, "no example 9"),
        ({"side": "c"}, "side must be one of a, got 'c'"),
        ({"sort": "size"}, "heads cannot be sorted by 'size': there are place, routing"),
        ({"zoom": [9, 9, 0, 1]}, "lies outside"),
    ):
        with pytest.raises(ConfigError, match=said):
            widget.choose(**choice)
    with pytest.raises(UnknownNameError, match="layr"):
        widget.choose(layr=1)


def test_what_a_page_chooses_wrongly_is_said_and_changes_nothing():
    widget = AttentionExplorer(make_maps())
    before, tiles = widget.choice, widget.tiles
    widget.choice = {**before, "layer": 9}
    assert (widget.choice, widget.tiles) == (before, tiles)
    assert "no layer 9" in widget.notice
    widget.choice = {**before, "layer": 1 - before["layer"]}
    assert widget.notice == ""


def test_bad_sources_are_refused_with_both_values(tmp_path):
    maps = make_maps()
    bad = maps.weights.clone()
    bad[0, 0, 0, 0, 0] = torch.nan
    with pytest.raises(RecordError):
        AttentionExplorer(bad)
    with pytest.raises(RecordError, match="1 of 864 attention weights are NaN or infinite"):
        AttentionExplorer(replace(maps, weights=bad))
    with pytest.raises(RecordError, match="wants 6 labels of an example, got 5"):
        AttentionExplorer(replace(maps, labels=tuple(row[:5] for row in maps.labels)))
    with pytest.raises(RecordError, match="cannot be compared"):
        AttentionExplorer(maps, compare=make_maps(n_tokens=5))
    with pytest.raises(ConfigError, match="no state of AttentionExplorer: it is of BitLab"):
        AttentionExplorer(maps, state={"widget": "BitLab", "choice": {}})


def test_closing_twice_is_closing():
    widget = AttentionExplorer(make_maps())
    widget.close()
    widget.close()


def test_a_padded_example_shows_no_padding():
    maps = make_maps(n_examples=2)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    weights = maps.weights.clone()
    weights[:, 1, :, :, 4:] = 0
    weights = weights / weights.sum(-1, keepdim=True)
    widget = AttentionExplorer(replace(maps, weights=weights, mask=mask))
    widget.choose(example=1)
    assert np.isnan(detail(widget)[:, 4:]).all()
    tiles = np.frombuffer(widget.tiles["values"]["data"], dtype=np.uint8).reshape(2, 3, 6, 6)
    assert (tiles[..., 4:] == 255).all()


def test_8_bits_are_within_half_a_step_and_bins_hold_the_largest():
    values = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).numpy()
    assert np.abs(quantised(values, 0.0, 1.0) / 254 - values).max() <= 0.5 / 254 + 1e-7
    found = binned(-values, 3)
    assert found.shape == (2, 3, 3, 3)
    assert found[1, 2, 0, 1] == -values[1, 2, 0:3, 3:6].max()
    assert found[1, 2, 2, 2] == -values[1, 2, 6:, 6:].max()


def test_the_tiles_of_144_heads_of_64_tokens_are_within_the_payload():
    widget = AttentionExplorer(make_maps(12, 12, 64, n_examples=1))
    assert len(widget.tiles["values"]["data"]) == 12 * 12 * 64 * 64
    assert len(widget.tiles["values"]["data"]) + len(widget.detail["values"]["data"]) < 700_000


def test_answers_that_are_kept_have_a_bound_in_bytes(monkeypatch):
    monkeypatch.setattr("fpt_viz.widgets.base.KEPT_BYTES", 3 * 2 * 3 * 36)
    widget = AttentionExplorer(make_maps(n_examples=8))
    for example in range(8):
        widget.choose(example=example)
    kept = [place for place in widget._kept if place[0] == "tiles"]
    assert len(kept) <= 3


def test_each_side_has_its_own_scores_and_a_difference_none():
    first, second = make_maps(), make_maps(seed=8)
    metrics = AttentionExplorer(first, compare=second).fixed["metrics"]
    assert metrics["a"] == AttentionExplorer(first).fixed["metrics"]["a"]
    assert metrics["b"] == AttentionExplorer(second).fixed["metrics"]["a"]
    assert metrics["a"] != metrics["b"]
    assert "difference" not in metrics


def test_a_model_that_is_compared_with_is_watched_too(model):
    maps = model.capture(model.task.distinct(2, "validation", 0), queries=None)
    widget = AttentionExplorer(maps, compare=model, n_examples=2)
    with torch.no_grad():
        model.output.bias.add_(1.0)
    before = widget.choice
    widget.choose(layer=1, head=1)
    assert "has changed" in widget.notice
    assert widget.choice == before


def test_a_page_saved_after_the_model_changed_says_so_and_asks_it_nothing(model, monkeypatch):
    widget = AttentionExplorer(model, n_examples=2)
    with torch.no_grad():
        model.output.bias.add_(1.0)
    monkeypatch.setattr(widget, "answer", None)
    assert "has changed since this widget was made" in widget.to_html()


def test_an_error_that_nobody_foresaw_is_said_and_leaves_what_is_shown():
    widget = AttentionExplorer(make_maps())
    before, tiles = widget.choice, widget.tiles
    widget.answer = lambda trait, choice: 1 / 0  # type: ignore[method-assign]
    widget.choice = {**before, "example": 2}
    assert (widget.choice, widget.tiles) == (before, tiles)
    assert "ZeroDivisionError" in widget.notice


def test_a_state_of_what_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="no layer 9"):
        AttentionExplorer(make_maps(), state={"widget": "AttentionExplorer", "choice": {"layer": 9}})

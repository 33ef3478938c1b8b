"""Each figure shows the numbers of its record, on the scale it states, and says them in its alt text."""

from __future__ import annotations

from dataclasses import replace
import re
from typing import Any

import numpy as np
import pytest
import torch

from fpt_viz import registry
from fpt_viz.errors import ConfigError, RecordError, UnknownNameError
from fpt_viz.export import Bars, Figure, Heatmap, HLine, Line, Points, Tiles, VLine
from fpt_viz.figures.base import outcome_named
from fpt_viz.records import AttentionMaps

BEST = (1, 2)  # the head that routes in the records of conftest.py


def mark_of(figure: Figure, kind: type) -> Any:
    [mark] = [mark for mark in figure.marks() if isinstance(mark, kind)]
    return mark


def show(name: str, *args: Any, **options: Any) -> Figure:
    figure: Figure = registry.load("figures", name)(*args, **options)
    return figure


def test_every_figure_of_the_folder_is_drawn_both_ways(gallery):
    assert sorted(gallery) == registry.names("figures")
    for name, figure in gallery.items():
        assert figure.to_plotly().data, name


def test_every_figure_says_where_it_comes_from(gallery):
    for name, figure in gallery.items():
        if not any(line in figure.source for line in ("run", "runs")):
            assert figure.source.get("about") in ("bit_xor", "digits") or name == "training_strip"  # arrays say no more
            continue
        told = figure.source.get("runs", [figure.source])
        assert all(entry["task"] in ("bit_xor", "digits") and entry["run"].startswith("xor-") for entry in told), name


@pytest.mark.slow
def test_what_must_be_known_of_a_task_is_said_in_every_place(maps, statistics, patching, runs):
    lossy = "brackets are dropped, and what is left is cut at 512 tokens"
    source = {**statistics.source, "note": lossy}
    records = [replace(record, result={**record.result, "note": lossy}) for record in runs]
    shown = {
        "attention_heatmap": replace(maps, source=source),
        "head_grid": replace(statistics, source=source),
        "training_curves": records,
        "run_comparison": records,
        "routing_table": replace(statistics, source=source),
        "ablation_effects": replace(runs[0].ablation(), source=source),
        "top_heads": replace(runs[0].top_heads(), source=source),
        "patching_heatmap": replace(patching, source=source),
    }
    for name, record in shown.items():
        figure = show(name, record)
        assert figure.caveat == f"bit_xor: {lossy}.", name
        for words in (figure.note, figure.alt):
            assert words.count(lossy) == 1, name
        for preset in ("paper", "icml"):  # the second leaves title and note to the caption
            told = " ".join(text.get_text() for text in figure.to_matplotlib(preset=preset).texts)
            assert lossy in " ".join(told.split()), name
        assert lossy in figure.to_html(), name


def test_a_figure_of_a_task_without_caveat_says_none(gallery):
    assert all(figure.caveat == "" for figure in gallery.values())


def test_heatmap_shows_the_captured_weights_on_a_scale_from_0_to_1(maps):
    figure = show("attention_heatmap", maps, layer=1, head=2, example=1)
    expected = maps.weights[1, 1, 2].numpy()
    np.testing.assert_array_equal(mark_of(figure, Heatmap).z, expected)
    np.testing.assert_array_equal(figure.to_plotly().data[0].z, expected)
    np.testing.assert_array_equal(np.asarray(figure.to_matplotlib().axes[0].images[0].get_array()), expected)
    axis = figure.to_plotly().layout.coloraxis
    assert (axis.cmin, axis.cmax) == (0, 1)


def test_heatmap_names_queries_down_and_keys_across(maps):
    layout = show("attention_heatmap", maps, example=1).to_plotly().layout
    assert list(layout.xaxis.ticktext) == list(maps.labels[1])
    assert list(layout.yaxis.ticktext) == list(maps.labels[1][3:])
    assert (layout.xaxis.title.text, layout.yaxis.title.text) == ("key (is read)", "query (reads)")


def test_heatmap_outlines_what_the_query_needs(maps):
    assert mark_of(show("attention_heatmap", maps), Heatmap).boxed == ((0, 0), (1, 1), (2, 2))


def test_heatmap_hatches_what_a_causal_model_cannot_see(make_causal_maps):
    mark = mark_of(show("attention_heatmap", make_causal_maps), Heatmap)
    np.testing.assert_array_equal(mark.unreachable, [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1], [0] * 6])
    assert np.isnan(mark.shown[0, 5])


@pytest.fixture
def make_causal_maps(maps) -> AttentionMaps:
    return replace(maps, causal=True)


def test_heatmap_blanks_padding(maps):
    mask, queries = maps.mask.clone(), maps.queries.clone()
    mask[0, 5], queries[0, 2] = False, -1  # the last token of example 0 is padding, and asks nothing
    mark = mark_of(show("attention_heatmap", replace(maps, mask=mask, queries=queries)), Heatmap)
    assert mark.z.shape == (2, 6)
    assert np.isnan(mark.z[:, 5]).all()
    assert np.isfinite(mark.z[:, :5]).all()
    assert mark.x_labels[5] == ""


def test_heatmap_of_what_was_not_captured_says_what_was(maps):
    some = replace(maps, layers=(0, 5))
    with pytest.raises(ConfigError, match="no layer 1 here; there are layers 0, 5"):
        show("attention_heatmap", some, layer=1)
    with pytest.raises(ConfigError, match="no head 9 here; there are heads 0 to 3"):
        show("attention_heatmap", maps, head=9)
    with pytest.raises(ConfigError, match="no example -1 here; there are examples 0, 1"):
        show("attention_heatmap", maps, example=-1)
    figure = show("attention_heatmap", some, layer=5, head=2)
    np.testing.assert_array_equal(mark_of(figure, Heatmap).z, maps.weights[1, 0, 2].numpy())


def test_heatmap_alt_text_says_how_much_lies_on_the_needed_keys(maps):
    on_needed = torch.stack([maps.weights[1, 0, 2, i, i] for i in range(3)]).mean()
    alt = show("attention_heatmap", maps, layer=1, head=2).alt
    assert f"Head L1H2 puts {on_needed:.3f} of read-out attention" in alt
    assert f"({maps.weights[1, 0, 2, 0, 0]:.3f})" in alt


def test_alt_text_does_not_count_attention_to_itself(maps):
    needs = maps.needs.clone()
    needs[:, range(3), range(3, 6)] = True  # each query also needs itself
    plain, own = (show("attention_heatmap", m, layer=1, head=2).alt for m in (maps, replace(maps, needs=needs)))
    assert plain == own


def test_grid_shows_each_head_in_its_tile_on_one_scale(statistics):
    figure = show("head_grid", statistics)
    tiles = mark_of(figure, Tiles)
    for canvas in (figure.to_plotly().data[0].z, np.asarray(figure.to_matplotlib().axes[0].images[0].get_array())):
        for layer, head in np.ndindex(2, 4):
            y, x = tiles.corner(layer, head)
            np.testing.assert_array_equal(canvas[y : y + 3, x : x + 6], statistics.mean_pattern[layer, head].numpy())
            assert tiles.captions[layer][head] == f"L{layer}H{head}"
    norm = figure.to_matplotlib().axes[0].images[0].norm
    axis = figure.to_plotly().layout.coloraxis
    assert figure.to_plotly().data[0].coloraxis == "coloraxis"
    assert (norm.vmin, norm.vmax) == (axis.cmin, axis.cmax)
    assert axis.cmin == 0
    assert float(statistics.mean_pattern.max()) <= axis.cmax <= float(statistics.mean_pattern.max()) + 0.05
    assert f"0 to {axis.cmax:g}" in figure.note


def test_grid_outlines_the_best_routing_head_or_those_asked_for(statistics):
    assert mark_of(show("head_grid", statistics), Tiles).highlighted == (BEST,)
    assert mark_of(show("head_grid", statistics, highlight=[(0, 1), (1, 0)]), Tiles).highlighted == ((0, 1), (1, 0))
    assert mark_of(show("head_grid", statistics, highlight=()), Tiles).highlighted == ()
    with pytest.raises(ConfigError, match="no layer 2 here; there are layers 0, 1"):
        show("head_grid", statistics, highlight=[(2, 0)])


def test_grid_names_the_highest_routing_scores(statistics):
    score = float(statistics.routing_score.max())
    figure = show("head_grid", statistics)
    assert f"L1H2 ({score:.3f})" in figure.alt
    assert mark_of(figure, Tiles).values[1][2] == f"{score:.2f}".lstrip("0")


def test_grid_of_a_task_without_needs_has_no_scores(statistics):
    bare = replace(statistics, routing_score=None, routing_interval=None, uniform=None, permuted=None)
    figure = show("head_grid", bare)
    assert mark_of(figure, Tiles).values is None
    assert mark_of(figure, Tiles).highlighted == ()
    assert f"{float(bare.mean_pattern.max()):.3f}" in figure.alt
    with pytest.raises(RecordError, match="no routing score"):
        show("routing_table", bare)


def test_grid_of_maps_is_the_mean_over_examples(maps):
    tiles = mark_of(show("head_grid", maps), Tiles)
    np.testing.assert_allclose(tiles.z, maps.weights.mean(1).numpy(), rtol=1e-6)
    assert tiles.x_labels == ("a0", "a1", "a2", "b0", "b1", "b2")
    queries = maps.queries.clone()
    queries[1] -= 1
    with pytest.raises(ConfigError, match="read for different tokens"):
        show("head_grid", replace(maps, queries=queries))


def test_curves_are_the_steps_of_the_run_and_the_levels_of_its_evaluation(runs):
    figure = show("training_curves", runs)
    accuracy = figure.panels[0].marks
    lines = [mark for mark in accuracy if isinstance(mark, Line)]
    checks = [(s.index + 1, s.validation.accuracy) for s in runs[0].steps if s.validation]
    validation = next(line for line in lines if line.markers)
    np.testing.assert_array_equal(np.stack([validation.x, validation.y], 1), checks)
    batch = next(line for line in lines if line.faint)
    window = [step.accuracy for step in runs[0].steps[21:31]]
    assert batch.y[30] == pytest.approx(sum(window) / 10)
    assert batch.y[0] == pytest.approx(runs[0].steps[0].accuracy)
    levels = {mark.label: mark.at for mark in accuracy if isinstance(mark, HLine)}
    assert levels == {"chance, copy a 50.0 %": 0.5, "majority 55.0 %": 0.55}
    [solved] = [mark for mark in accuracy if isinstance(mark, Points)]
    assert solved.x.tolist() == [50]


def test_curves_say_which_run_solved_the_task(runs):
    figure = show("training_curves", runs)
    assert "minilm pretrained seed 0: solved at step 50" in figure.alt
    assert "minilm random seed 0: not solved in 60 steps" in figure.alt
    named = [trace.name for trace in figure.to_plotly().data if trace.showlegend]
    assert named == [
        "minilm pretrained seed 0, solved at step 50",
        "minilm random seed 0, not solved in 60 steps",
    ]


def test_comparison_shows_test_accuracy_with_its_interval_beside_the_levels(runs):
    figure = show("run_comparison", runs)
    bars = mark_of(figure, Bars)
    tests = [record.evaluation for record in runs]
    assert bars.values.tolist() == [test.accuracy for test in tests]
    assert list(zip(bars.low, bars.high, strict=True)) == [test.interval for test in tests]
    assert {mark.at for mark in figure.marks() if isinstance(mark, HLine)} == {0.5, 0.55}
    assert figure.panels[0].y_range[0] == 0
    assert "0.999" in figure.alt
    assert "0.513" in figure.alt
    [error] = [trace.error_y for trace in figure.to_plotly().data if trace.type == "bar"]
    assert error.arrayminus == pytest.approx([0.012, 0.012])


def test_runs_of_one_name_are_told_apart(runs):
    figure = show("run_comparison", [runs[0], runs[0]])
    assert "minilm pretrained seed 0 (2)" in figure.alt


@pytest.mark.parametrize("name", ["training_curves", "run_comparison"])
def test_accuracies_of_no_run_or_of_different_tasks_are_refused(name, runs):
    with pytest.raises(ConfigError, match="no run was given"):
        show(name, [])
    other = replace(runs[0], config={**runs[0].config, "task": {"name": "digits"}})
    with pytest.raises(ConfigError, match="bit_xor and digits"):
        show(name, [runs[0], other])


def test_routing_ranks_on_validation_and_reports_test(statistics, test_statistics):
    flipped = replace(test_statistics, routing_score=test_statistics.routing_score.flip(0))
    figure = show("routing_table", statistics, flipped, top=3)
    shown = next(mark for mark in figure.marks() if isinstance(mark, Points) and mark.label == "test")
    heads = statistics.ranking()[:3]
    assert heads[0] == BEST
    assert shown.x.tolist() == pytest.approx([float(flipped.routing_score[head]) for head in heads])
    low = [float(flipped.routing_interval[head][0]) for head in heads]
    np.testing.assert_allclose(shown.low, low)
    assert list(figure.to_plotly().layout.yaxis.ticktext) == [f"L{layer}H{head}" for layer, head in heads]


def test_routing_stands_beside_both_baselines(statistics, test_statistics):
    figure = show("routing_table", statistics, test_statistics)
    assert mark_of(figure, VLine).at == pytest.approx(1 / 6)
    wrong = next(mark for mark in figure.marks() if isinstance(mark, Points) and "permuted" in mark.label)
    assert wrong.x[0] == pytest.approx(float(test_statistics.permuted[BEST]))
    assert f"L1H2 {float(test_statistics.routing_score[BEST]):.3f}" in figure.alt


def test_routing_without_a_test_split_says_that_its_scores_were_chosen(statistics, test_statistics):
    assert "a little too high" in show("routing_table", statistics).note
    assert "a little too high" not in show("routing_table", statistics, test_statistics).note


def test_routing_of_different_models_is_refused(statistics, test_statistics):
    tensors = {name: value for name, value in vars(test_statistics).items() if isinstance(value, torch.Tensor)}
    fewer = replace(test_statistics, **{name: value[:, :3] for name, value in tensors.items()})
    with pytest.raises(ConfigError, match="different models"):
        show("routing_table", statistics, fewer)
    with pytest.raises(ConfigError, match="top must be at least 1"):
        show("routing_table", statistics, top=0)


def test_ablation_shows_each_heads_drop_on_a_scale_centred_on_0(runs):
    effects = runs[0].ablation()
    figure = show("ablation_effects", effects)
    mark = mark_of(figure, Heatmap)
    np.testing.assert_array_equal(mark.z, np.array(effects.accuracy_drop).reshape(2, 4))
    assert mark.colours.vmin == -mark.colours.vmax
    assert mark.colours.vmax == max(map(abs, effects.accuracy_drop))
    sure = [
        heads[0] for heads, (low, high) in zip(effects.sets, effects.accuracy_interval, strict=True) if low * high > 0
    ]
    assert BEST in sure
    assert sorted(mark.boxed) == sorted(sure)
    assert "L1H2 0.124" in figure.alt
    gains = {"accuracy_drop": tuple(-drop for drop in effects.accuracy_drop)}
    gains["accuracy_interval"] = tuple((-high, -low) for low, high in effects.accuracy_interval)
    turned = mark_of(show("ablation_effects", replace(effects, **gains)), Heatmap)
    assert sorted(turned.boxed) == sorted(sure)


def test_ablation_marks_the_heads_that_route(runs, statistics):
    mark = mark_of(show("ablation_effects", runs[0].ablation(), stats=statistics), Heatmap)
    assert set(mark.dotted) == set(statistics.ranking()[:5])


def test_ablation_of_some_heads_leaves_the_others_blank(runs):
    effects = runs[0].ablation()
    fields = (
        "sets",
        "accuracy_drop",
        "accuracy_interval",
        "loss_rise",
        "loss_interval",
        "logit_drop",
        "logit_interval",
    )
    some = replace(effects, **{name: getattr(effects, name)[1:6:4] for name in fields})  # L0H1 and L1H1
    mark = mark_of(show("ablation_effects", some), Heatmap)
    assert (mark.x_labels, mark.y_labels) == (("1",), ("0", "1"))
    with pytest.raises(ConfigError, match="sets of 1, 2, 4 and 8"):
        show("ablation_effects", runs[0].top_heads().top)


@pytest.mark.parametrize("outcome", ["loss", "logit"])
def test_an_ablation_can_be_shown_by_each_of_its_outcomes(runs, outcome):
    single, together = runs[0].ablation(), runs[0].top_heads()
    change = {"loss": "loss_rise", "logit": "logit_drop"}[outcome]

    shown = mark_of(show("ablation_effects", single, outcome=outcome), Heatmap)
    np.testing.assert_allclose(np.sort(shown.z.ravel()), np.sort(getattr(single, change)))
    lines = [mark for mark in show("top_heads", together, outcome=outcome).marks() if isinstance(mark, Line)]
    np.testing.assert_allclose(lines[-1].y, getattr(together.top, change))
    with pytest.raises(UnknownNameError, match="logit"):
        outcome_named("logits")


def test_top_heads_stand_beside_random_sets(runs):
    effects = runs[0].top_heads()
    figure = show("top_heads", effects)
    top = next(mark for mark in figure.marks() if isinstance(mark, Points))
    assert top.y.tolist() == list(effects.top.accuracy_drop)
    assert list(zip(top.low, top.high, strict=True)) == list(effects.top.accuracy_interval)
    random = next(mark for mark in figure.marks() if isinstance(mark, Line) and mark.low is not None)
    drops = [each.accuracy_drop for each in effects.random]
    assert random.low.tolist() == [min(drop) for drop in drops]
    assert random.high.tolist() == [max(drop) for drop in drops]
    assert random.y.tolist() == pytest.approx([sum(drop) / len(drop) for drop in drops])
    assert list(figure.to_plotly().layout.xaxis.ticktext) == ["1", "2", "4", "8"]
    assert "k=8: 0.412" in figure.alt


def test_numbers_of_alt_texts_are_numbers_of_the_records(gallery, runs):
    alt = gallery["training_curves"].alt
    accuracy = [float(found) for found in re.findall(r"test accuracy ([\d.]+\d)", alt)]
    assert accuracy == [round(record.evaluation.accuracy, 3) for record in runs]


def test_a_difference_is_the_second_less_the_first_on_a_scale_even_about_0(maps, statistics):
    uniform = replace(maps, weights=torch.full_like(maps.weights, 1 / maps.weights.shape[-1]))
    figure = show("attention_difference", uniform, maps, layer=1, head=2, example=0)
    mark = mark_of(figure, Heatmap)
    assert mark.z == pytest.approx((maps.weights - uniform.weights)[1, 0, 2].numpy(), abs=1e-7)
    assert mark.colours.vmin == -mark.colours.vmax
    assert mark.colours.signed
    mean = mark_of(show("attention_difference", uniform, maps, layer=1, head=2), Heatmap)
    assert mean.z == pytest.approx((maps.weights - uniform.weights)[1, :, 2].mean(0).numpy(), abs=1e-6)


def test_a_difference_of_other_examples_is_refused(maps, statistics):
    other = replace(maps, source={**maps.source, "inputs": "others"})
    with pytest.raises(RecordError, match="other examples, so they cannot be compared"):
        show("attention_difference", replace(maps, source={**maps.source, "inputs": "these"}), other)
    with pytest.raises(ConfigError, match="means alone, not example 0"):
        show("attention_difference", statistics, statistics, example=0)

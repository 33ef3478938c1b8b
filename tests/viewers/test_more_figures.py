"""The figures of seeds, sweeps, patches and arrays show the numbers that they are given, and say them."""

from __future__ import annotations

from dataclasses import replace
import math
import re
from typing import Any

import numpy as np
import pytest
import torch

from fpt_viz import registry
from fpt_viz.errors import ConfigError
from fpt_viz.export import Bars, Figure, Heatmap, HLine, Line, Links, Picture, Points, Tiles, numbers
from fpt_viz.records import AttentionMaps, Geometry, RunRecord


def show(name: str, *args: Any, **options: Any) -> Figure:
    figure: Figure = registry.load("figures", name)(*args, **options)
    return figure


def marks_of(figure: Figure, kind: type) -> list[Any]:
    return [mark for mark in figure.marks() if isinstance(mark, kind)]


# Captions


def test_every_caption_holds_title_finding_and_note_and_its_numbers_are_drawn(gallery):
    for name, figure in gallery.items():
        assert figure.finding, name
        caption = figure.caption()
        assert caption.startswith(figure.title)
        assert figure.finding in caption
        assert figure.note in caption
        drawn = {f"{float(row['value']):.3f}" for row in numbers.rows(figure)}
        drawn |= {f"{float(row[end]):.3f}" for row in numbers.rows(figure) for end in ("low", "high") if row.get(end)}
        told = set(re.findall(r"(?<![\w.])-?\d\.\d{3}(?!\d)", figure.finding))
        assert told or name == "steps_to_solve", name  # whole steps
        rest = told - drawn
        allowed = {
            "ablation_effects": 6,  # ends of intervals, which are drawn as outlines
            "patching_heatmap": 9,
            "attention_heatmap": 1,  # the mean over the needed keys
            "head_grid": 4,  # routing scores, which stand above the tiles
            "learning_rate_sweep": 1,  # a learning rate, whose logarithm is drawn
            "routing_table": 1,  # the baseline of the first head, in single precision
            "training_curves": 2,  # test accuracy, beside the curves
        }
        assert len(rest) <= allowed.get(name, 0), (name, rest)


def test_a_caption_for_latex_prints_every_letter(gallery):
    figure = type(gallery["rollout"])(
        **{**vars(gallery["rollout"]), "title": "50% of $x_1$ & {y}", "note": r"a\b ~ c^2 #1 <i>", "finding": "é"}
    )
    assert figure.caption(latex=True) == (
        r"\textbf{50\% of \$x\_1\$ \& \{y\}.} é a\textbackslash{}b \textasciitilde{} c\textasciicircum{}2 \#1 "
        r"\textless{}i\textgreater{}"
    )


# Seeds, sweeps, groups


def test_curves_over_seeds_are_the_mean_in_a_band_from_lowest_to_highest(seeds):
    figure = show("training_curves", seeds, over_seeds=True)
    first = marks_of(replace(figure, panels=figure.panels[:1]), Line)[0]
    own = [{s.index + 1: s.validation.accuracy for s in run.steps if s.validation} for run in seeds[:3]]
    for i, step in enumerate(first.x.tolist()):
        values = [checks[step] for checks in own]
        assert first.y[i] == pytest.approx(sum(values) / 3)
        assert (first.low[i], first.high[i]) == (min(values), max(values))
    assert first.label == "minilm pretrained, 3 seeds"


def test_a_seed_that_ended_early_keeps_its_last_value(seeds):
    early = replace(seeds[0], steps=seeds[0].steps[:30])
    figure = show("training_curves", [early, seeds[1]], over_seeds=True)
    line = marks_of(figure, Line)[0]
    last = early.steps[29].validation.accuracy
    other = seeds[1].steps[59].validation.accuracy
    assert line.x[-1] == 60
    assert line.y[-1] == pytest.approx((last + other) / 2)


def test_bars_over_seeds_are_means_with_students_interval_and_the_papers_value_beside(seeds):
    figure = show("run_comparison", seeds, over_seeds=True, paper=[1.0, math.nan], paper_source="S1")
    [bars] = marks_of(figure, Bars)
    accuracies = [0.99, 0.993, 0.996]
    half = 4.302653 * np.std(accuracies, ddof=1) / math.sqrt(3)  # Student's t at 2 degrees, from a printed table
    assert bars.values[0] == pytest.approx(0.993)
    assert bars.low[0] == pytest.approx(0.993 - half)
    assert bars.high[0] == pytest.approx(min(1.0, 0.993 + half))
    [cross] = [mark for mark in marks_of(figure, Points) if mark.label == "the paper"]
    assert cross.y.tolist() == [1.0]
    assert "The paper reports: minilm pretrained 3 seeds 1.000." in figure.alt
    assert "S1" in figure.note
    with pytest.raises(ConfigError, match=r"1 values of the paper were given for 2 bars; give NaN"):
        show("run_comparison", seeds, over_seeds=True, paper=[1.0])


@pytest.mark.parametrize("name", ["training_curves", "run_comparison"])
def test_a_seed_given_twice_is_no_second_seed(name, seeds):
    with pytest.raises(ConfigError, match="seed 0 was given more than once"):
        show(name, [seeds[0], seeds[0]], over_seeds=True)


def test_steps_to_solve_shows_each_seed_once_and_the_unsolved_apart(seeds):
    figure = show("steps_to_solve", seeds)
    solved, never = marks_of(figure, Points)
    assert sorted(solved.x.tolist()) == [30, 40, 50, 60]
    assert never.x.tolist() == [60, 60]
    assert never.hollow
    assert sorted(np.round(solved.y).tolist()) == [0, 0, 0, 1]
    assert "minilm pretrained: solved by 3 of 3, median step 40" in figure.finding
    assert "minilm random: solved by 1 of 3, step 60" in figure.finding


def test_the_sweep_has_one_line_a_system_over_the_logarithm_of_the_rate(sweep):
    figure = show("learning_rate_sweep", sweep)
    lines = {line.label: line for line in marks_of(figure, Line)}
    np.testing.assert_allclose(lines["minilm pretrained"].x, [-4, -3, -2])
    assert lines["minilm random"].y.tolist() == [0.52, 0.6, 0.85]
    assert "minilm random: best at 0.01, 0.850" in figure.finding
    assert {mark.at for mark in marks_of(figure, HLine)} == {0.5, 0.55}
    with pytest.raises(ConfigError, match="several learning rates; all of these are at 0.0001"):
        show("learning_rate_sweep", [sweep[0], sweep[3]])


def test_groups_are_ordered_by_how_much_is_trained(groups):
    figure = show("group_ablation", list(reversed(groups)))
    [points] = marks_of(figure, Points)
    assert points.x.tolist() == [0.999, 0.93, 0.61, 0.5]
    assert figure.panels[0].y_ticks[1] == (
        "output, input, layer norm, position", "output, input, layer norm", "output, input", "nothing",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="compares which parameter groups learn"):
        show("group_ablation", groups[0])


def test_heads_are_ranked_by_what_is_lost_with_their_intervals(runs):
    effects = runs[0].ablation()
    figure = show("head_ranking", effects, top=3)
    [points] = marks_of(figure, Points)
    order = np.argsort(effects.accuracy_drop)[::-1][:3]
    assert points.x.tolist() == [effects.accuracy_drop[i] for i in order]
    assert list(zip(points.low, points.high, strict=True)) == [effects.accuracy_interval[i] for i in order]
    assert figure.panels[0].y_ticks[1][0] == "L1H2"
    with pytest.raises(ConfigError, match="top must be at least 1"):
        show("head_ranking", effects, top=0)


# Lines and graphs


def test_head_view_draws_each_weight_from_its_query_to_its_key(maps):
    figure = show("head_view", maps, layer=1, head=2, least=0.1)
    [links] = marks_of(figure, Links)
    weights = maps.weights[1, 0, 2].numpy()
    expected = {(3 + q, k): weights[q, k] for q, k in np.ndindex(weights.shape) if weights[q, k] >= 0.1}
    drawn = {(int(y0), int(y1)): z for y0, y1, z in zip(links.y0, links.y1, links.z, strict=True)}
    assert drawn == pytest.approx(expected)
    left_out = np.where(weights < 0.1, weights, 0).sum(axis=1).mean()
    assert f"they carry {left_out:.3f} of a row" in figure.note


def test_the_graph_keeps_the_largest_edges_of_the_head_that_reads_most(maps):
    figure = show("routing_graph", maps, edges=5)
    [links] = marks_of(figure, Links)
    best = maps.weights[:, 0].amax(1).numpy()
    best[:, range(3), range(3, 6)] = -1  # a token's own
    assert sorted(links.z.tolist(), reverse=True) == pytest.approx(np.sort(best.ravel())[::-1][:5].tolist())
    layer, query, key = np.unravel_index(best.argmax(), best.shape)
    head = int(maps.weights[layer, 0, :, query, key].argmax())
    labels = maps.labels[0]
    assert links.names[0] == f"L{layer}H{head}: {labels[3 + query]} reads {labels[key]}"
    assert (links.x0[0], links.x1[0], links.y0[0], links.y1[0]) == (layer, layer + 1, key, 3 + query)
    with pytest.raises(ConfigError, match="edges must be at least 1"):
        show("routing_graph", maps, edges=0)


# Patches


@pytest.fixture
def patch_maps(gallery) -> AttentionMaps:
    """2 x 2 patches of 3 pixels, causal; the last query reads patch 1."""
    weights = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.2, 0.2, 0.6, 0], [0.1, 0.7, 0.1, 0.1]])
    boxes = ((0, 0, 3, 3), (0, 3, 3, 3), (3, 0, 3, 3), (3, 3, 3, 3))
    return AttentionMaps(
        weights=weights[None, None, None],
        layers=(2,),
        heads=(5,),
        queries=torch.arange(4)[None],
        labels=(("p0", "p1", "p2", "p3"),),
        mask=torch.ones(1, 4, dtype=torch.bool),
        causal=True,
        geometry=Geometry(image_size=(6, 6), boxes=boxes),
        source={"task": "digits"},
    )


def test_an_overlay_shades_each_patch_by_its_weight_and_never_a_future_one(patch_maps):
    figure = show("patch_overlay", patch_maps, layer=2, head=5, query=2, image=np.full((6, 6, 3), 255))
    [picture] = marks_of(figure, Picture)
    np.testing.assert_allclose(picture.z, [0.2, 0.2, 0.6, np.nan])
    assert picture.unreachable == (3,)
    assert picture.boxed == (2,)
    painted = picture.painted()
    assert np.ptp(painted[3:, 3:], axis=2).max() == 0  # grey: no future patch receives colour
    np.testing.assert_array_equal(painted[:3, :3], painted[:3, 3:])  # the same weight, the same colour
    assert painted[4, 1, 0] < painted[1, 1, 0]  # darker for more
    assert "patch 2 (row 1, column 0) (0.600)" in figure.finding
    assert "hatched" in figure.note


def test_two_heads_of_the_same_weights_are_painted_alike_on_one_scale(patch_maps):
    twice = replace(patch_maps, weights=patch_maps.weights.repeat(1, 1, 2, 1, 1), heads=(5, 6))
    first, second = (marks_of(show("patch_overlay", twice, layer=2, head=h), Picture)[0].painted() for h in (5, 6))
    np.testing.assert_array_equal(first, second)


def test_a_sheet_has_one_picture_a_query_on_one_scale(patch_maps):
    figure = show("patch_pair_sheet", patch_maps, layer=2, head=5, queries=[1, 3])
    first, second = marks_of(figure, Picture)
    assert first.colours == second.colours
    assert (first.boxed, second.boxed) == ((1,), (3,))
    assert "token 3 reads patch 1 (row 0, column 1) (0.700)" in figure.finding
    with pytest.raises(ConfigError, match="no query 9"):
        show("patch_pair_sheet", patch_maps, layer=2, head=5, queries=[9])


def test_images_of_another_size_or_scale_and_tokens_without_patches_are_refused(patch_maps, maps):
    with pytest.raises(ConfigError, match=r"shape \(5, 6\) was given for patches of an image of 6 x 6"):
        show("patch_overlay", patch_maps, layer=2, head=5, image=np.zeros((5, 6)))
    with pytest.raises(ConfigError, match="undo the task's normalisation"):
        show("patch_overlay", patch_maps, layer=2, head=5, image=np.full((6, 6), -1.0))
    with pytest.raises(ConfigError, match="no image patches"):
        show("patch_overlay", maps)


# Arrays


def test_rollout_shows_its_rows_and_refuses_what_is_none():
    shares = np.array([[0.25, 0.75, 0.0], [0.1, 0.2, 0.7]])
    figure = show("rollout", shares, labels=("a", "b", "c"), causal=True)
    [heatmap] = marks_of(figure, Heatmap)
    np.testing.assert_array_equal(heatmap.z, shares)
    assert heatmap.y_labels == ("b", "c")
    np.testing.assert_array_equal(heatmap.unreachable, [[False, False, True], [False] * 3])
    assert "b from b (0.750) and c from c (0.700)" in figure.finding
    for bad, message in (
        (shares * 2, "sum to 1 only within 1,"),
        (shares[0], r"shape \(3,\) was given, wanted \[query key\]"),
        (np.full((2, 2), np.nan), "sum to 1 only within nan"),
    ):
        with pytest.raises(ConfigError, match=message):
            show("rollout", bad)
    with pytest.raises(ConfigError, match="wants 3 labels"):
        show("rollout", shares, labels=("a", "b"))


def test_attribution_is_centred_on_0_and_names_the_largest_in_size():
    values = np.array([[0.5, -2.0, 0.25]])
    figure = show("attribution_bits", values, labels=("a0", "a1", "b0"), targets=("b0",))
    [heatmap] = marks_of(figure, Heatmap)
    assert (heatmap.colours.vmin, heatmap.colours.vmax) == (-2, 2)
    assert heatmap.below_zero() == [(0, 1)]
    assert "b0: a1 (-2.000)" in figure.finding
    with pytest.raises(ConfigError, match="wanted"):
        show("attribution_bits", np.full((2, 2), np.nan))


def test_attribution_on_patches_fills_the_image():
    values = np.array([[1.0, -0.5], [0.0, 0.25]])
    figure = show("attribution_patches", values, image=np.zeros((8, 8)))
    [picture] = marks_of(figure, Picture)
    assert picture.boxes == ((0, 0, 4, 4), (0, 4, 4, 4), (4, 0, 4, 4), (4, 4, 4, 4))
    assert picture.below_zero() == [1]
    np.testing.assert_array_equal(picture.values()[:4, 4:], -0.5)
    with pytest.raises(ConfigError, match="do not divide an image of 9 x 8"):
        show("attribution_patches", values, image=np.zeros((9, 8)))
    with pytest.raises(ConfigError, match="fill no square"):
        show("attribution_patches", np.ones(3))


def test_the_strip_has_heads_down_and_steps_across_on_one_scale():
    patterns = np.random.default_rng(0).random((3, 2, 2, 4))
    figure = show("training_strip", patterns, steps=[0, 10, 20], heads=["L0H1", "L2H0"])
    [tiles] = marks_of(figure, Tiles)
    assert tiles.z.shape == (2, 3, 2, 4)
    np.testing.assert_array_equal(tiles.z[1, 2], patterns[2, 1])
    assert (tiles.row_labels, tiles.column_labels) == (("L0H1", "L2H0"), ("0", "10", "20"))
    with pytest.raises(ConfigError, match="want as many steps"):
        show("training_strip", patterns, steps=[0, 10])
    with pytest.raises(ConfigError, match=r"wanted \[step head query key\]"):
        show("training_strip", patterns[0])


def test_titles_of_attributions_follow_the_method_and_what_is_explained():
    values = np.array([[1.0, -0.5], [0.0, 0.25]])
    said = {"method": "integrated gradients", "target": "class 3"}
    patches, bits = show("attribution_patches", values, **said), show("attribution_bits", values, **said)
    assert patches.title == "What each patch adds to class 3, by integrated gradients"
    assert bits.title == "What each token adds to class 3, by integrated gradients"
    for figure in (patches, bits):
        assert "class 3, by integrated gradients" in figure.alt
        assert figure.note.startswith("Above 0 speaks for class 3.")


def with_seed(record: RunRecord, seed: int) -> RunRecord:
    return replace(record, config={**record.config, "train": {**record.config["train"], "seed": seed}})


@pytest.mark.parametrize("name", ["group_ablation", "learning_rate_sweep"])
def test_an_interval_of_no_width_is_drawn_hollow_and_never_as_certainty(groups, sweep, name):
    one, other = (groups if name == "group_ablation" else sweep)[:2]
    alike = [with_seed(other, seed) for seed in range(3)]
    evaluation = {**one.result["evaluation"], "accuracy": 1.0, "interval": [1.0, 1.0]}  # every answer is right
    figure = show(name, [*alike, replace(one, result={**one.result, "evaluation": evaluation})])
    filled, hollow = marks_of(figure, Points)
    assert (hollow.hollow, hollow.label) == (True, "no interval: all examples alike")
    assert hollow.low is None
    assert list(hollow.x if hollow.across else hollow.y) == [1.0]
    bounds = [float(filled.low[0]), float(filled.high[0])]
    assert bounds == pytest.approx(other.evaluation.interval)  # the three seeds are alike, their examples are not
    assert "or all are alike" in figure.note

"""The heatmap of patching: what is drawn is the record's change, with its sign told twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.export import Heatmap
from fpt_viz.figures.patching_heatmap import patching_heatmap


def mark_of(figure):
    [mark] = figure.marks()
    assert isinstance(mark, Heatmap)
    return mark


def shaped(patching, values, axes, labels, **others):
    values = torch.tensor(values)
    intervals = torch.stack([values - 0.05, values + 0.05], dim=-1)
    return replace(patching, values=values, intervals=intervals, axes=axes, labels=labels, **others)


def test_cells_are_the_values_on_a_diverging_scale_centred_on_0(patching):
    mark = mark_of(patching_heatmap(patching))
    np.testing.assert_array_equal(mark.z, patching.values.numpy())
    assert (mark.x_labels, mark.y_labels) == (patching.labels[1], patching.labels[0])
    assert (mark.colours.vmin, mark.colours.vmax) == (-mark.colours.vmax, float(patching.values.max()))
    assert mark.colours.scale == "diverging"
    assert mark.text[0][1] == ".94"
    assert (mark_of(patching_heatmap(patching, vmax=2.0)).colours.vmax) == 2.0


def test_the_sign_is_also_a_dash_and_an_outline_says_that_the_interval_excludes_0(patching):
    mark = mark_of(patching_heatmap(patching))
    assert mark.below_zero() == [(1, 0)]
    assert sorted(mark.boxed) == [(0, 1), (1, 0), (1, 6)]


def test_noising_is_shown_as_the_change_from_a_patch_without_effect(patching):
    noised = replace(patching, direction="noise", values=1 - patching.values, intervals=1 - patching.intervals.flip(-1))
    figure = patching_heatmap(noised)
    np.testing.assert_allclose(mark_of(figure).z, -patching.values.numpy(), atol=1e-6)
    assert sorted(mark_of(figure).boxed) == [(0, 1), (1, 0), (1, 6)]
    assert "activations of the corrupted run written into the clean run" in figure.alt


def test_the_alt_text_says_the_largest_and_what_was_done(patching):
    alt = patching_heatmap(patching).alt
    assert "layer 0, position a1: 0.940 (95 % interval 0.890 to 0.990)" in alt
    assert "layer 1, position a0: -0.300 (95 % interval -0.350 to -0.250)" in alt
    assert "over 120 test examples, 8 on which both agree left out" in alt
    assert "excludes 0 for 3 of 20 patches" in alt
    assert "target contrast 9.100 clean and -8.700 corrupted" in alt


def test_paths_show_senders_down_and_hatch_where_no_path_leads(patching):
    paths = shaped(
        patching, [[0.5, float("nan")], [-0.2, 0.1]], ("sender", "receiver"), (("L0H1", "L0H2"), ("L1H0", "L0H3")),
        site="q k", mlps="frozen",
    )  # fmt: skip
    figure = patching_heatmap(paths)
    mark = mark_of(figure)
    assert (mark.y_labels, mark.x_labels, mark.cell_names) == (*paths.labels, ("sender", "receiver"))
    assert mark.unreachable.tolist() == [[False, True], [False, False]]
    assert mark.text[0][1] == ""
    assert figure.title == "Paths between heads into q, k"
    assert "Direct paths, MLPs frozen" in figure.note
    assert "for 3 of 3 patches; 1 lead" in figure.alt
    assert figure.to_plotly().data


def test_one_axis_is_a_column_and_of_three_the_first_two_run_down(patching):
    one = mark_of(patching_heatmap(shaped(patching, [1.0, 0.2], ("layer",), (("0", "1"),), site="mlp_out")))
    assert (one.z.shape, one.y_labels, one.x_labels) == ((2, 1), ("0", "1"), ("all",))
    labels = (("0", "1"), ("0", "2"), ("a0", "a1", "a2"))
    three = shaped(patching, np.arange(12.0).reshape(2, 2, 3).tolist(), ("layer", "head", "position"), labels, site="z")
    mark = mark_of(patching_heatmap(three))
    assert mark.y_labels == ("L0H0", "L0H2", "L1H0", "L1H2")
    assert mark.z[2].tolist() == [6, 7, 8]
    assert mark.cell_names == ("layer and head", "position")


def test_many_columns_carry_no_numbers(patching):
    many = shaped(patching, [[0.1] * 40], ("layer", "position"), (("0",), tuple(map(str, range(40)))))
    assert mark_of(patching_heatmap(many)).text is None


def test_what_cannot_be_drawn_is_an_error(patching):
    with pytest.raises(ConfigError, match="vmax must be above 0, got 0"):
        patching_heatmap(patching, vmax=0.0)
    with pytest.raises(ConfigError, match="hold no value"):
        patching_heatmap(replace(patching, values=patching.values * float("nan")))
    with pytest.raises(RecordError, match=r"shape \(2, 10\) want as many labels, got \(2, 9\)"):
        replace(patching, labels=(("0", "1"), patching.labels[1][:9]))

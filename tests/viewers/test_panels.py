"""Figures composed into one: letters, shared colour bars, one source each."""

from __future__ import annotations

from dataclasses import replace
import re

import numpy as np
import pytest

from fpt_viz.errors import ConfigError
from fpt_viz.export import PRESETS, Heatmap, compose
from fpt_viz.export._paper_style import settings

pytestmark = pytest.mark.slow  # half a minute or so in all


def bars(sheet) -> int:
    """Colour bars on the page: beside panels, or one for all."""
    every = [*sheet.axes, *(child for axes in sheet.axes for child in axes.child_axes)]
    return sum(hasattr(axes, "_colorbar") for axes in every)


def letters(sheet) -> list[str]:
    return [text.get_text() for text in sheet.texts if re.fullmatch("[a-z]", text.get_text())]


def test_panels_are_lettered_in_the_order_of_reading(gallery):
    whole = compose([gallery["rollout"], gallery["training_curves"], gallery["head_grid"]], columns=2)
    assert [panel.letter for panel in whole.panels] == ["a", "b", "c", "d"]
    sheet = whole.to_matplotlib(preset="neurips")
    assert letters(sheet) == ["a", "b", "c", "d"]
    places = [text.get_position() for text in sheet.texts if text.get_text() in "abcd"]
    assert places[0][0] < places[1][0]  # b stands right of a
    assert places[0][1] == pytest.approx(places[1][1])
    assert places[2][1] < places[0][1]  # c below a
    assert whole.alt.startswith("a: Heatmap of an attention rollout")
    assert "b-c: Training curves" in whole.alt
    assert {row["run"] for row in whole.source["runs"] if "run" in row} == {"xor-pretrained", "xor-random"}
    titles = [annotation.text for annotation in whole.to_plotly().layout.annotations]
    assert [title for title in titles if title.startswith("<b>")][:2] == ["<b>a</b>  ", "<b>b</b>  "]


def test_letters_can_be_left_out(gallery):
    whole = compose([gallery["rollout"], gallery["rollout"]], letters=False)
    assert letters(whole.to_matplotlib(preset="neurips")) == []


def test_panels_of_one_scale_share_a_colour_bar_and_others_do_not(gallery):
    same = compose([gallery["attention_heatmap"]] * 4, columns=2)
    assert bars(same.to_matplotlib(preset="neurips")) == 1
    assert len({trace.coloraxis for trace in same.to_plotly().data if trace.type == "heatmap"}) == 1
    other = compose([gallery["attention_heatmap"], gallery["rollout"], gallery["attention_heatmap"]], columns=2)
    assert bars(other.to_matplotlib(preset="neurips")) == 2


def test_scales_of_one_meaning_are_widened_to_one_range_where_asked(gallery):
    figure = gallery["rollout"]
    half = type(figure)(**vars(figure))
    [mark] = half.marks()
    smaller = replace(mark, colours=replace(mark.colours, vmax=mark.colours.vmax / 2))
    half = replace(half, panels=(replace(half.panels[0], marks=(smaller,)),))
    apart, together = compose([figure, half]), compose([figure, half], same_scale=True)
    assert len({m.colours for m in apart.marks() if isinstance(m, Heatmap)}) == 2
    [one] = {m.colours for m in together.marks() if isinstance(m, Heatmap)}
    assert one == mark.colours
    np.testing.assert_array_equal(next(iter(together.marks())).z, mark.z)


def test_composed_panels_stay_on_the_page_and_are_saved_the_same_each_time(gallery, tmp_path):
    whole = compose([gallery[name] for name in ("head_grid", "ablation_effects", "top_heads", "head_view")], columns=2)
    first = whole.save(tmp_path / "a.pdf", preset="nature-double").read_bytes()
    assert whole.save(tmp_path / "b.pdf", preset="nature-double").read_bytes() == first
    sheet = whole.to_matplotlib(preset="nature-double")
    width, height = sheet.get_size_inches() * 72
    with settings(PRESETS["nature-double"]):  # as when it is saved
        boxes = [axes.get_tightbbox() for axes in sheet.axes] + [text.get_window_extent() for text in sheet.texts]
    for box in boxes:
        assert box.x0 > -0.5
        assert box.y0 > -0.5
        assert box.x1 < width + 0.5
        assert box.y1 < height + 0.5


def test_nothing_and_too_much_are_refused(gallery):
    with pytest.raises(ConfigError, match="got 0 figures"):
        compose([])
    with pytest.raises(ConfigError, match="27 panels are too many"):
        compose([gallery["rollout"]] * 27)
    with pytest.raises(ConfigError, match="0 columns"):
        compose([gallery["rollout"]], columns=0)

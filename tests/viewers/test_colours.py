"""Colours that the colour-blind tell apart, scales that read in grey, and signs that do not hang on a hue."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from fpt_viz.export import Colours, Figure, Heatmap, Panel, Picture, Tiles, colours

MACHADO = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
"""Of linear RGB, at full severity: Machado, Oliveira and Fernandes, 2009, https://doi.org/10.1109/TVCG.2009.113"""
EYES = pytest.mark.parametrize("eye", sorted(MACHADO))


def seen(colour: tuple[float, float, float], eye: str) -> np.ndarray:
    """``colour`` in linear RGB, as that eye sees it."""
    linear = np.array([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour])
    return np.clip(MACHADO[eye] @ linear, 0, 1)


def lab(colour: tuple[float, float, float], eye: str = "normal") -> np.ndarray:
    """CIE L*a*b* of an sRGB colour under D65 (IEC 61966-2-1, CIE 15)."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ seen(colour, eye) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_the_oracle_knows_white_black_and_what_deuteranopes_confuse():
    np.testing.assert_allclose(lab((1.0, 1.0, 1.0)), [100, 0, 0], atol=0.05)
    np.testing.assert_allclose(lab((0.0, 0.0, 0.0)), [0, 0, 0], atol=1e-9)
    red, green = (0.8, 0.35, 0.3), (0.5, 0.5, 0.2)
    assert np.linalg.norm(lab(red, "deuteranopia") - lab(green, "deuteranopia")) < 0.5 * np.linalg.norm(
        lab(red) - lab(green)
    )


@EYES
def test_series_are_told_apart_by_every_eye(eye):
    shades = [colours.rgb(colours.style(i).colour) for i in range(7)]
    apart = [np.linalg.norm(lab(a, eye) - lab(b, eye)) for a, b in combinations(shades, 2)]
    assert min(apart) > 8  # of 100; 2.3 is just noticed
    marks = [(colours.style(i).dash, colours.style(i).marker) for i in range(7)]
    assert len(set(marks)) == 7


@EYES
def test_the_sequential_scale_darkens_evenly_for_every_eye(eye):
    steps = np.diff([lab(colours.colour_at("sequential", i / 40), eye)[0] for i in range(41)])
    assert (steps < 0).all()
    assert steps.min() / steps.mean() < 2.6  # nowhere much steeper than on average


@EYES
def test_the_signed_scale_darkens_from_its_middle_both_ways_and_its_ends_differ(eye):
    light = [lab(colours.colour_at("diverging", i / 40), eye)[0] for i in range(41)]
    assert (np.diff(light[:21]) > 0).all()
    assert (np.diff(light[20:]) < 0).all()
    for share in (0.1, 0.25):
        low, high = (lab(colours.colour_at("diverging", at), eye) for at in (share, 1 - share))
        assert np.linalg.norm(low - high) > 20


def test_every_signed_figure_marks_what_lies_below_0_a_second_way(gallery):
    signed = {
        name: [mark for mark in figure.marks() if isinstance(mark, Heatmap | Picture | Tiles) and mark.colours.signed]
        for name, figure in gallery.items()
    }
    found = {name: marks for name, marks in signed.items() if marks}
    assert {"ablation_effects", "attribution_bits", "attribution_patches", "patching_heatmap"} <= set(found)
    for name, marks in found.items():
        for mark in marks:
            assert not isinstance(mark, Tiles), f"{name}: tiles have no second way"
            extent = max(abs(mark.colours.vmin), abs(mark.colours.vmax))
            assert mark.colours.vmin == -mark.colours.vmax
            values = mark.shown if isinstance(mark, Heatmap) else mark.z
            clear = int((np.nan_to_num(values) < -0.05 * extent).sum())
            assert len(mark.below_zero()) >= clear
            assert all(values[place] < 0 for place in mark.below_zero())
        dashed = any(mark.below_zero() for mark in marks)
        assert ("A dash marks values below 0." in gallery[name].note) == dashed, name


def test_both_renderers_draw_a_dash_in_each_negative_cell():
    z = np.array([[0.9, -0.9, 0.01], [-0.02, -0.5, 0.3]])
    signed = Colours(vmin=-1.0, vmax=1.0, label="w", scale="diverging")
    mark = Heatmap(z=z, x_labels=tuple("abc"), y_labels=tuple("de"), colours=signed)
    assert mark.below_zero() == [(0, 1), (1, 1)]
    figure = Figure(title="t", alt="a", panels=(Panel(marks=(mark,)),))
    [strokes] = [c for c in figure.to_matplotlib().axes[0].collections if len(c.get_paths()) == 2]
    assert sorted(round(float(path.vertices[:, 0].mean())) for path in strokes.get_paths()) == [1, 1]
    lines = [trace for trace in figure.to_plotly().data if trace.type == "scatter"]
    assert sum(sum(value is not None for value in trace.x) for trace in lines) == 4


def test_a_dash_is_seen_on_its_cell():
    for share in np.linspace(0, 0.48, 13):
        behind = colours.colour_at("diverging", float(share))
        light, dark = sorted((colours.luminance(behind), colours.luminance(colours.rgb(colours.text_on(behind)))))
        assert (dark + 0.05) / (light + 0.05) >= 4.5

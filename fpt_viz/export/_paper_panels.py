"""One panel on matplotlib axes: its marks, its ticks and its colour bar."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from fpt_viz.export import _layout
from fpt_viz.export._paper_layout import LINE_PITCH, MOST_BAR
from fpt_viz.export._paper_marks import colour_map, draw_mark, normalised
from fpt_viz.export.description import Panel
from fpt_viz.export.marks import Bars, Colours, Heatmap, Picture, Tiles
from fpt_viz.export.presets import Preset

MOST_BAR_LINES = 3
"""Of a colour bar's label; a longer one stands out beyond its bar."""
MOST_LABEL = 0.4
"""Of a panel's width: longer tick labels are made smaller, then broken into lines."""
LEAST_SHRINK = 45
"""Of a tick label's size, in percent."""


def fill(panel: Panel, axes: Axes, width: float, preset: Preset, legend: dict[str, Any]) -> None:
    """Draw the marks and the axes of ``panel``; what the legend should list is added to ``legend``."""
    for mark in panel.marks:
        handle = draw_mark(mark, axes)
        label = getattr(mark, "label", "")
        if handle is not None and label:
            legend.setdefault(label, handle)
    inner = room(panel, width, preset.font_size)
    x_title = _layout.wrapped(panel.x_title, 0.85 * inner, 0.9 * preset.font_size)
    y_title = _layout.wrapped(panel.y_title, inner * _layout.ratio(panel), preset.font_size, break_words=False)
    title = _layout.wrapped(panel.title, 0.9 * width, 0.9 * preset.font_size)
    axes.set(title=title or (" " if panel.letter else ""), xlabel=x_title, ylabel=y_title)
    if panel.x_range:
        axes.set_xlim(*panel.x_range)
    if panel.y_range:
        axes.set_ylim(*panel.y_range)
    for axis, ticks in ((axes.xaxis, panel.x_ticks), (axes.yaxis, panel.y_ticks)):
        if ticks:
            axis.set_ticks(*ticks)
            if axis is axes.xaxis:
                _turn_if_crowded(axes, ticks[1], width, preset.font_size)
        else:  # a number of ticks that does not depend on the size, or the layout would not settle
            axis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    cells = _layout.picture(panel)
    if cells is not None:
        axes.spines[:].set_visible(isinstance(cells, Heatmap))
        axes.set_anchor("N")
        axes.grid(visible=False)
        _label_cells(cells, axes, inner, 0.9 * preset.font_size)
    elif any(isinstance(mark, Bars) for mark in panel.marks):
        axes.grid(visible=False, axis="x")
    if panel.bare:
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for axis, ticks in ((axes.xaxis, panel.x_ticks), (axes.yaxis, panel.y_ticks)):
            if ticks is None:
                axis.set_ticks([])
    _fit(panel, axes, width, preset.font_size)


def _fit(panel: Panel, axes: Axes, width: float, font_size: float) -> None:
    """Make tick labels smaller, and break them into lines, where they would take most of the panel's width.

    Labels at the left may take a share of the width, upright ones below half as much again as the width, since a page
    has room below; lines of neighbours must not run into each other.
    """
    mark = _layout.picture(panel)
    inner = width * (1 - MOST_LABEL) * (0.45 if mark is not None else 0.8)
    for axis, most in ((axes.yaxis, MOST_LABEL * width), (axes.xaxis, 1.5 * width)):
        labels = axis.get_ticklabels()
        texts = [label for label in labels if label.get_text()]
        upright = axis is axes.xaxis
        if upright and not any(label.get_rotation() for label in texts):
            continue
        longest = max((_extent(label, upright=upright) for label in texts), default=0.0)
        if longest <= most:
            continue
        length = inner if upright else inner * _layout.ratio(panel)
        if mark is None and panel.n_lines is not None and not upright:
            length = panel.n_lines * LINE_PITCH * font_size
        size, n_lines = _size_and_lines(float(texts[0].get_fontsize()), longest / most, length / len(texts))
        for label in texts:
            letters = max(4, math.ceil(1.05 * len(label.get_text()) / n_lines))
            own = _extent(label, upright=upright) * size / float(label.get_fontsize())
            if own > most:
                label.set_text("\n".join(_layout.in_lines(label.get_text(), letters)))
        words = [label.get_text() for label in labels]
        axis.set_ticks(axis.get_ticklocs(), words, fontsize=size, linespacing=1.0)


def _size_and_lines(size: float, excess: float, pitch: float) -> tuple[float, int]:
    """The letters and lines of a label ``excess`` times too long whose neighbours are ``pitch`` apart."""
    for percent in range(100, LEAST_SHRINK, -5):
        shrunk = size * percent / 100
        n_lines = math.ceil(1.08 * excess * percent / 100)
        if n_lines * 1.15 * shrunk <= pitch:
            return shrunk, n_lines
    return size * LEAST_SHRINK / 100, math.ceil(1.08 * excess * LEAST_SHRINK / 100)


def _extent(label: Text, *, upright: bool) -> float:
    box = label.get_window_extent()
    return float(box.height if upright else box.width)


def _turn_if_crowded(axes: Axes, labels: tuple[str, ...], width: float, font_size: float) -> None:
    """Write the labels of ticks upright, each in one line, where they would run into each other."""
    longest = max((len(line) for label in labels for line in label.split("\n")), default=0)
    if longest * font_size * _layout.CHARACTER_WIDTH * len(labels) > 0.8 * width:
        axes.set_xticklabels([label.replace("\n", " ") for label in labels], rotation=90)


def _label_cells(mark: _layout.Cells, axes: Axes, width: float, font_size: float) -> None:
    """Tick labels at the cells or tiles, as many as fit."""
    if isinstance(mark, Picture):
        axes.set_xticks([])
        axes.set_yticks([])
        return
    if isinstance(mark, Tiles):
        across, down = mark.centres()
        axes.set_xticks(across, mark.column_labels)
        axes.set_yticks(down, mark.row_labels)
        return
    pitch = 1.2 * font_size
    longest = max(len(label) for label in mark.x_labels) * font_size * _layout.CHARACTER_WIDTH
    upright = longest > 0.95 * width / len(mark.x_labels)
    step = _layout.every(len(mark.x_labels), width, pitch if upright else longest)
    axes.set_xticks(range(0, len(mark.x_labels), step), mark.x_labels[::step], rotation=90 if upright else 0)
    height = width * _layout.ratio(Panel(marks=(mark,)))
    step = _layout.every(len(mark.y_labels), height, pitch)
    axes.set_yticks(range(0, len(mark.y_labels), step), mark.y_labels[::step])


def room(panel: Panel, width: float, font_size: float) -> float:
    """About the width of the plotting area of ``panel``, whose labels and colour bar leave this much of ``width``."""
    mark = _layout.picture(panel)
    longest = max((len(label) for label in _layout.row_names(mark)), default=4)
    bar = 7 + _layout.words_beside(panel) if _layout.colours_of(panel) is not None else 0
    return max(0.3 * width, width - font_size * (_layout.CHARACTER_WIDTH * longest + 2.2 + bar))


def colour_bar(panel: Panel, axes: Axes, colours: Colours, width: float, n_letters: float) -> None:
    """A colour bar at the right of ``panel``, its label broken into lines that are no longer than it."""
    length = min(1.0, MOST_BAR / n_letters)
    thickness = float(mpl.rcParams["font.size"])
    away = 0.8 * thickness + _layout.words_beside(panel) * 0.9 * thickness * _layout.CHARACTER_WIDTH
    inset = axes.inset_axes((1.0 + away / width, 1 - length, thickness / width, length))
    mappable = mpl.cm.ScalarMappable(normalised(colours), colour_map(colours.scale))
    sheet = axes.get_figure()
    assert sheet is not None
    letters = max(n_letters, len(colours.label) / MOST_BAR_LINES)
    label = _layout.wrapped(colours.label, letters, 1 / _layout.CHARACTER_WIDTH, break_words=False)
    bar = sheet.colorbar(mappable, cax=inset, label=label)
    bar.outline.set_linewidth(0.4)


def page_bar(sheet: Sheet, colours: Colours) -> Axes:
    """A colour bar for all panels of the page, placed later."""
    axes = sheet.add_axes((0.9, 0.2, 0.02, 0.6))
    bar = sheet.colorbar(
        mpl.cm.ScalarMappable(normalised(colours), colour_map(colours.scale)), cax=axes, label=colours.label
    )
    bar.outline.set_linewidth(0.4)
    return axes

"""Figures on paper: matplotlib's vector back ends, at the exact width, with real text and the same bytes each time.

Neither pyplot nor the reader's own matplotlib settings take part, and nothing global is left changed.
"""

from __future__ import annotations

from dataclasses import dataclass
import html
import io
import itertools
import json
import math
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Sheet
from matplotlib.text import Annotation, Text
from matplotlib.ticker import MaxNLocator

from fpt_viz.export import _layout, colours as palette
from fpt_viz.export._paper_marks import colour_map, draw_mark, normalised
from fpt_viz.export._paper_style import settings
from fpt_viz.export._paper_words import name_levels, part_levels, words_in_cells
from fpt_viz.export.description import Description, Panel
from fpt_viz.export.marks import Bars, Colours, Heatmap, Tiles
from fpt_viz.export.presets import Preset

POINTS_PER_INCH = 72
MOST_BAR = 30
"""Of a colour bar, in letters."""
MOST_CHART_HEIGHT = 28
"""Of a chart's plotting area, in font sizes."""


def render(figure: Description, suffix: str, preset: Preset, *, dpi: int = 300) -> bytes:
    """The file for ``figure``: ``suffix`` is pdf, svg or png; the same figure gives the same bytes."""
    content = io.BytesIO()
    source = json.dumps(figure.source, sort_keys=True, default=str)
    about: dict[str, dict[str, str | None]] = {
        "pdf": {"Title": figure.title, "Subject": figure.alt, "Keywords": source, "CreationDate": None},
        "svg": {"Title": figure.title, "Description": figure.alt, "Keywords": source, "Date": None},
        "png": {"Title": figure.title, "Description": figure.alt, "Source": source, "Software": "fpt_viz"},
    }
    sheet = draw(figure, preset)
    with settings(preset):
        sheet.savefig(content, format=suffix, dpi=dpi, metadata=about[suffix])
    if suffix != "svg":
        return content.getvalue()
    label = f'<svg role="img" aria-label="{html.escape(figure.alt)}" '
    return content.getvalue().decode().replace("<svg ", label, 1).encode()


def draw(figure: Description, preset: Preset) -> Sheet:
    """``figure`` as a matplotlib figure of the preset's width, as high as its content needs."""
    with settings(preset):
        sheet = Sheet(figsize=(preset.width_inches, preset.width_inches), dpi=POINTS_PER_INCH)
        FigureCanvasAgg(sheet)
        width = preset.width_inches * POINTS_PER_INCH
        columns = max(1, min(figure.columns, int(width / (22 * preset.font_size))))
        rows = _layout.rows_of(figure.panels, columns)
        drawn: list[list[_Drawn]] = []
        legend: dict[str, Any] = {}
        for row in rows:
            drawn.append([])
            for panel, following in zip(row, [*row[1:], None], strict=True):
                axes = sheet.add_axes((0.2, 0.2, 0.6, 0.6))
                _fill(panel, axes, width / columns, preset, legend)
                colours = _layout.colours_of(panel)
                if colours and not (following and _layout.colours_of(following) == colours):
                    room = _room(panel, width / columns, preset.font_size)
                    _colour_bar(axes, colours, room, room * _layout.ratio(panel) / (0.8 * preset.font_size))
                drawn[-1].append(_Drawn(panel, axes, name_levels(panel, axes, 0.85 * preset.font_size)))
        _arrange(sheet, figure, preset, rows=drawn, legend=legend)
        for each in itertools.chain(*drawn):
            words_in_cells(each.panel, each.axes, preset)
            part_levels(each.levels)
    return sheet


@dataclass(frozen=True)
class _Drawn:
    """A panel, its axes, and the names at the right ends of its levels."""

    panel: Panel
    axes: Axes
    levels: list[Annotation]


def _fill(panel: Panel, axes: Axes, width: float, preset: Preset, legend: dict[str, Any]) -> None:
    """Draw the marks and the axes of ``panel``; what the legend should list is added to ``legend``."""
    for mark in panel.marks:
        handle = draw_mark(mark, axes)
        label = getattr(mark, "label", "")
        if handle is not None and label:
            legend.setdefault(label, handle)
    x_title = _layout.wrapped(panel.x_title, 0.85 * _room(panel, width, preset.font_size), 0.9 * preset.font_size)
    height = _room(panel, width, preset.font_size) * _layout.ratio(panel)
    y_title = _layout.wrapped(panel.y_title, height, preset.font_size)
    axes.set(title=panel.title, xlabel=x_title, ylabel=y_title)
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
        axes.grid(visible=False)
        _label_cells(cells, axes, _room(panel, width, preset.font_size), 0.9 * preset.font_size)
    elif any(isinstance(mark, Bars) for mark in panel.marks):
        axes.grid(visible=False, axis="x")


def _turn_if_crowded(axes: Axes, labels: tuple[str, ...], width: float, font_size: float) -> None:
    """Write the labels of ticks upright, each in one line, where they would run into each other."""
    longest = max((len(line) for label in labels for line in label.split("\n")), default=0)
    if longest * font_size * _layout.CHARACTER_WIDTH * len(labels) > 0.8 * width:
        axes.set_xticklabels([label.replace("\n", " ") for label in labels], rotation=90)


def _label_cells(mark: Heatmap | Tiles, axes: Axes, width: float, font_size: float) -> None:
    """Tick labels at the cells or tiles, as many as fit."""
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


def _room(panel: Panel, width: float, font_size: float) -> float:
    """About the width of the plotting area of ``panel``, whose labels and colour bar leave this much of ``width``."""
    mark = _layout.picture(panel)
    labels = () if mark is None else mark.row_labels if isinstance(mark, Tiles) else mark.y_labels
    longest = max((len(label) for label in labels), default=4)
    bar = 7 if mark is not None else 0
    return max(0.3 * width, width - font_size * (_layout.CHARACTER_WIDTH * longest + 2.2 + bar))


def _colour_bar(axes: Axes, colours: Colours, width: float, n_letters: float) -> None:
    """A colour bar at the right of ``axes``, its label broken into lines that are no longer than it."""
    length = min(1.0, MOST_BAR / n_letters)
    inset = axes.inset_axes((1.0 + 6 / width, 1 - length, 8 / width, length))
    mappable = mpl.cm.ScalarMappable(normalised(colours), colour_map(colours.scale))
    sheet = axes.get_figure()
    assert sheet is not None
    label = _layout.wrapped(colours.label, n_letters, 1 / _layout.CHARACTER_WIDTH)
    bar = sheet.colorbar(mappable, cax=inset, label=label)
    bar.outline.set_linewidth(0.4)


def _arrange(
    sheet: Sheet, figure: Description, preset: Preset, *, rows: list[list[_Drawn]], legend: dict[str, Any]
) -> None:
    """Give each panel its shape, and title, legend and note their strips above and below; sets the page's height."""
    width, size = preset.width_inches * POINTS_PER_INCH, preset.font_size
    title = _strip(sheet, figure.title, width, 1.1 * size, weight="bold") if preset.headed else None
    note = _strip(sheet, figure.note, width, 0.85 * size, color=palette.MUTED) if preset.headed else None
    key = _legend(sheet, legend, width)
    title_height, note_height, key_height = (_height(x) for x in (title, note, key))
    strips = (title_height + key_height, note_height)
    pictures = any(_layout.picture(panel) for panel in figure.panels)
    most = preset.max_height_inches * POINTS_PER_INCH if pictures else math.inf
    for _ in range(4):  # what labels take depends on the size, a little: it settles in two
        height = _place(sheet, rows, strips, size, most)
    pad = 0.04 * POINTS_PER_INCH / width
    if title:
        title.set_position((pad, 1 - 0.3 * size / height))
    if key is not None:
        key.set_bbox_to_anchor((pad, 1 - (title_height + 0.3 * size) / height))
    if note:
        note.set_position((pad, 0.3 * size / height))


def _place(sheet: Sheet, rows: list[list[_Drawn]], strips: tuple[float, float], font_size: float, most: float) -> float:
    """Place the panels by the room that their labels now take; returns the page's height, which it sets.

    Panels of a column share their left and right edges, panels of a row their height.
    """
    width, gap = sheet.get_figwidth() * POINTS_PER_INCH, 0.5 * font_size
    room = width / len(rows[0])
    taken = [[_taken(each.axes) for each in row] for row in rows]
    columns = [[row[j] for row in taken if j < len(row)] for j in range(len(rows[0]))]
    sides = [(max(t[0] for t in column) + gap, max(t[2] for t in column) + gap) for column in columns]
    inner = [max(0.15 * room, room - left - right) for left, right in sides]
    heights = [max(_wanted_height(e.panel, w, font_size) for e, w in zip(r, inner, strict=False)) for r in rows]
    edges = [(max(t[3] for t in row) + gap, max(t[1] for t in row) + gap) for row in taken]
    others = sum(strips) + sum(top + bottom for top, bottom in edges)
    scale = max(0.1, min(1.0, (most - others) / sum(heights)))
    height = others + scale * sum(heights)
    sheet.set_figheight(height / POINTS_PER_INCH)
    y = height - strips[0]
    for row, wanted, (top, bottom) in zip(rows, heights, edges, strict=True):
        y -= top + scale * wanted
        for j, each in enumerate(row):
            box = ((j * room + sides[j][0]) / width, y / height, inner[j] / width, scale * wanted / height)
            each.axes.set_position(box)
        y -= bottom
    return height


def _taken(axes: Axes) -> tuple[float, float, float, float]:
    """What labels take beyond the plotting area, in points: left, below, right, above."""
    axes.apply_aspect()
    inside, whole = axes.get_window_extent(), axes.get_tightbbox()
    assert whole is not None  # it would be None for axes that are not shown
    return (inside.x0 - whole.x0, inside.y0 - whole.y0, whole.x1 - inside.x1, whole.y1 - inside.y1)


def _wanted_height(panel: Panel, width: float, font_size: float) -> float:
    """The height of the plotting area of ``panel``, in points, where it is ``width`` wide."""
    if panel.n_lines is not None and _layout.picture(panel) is None:
        return panel.n_lines * 1.75 * font_size
    height = width * _layout.ratio(panel)
    return height if _layout.picture(panel) else min(height, MOST_CHART_HEIGHT * font_size)


def _strip(sheet: Sheet, words: str, width: float, font_size: float, **look: Any) -> Text | None:
    """Lines of ``words`` across the page, placed later."""
    if not words:
        return None
    bottom = "color" in look
    room = width
    while True:  # letters differ in width: try, measure, and break lines earlier where one is too long
        lines = _layout.wrapped(words, room, 0.88 * font_size)
        text = sheet.text(0, 0, lines, fontsize=font_size, va="bottom" if bottom else "top", linespacing=1.25, **look)
        text.set_in_layout(False)
        if text.get_window_extent().width <= width - 6 or room < width / 3:
            return text
        text.remove()
        room *= 0.95


def _legend(sheet: Sheet, handles: dict[str, Any], width: float) -> Any:
    """The legend in as many columns as fit, placed later; None where there is nothing to list."""
    for columns in range(len(handles), 0, -1):
        key = sheet.legend(handles.values(), handles.keys(), loc="upper left", ncols=columns, columnspacing=1.4)
        key.set_in_layout(False)
        if key.get_tightbbox().width <= width - 6 or columns == 1:  # type: ignore[union-attr]
            return key
        key.remove()
    return None


def _height(strip: Any) -> float:
    """The height that a strip takes, with some air, in points."""
    return 0.0 if strip is None else strip.get_tightbbox().height + 6

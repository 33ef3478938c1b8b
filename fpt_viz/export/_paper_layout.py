"""Where the panels, the title, the legend and the note stand on the page."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet
from matplotlib.text import Annotation, Text

from fpt_viz.export import _layout, colours as palette
from fpt_viz.export.description import Description, Panel
from fpt_viz.export.presets import Preset

POINTS_PER_INCH = 72
MOST_ROUNDS = 12
"""Of the layout, which settles in three or four."""
SETTLED = 0.05
"""Points that a layout may still move."""
MOST_BAR = 30
"""Of a colour bar, in letters."""
LINE_PITCH = 1.75
"""Between the lines of a chart with one line an entry, in font sizes."""
MOST_CHART_HEIGHT = 28
"""Of a chart's plotting area, in font sizes."""


@dataclass(frozen=True)
class Drawn:
    """A panel, its axes, and the names at the right ends of its levels."""

    panel: Panel
    axes: Axes
    levels: list[Annotation]


def arrange(
    sheet: Sheet,
    figure: Description,
    preset: Preset,
    *,
    rows: list[list[Drawn]],
    legend: dict[str, Any],
    bar: Axes | None = None,
) -> None:
    """Give each panel its shape, and title, legend and note their strips above and below; sets the page's height."""
    width, size = preset.width_inches * POINTS_PER_INCH, preset.font_size
    title = _strip(sheet, figure.title, width, 1.1 * size, weight="bold") if preset.headed else None
    said = figure.note if preset.headed else figure.caveat
    note = _strip(sheet, said, width, 0.85 * size, color=palette.MUTED)
    key = _legend(sheet, legend, width)
    title_height, note_height, key_height = (_height(x) for x in (title, note, key))
    strips = (title_height + key_height, note_height)
    pictures = any(_layout.picture(panel) for panel in figure.panels)
    most = preset.max_height_inches * POINTS_PER_INCH if pictures else math.inf
    before = height = 0.0
    for _ in range(MOST_ROUNDS):  # what labels and colour bars take depends on the size, a little
        height = _place(sheet, rows, strips, size, most=most, bar=bar)
        wide = height + sum(each.axes.get_position().width for row in rows for each in row) * width
        if abs(wide - before) < SETTLED:
            break
        before = wide
    pad = 0.04 * POINTS_PER_INCH / width
    if title:
        title.set_position((pad, 1 - 0.3 * size / height))
    if key is not None:
        key.set_bbox_to_anchor((pad, 1 - (title_height + 0.3 * size) / height))
    if note:
        note.set_position((pad, 0.3 * size / height))
    for each in (drawn for row in rows for drawn in row if drawn.panel.letter):
        _letter(sheet, each, width, height, size)


def _letter(sheet: Sheet, each: Drawn, width: float, height: float, size: float) -> None:
    """The panel's letter, bold, at the left of all that belongs to the panel and above its axes."""
    inside, whole = each.axes.get_window_extent(), each.axes.get_tightbbox()
    assert whole is not None  # the axes are shown
    x = max(2.0, min(whole.x0, inside.x0)) / width
    top = each.axes.get_position(original=True).y1  # of the row: a picture may be less high
    sheet.text(
        x, top + 0.45 * size / height, each.panel.letter, fontsize=1.15 * size, weight="bold", va="bottom"
    ).set_in_layout(False)


def _place(
    sheet: Sheet,
    rows: list[list[Drawn]],
    strips: tuple[float, float],
    font_size: float,
    *,
    most: float,
    bar: Axes | None,
) -> float:
    """Place the panels by the room that their labels now take; returns the page's height, which it sets.

    Panels of a column share their left and right edges, panels of a row their height. A colour bar for all of them
    stands at the right of the page.
    """
    width, gap = sheet.get_figwidth() * POINTS_PER_INCH, 0.5 * font_size
    beside = 0.0 if bar is None else 2 * font_size + _taken(bar)[2] + gap
    room = (width - beside) / len(rows[0])
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
    if bar is not None:
        first = rows[0][0].axes.get_window_extent()
        length = min(sum(heights) * scale, MOST_BAR * 0.8 * font_size)
        left = (width - beside + font_size) / width
        bar.set_position((left, (first.y1 - length) / height, font_size / width, length / height))
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
        return panel.n_lines * LINE_PITCH * font_size
    height = width * _layout.ratio(panel)
    return height if _layout.picture(panel) else min(height, MOST_CHART_HEIGHT * font_size)


def _strip(sheet: Sheet, words: str, width: float, font_size: float, **look: Any) -> Text | None:
    """Lines of ``words`` across the page, placed later."""
    if not words:
        return None
    bottom = "color" in look
    room = width
    while True:  # letters differ in width: try, measure, and break lines earlier where one is too long
        lines = _layout.wrapped(words, room, 0.88 * font_size, break_words=room < width / 2)
        text = sheet.text(0, 0, lines, fontsize=font_size, va="bottom" if bottom else "top", linespacing=1.25, **look)
        text.set_in_layout(False)
        if text.get_window_extent().width <= width - 6 or room < width / 4:
            return text
        text.remove()
        room *= 0.95


def _legend(sheet: Sheet, handles: dict[str, Any], width: float) -> Any:
    """The legend in as many columns as fit, placed later; None where there is nothing to list."""
    if not handles:
        return None
    for columns in range(len(handles), 0, -1):
        key = _key(sheet, handles, list(handles), columns)
        if key.get_tightbbox().width <= width - 6:
            return key
        key.remove()
    letters = max(map(len, handles))
    while True:  # one column, and still too wide: break the names into lines
        letters = max(8, int(0.9 * letters))
        names = ["\n".join(_layout.in_lines(name, letters)) for name in handles]
        key = _key(sheet, handles, names, 1)
        if key.get_tightbbox().width <= width - 6 or letters == 8:
            return key
        key.remove()


def _key(sheet: Sheet, handles: dict[str, Any], names: list[str], columns: int) -> Any:
    key = sheet.legend(list(handles.values()), names, loc="upper left", ncols=columns, columnspacing=1.4)
    key.set_in_layout(False)
    return key


def _height(strip: Any) -> float:
    """The height that a strip takes, with some air, in points."""
    return 0.0 if strip is None else strip.get_tightbbox().height + 6

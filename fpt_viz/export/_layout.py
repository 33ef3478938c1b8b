"""What both renderers reckon alike: shapes of panels, which labels fit, and where labels go that would overlap."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
import math
import re

from fpt_viz.export.description import Panel
from fpt_viz.export.marks import Colours, Heatmap, HLine, Links, Picture, Tiles, Words

Cells = Heatmap | Tiles | Picture
"""What gives a panel the shape of its cells."""

CHARACTER_WIDTH = 0.6
"""Of a letter of a sans serif, as a share of the font size; on the wide side."""


def picture(panel: Panel) -> Cells | None:
    """The mark that gives ``panel`` its cells, or None for a chart."""
    return next((mark for mark in panel.marks if isinstance(mark, Cells)), None)


def cells(mark: Cells) -> tuple[int, int, float]:
    """The rows and columns that ``mark`` paints, and a cell's height as a share of its width."""
    if isinstance(mark, Tiles):
        rows, columns = mark.canvas().shape
        return rows, columns, mark.cell_height
    if isinstance(mark, Picture):
        return mark.pixels.shape[0], mark.pixels.shape[1], 1.0
    return mark.z.shape[0], mark.z.shape[1], mark.cell_height


def ratio(panel: Panel) -> float:
    """Height of the plotting area as a share of its width."""
    mark = picture(panel)
    if mark is None:
        return panel.shape
    rows, columns, cell_height = cells(mark)
    return rows * cell_height / columns


def colours_of(panel: Panel) -> Colours | None:
    """What the colours of ``panel`` mean, if it has any."""
    return next((mark.colours for mark in panel.marks if isinstance(mark, Cells | Links)), None)


def words_beside(panel: Panel) -> int:
    """The letters of the longest word that stands at the right of ``panel``."""
    beside = [text for mark in panel.marks if isinstance(mark, Words) and mark.side == "right" for text in mark.text]
    return max(map(len, beside), default=0)


def row_names(mark: Cells | None) -> tuple[str, ...]:
    """The labels at the left of ``mark``."""
    if isinstance(mark, Heatmap):
        return mark.y_labels
    return mark.row_labels if isinstance(mark, Tiles) else ()


def rows_of(panels: Sequence[Panel], columns: int) -> list[list[Panel]]:
    """``panels`` in rows of ``columns``."""
    return [list(panels[i : i + columns]) for i in range(0, len(panels), columns)]


def every(n_labels: int, length: float, pitch: float) -> int:
    """Each how manieth of ``n_labels`` fits along ``length`` with ``pitch`` between two; 1 where all do."""
    return max(1, math.ceil(n_labels * pitch / length))


def wrapped(text: str, width: float, font_size: float, *, break_words: bool = True) -> str:
    """``text`` in lines that fit ``width``, by a letter's usual width; a word that is longer is broken too."""
    return "\n".join(in_lines(text, max(8, int(width / (font_size * CHARACTER_WIDTH))), break_words=break_words))


def in_lines(text: str, letters: int, *, break_words: bool = True) -> list[str]:
    """``text`` in lines of at most ``letters``, broken at blanks.

    A longer word is broken behind the signs that hold it together, as in ``layer_norm+input``, and where it has none
    inside, or stands out where ``break_words`` is False.
    """
    lines: list[str] = [""]
    for word in re.split(r"[ \t\n]+", text.strip(" \t\n")):
        parts = re.split(r"(?<=[^\W_][_+/-])(?=\w)", word) if break_words and len(word) > letters else [word]
        for i, part in enumerate(parts):
            joined = f"{lines[-1]}{' ' if i == 0 and lines[-1] else ''}{part}"
            if len(joined) <= letters or not lines[-1]:
                lines[-1] = joined
            else:
                lines.append(part)
            while break_words and len(lines[-1]) > letters:
                lines[-1:] = [lines[-1][:letters], lines[-1][letters:]]
    return lines


def level_names(panel: Panel) -> dict[float, str]:
    """What stands at the right end of each level of ``panel``; levels at one height share a line of words."""
    names: dict[float, list[str]] = {}
    for mark in panel.marks:
        if isinstance(mark, HLine) and mark.label:
            names.setdefault(mark.at, []).append(mark.label)
    return {at: "\n".join("\n".join(in_lines(name, 16)) for name in together) for at, together in names.items()}


def spread(places: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """``places`` moved apart as little as needed so that neighbours of these ``sizes`` do not overlap."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    for before, after in pairwise(order):
        least = moved[before] + (sizes[before] + sizes[after]) / 2
        moved[after] = max(moved[after], least)
    return moved

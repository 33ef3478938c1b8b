"""The colours, dashes and markers of every figure, for the screen and for paper.

Scales run evenly in lightness, so they also read in greyscale; a line is told by its dash and marker as well as by its
hue. Nothing here draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Rgb = tuple[float, float, float]
"""Red, green and blue, each 0 to 1."""
ScaleName = Literal["sequential", "diverging"]

SCALES: dict[str, tuple[str, ...]] = {
    "sequential": (
        "#f7fbff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b",
    ),
    "diverging": (
        "#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7",
        "#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f",
    ),
}  # fmt: skip
"""Evenly spaced stops, low to high: ColorBrewer 2.0's Blues and (reversed) RdBu, both safe for the colour-blind."""

INK = "#1f2933"
"""Text and axes."""
MUTED = "#52606d"
"""Notes and reference lines; 6.4:1 on white."""
GRID = "#d9dee3"
ACCENT = "#D55E00"
"""Outlines over a heatmap; seen on both ends of the sequential scale."""
UNREACHABLE = "#ececec"
"""Behind the hatching of cells that attention cannot reach."""


@dataclass(frozen=True)
class Style:
    """How one series is told from the others, by more than its hue."""

    colour: str
    dash: tuple[int, ...]
    """Lengths of ink and gap in turn, in line widths; empty for a solid line."""
    marker: str
    """A name in both renderers' tables."""


_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette without its yellow, which white paper swallows."""
_DASHES = ((), (5, 2), (2, 1), (6, 2, 1, 2), (9, 2), (9, 2, 1, 2), (3, 1, 1, 1, 1, 1))
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "cross")


def style(index: int) -> Style:
    """The look of series ``index``; no two of the first 49 share colour, dash and marker."""
    turn, place = divmod(index, len(_COLOURS))
    return Style(_COLOURS[place], _DASHES[place], MARKERS[(place + turn) % len(MARKERS)])


def rgb(colour: str) -> Rgb:
    """``"#rrggbb"`` as numbers."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def colour_at(scale: str, share: float) -> Rgb:
    """The colour at ``share`` (0 to 1; what lies outside is clipped) of the way up ``scale``."""
    stops = SCALES[scale]
    place = min(max(share, 0.0), 1.0) * (len(stops) - 1)
    low = min(int(place), len(stops) - 2)
    mix = place - low
    start, end = rgb(stops[low]), rgb(stops[low + 1])
    red, green, blue = (a + (b - a) * mix for a, b in zip(start, end, strict=True))
    return red, green, blue


def luminance(colour: Rgb) -> float:
    """Relative luminance, 0 (black) to 1 (white), as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def text_on(colour: Rgb) -> str:
    """Black or white, whichever is easier to read on ``colour``."""
    return "#000000" if luminance(colour) > 0.179 else "#ffffff"


def plotly_scale(scale: str) -> list[list[float | str]]:
    """``scale`` as plotly wants it."""
    stops: Sequence[str] = SCALES[scale]
    return [[i / (len(stops) - 1), colour] for i, colour in enumerate(stops)]

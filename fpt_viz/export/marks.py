"""What a panel can show. Marks are plain data: each renderer draws them from the same arrays.

Positions along an axis are numbers. A ``series`` number picks colour, dash and marker together (``colours.style``).
Those made of cells stand in ``pictures``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Shaped
import numpy as np

from fpt_viz.export.pictures import Array, Box, Cell, Colours, Heatmap, Mark, Picture, Tiles, outlines

__all__ = [
    "Array",
    "Bars",
    "Box",
    "Cell",
    "Colours",
    "HLine",
    "Heatmap",
    "Line",
    "Links",
    "Mark",
    "Picture",
    "Points",
    "Tiles",
    "VLine",
    "Words",
    "outlines",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Line(Mark):
    """Values in order, joined; with ``low`` and ``high`` also a band."""

    x: Shaped[np.ndarray, " point"]
    y: Shaped[np.ndarray, " point"]
    low: Shaped[np.ndarray, " point"] | None = None
    high: Shaped[np.ndarray, " point"] | None = None
    label: str = ""
    """In the legend; an empty one is not listed."""
    series: int = 0
    markers: bool = False
    faint: bool = False
    """Thin and pale, for what stands behind a line of the same series."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Points(Mark):
    """Values that are not joined, each with an interval where ``low`` and ``high`` are given."""

    x: Shaped[np.ndarray, " point"]
    y: Shaped[np.ndarray, " point"]
    low: Shaped[np.ndarray, " point"] | None = None
    high: Shaped[np.ndarray, " point"] | None = None
    across: bool = False
    """True where the interval is of x, False where it is of y."""
    label: str = ""
    series: int = 0
    hollow: bool = False
    marker: str = ""
    """Another than the series' own."""
    text: tuple[str, ...] = ()
    """What stands to the right of each point."""
    text_x: Shaped[np.ndarray, " point"] | None = None
    """What the words stand to the right of, where that is not the point or the end of its interval."""

    @property
    def text_from(self) -> Shaped[np.ndarray, " point"]:
        """Where the words begin."""
        if self.text_x is not None:
            return self.text_x
        return self.high if self.across and self.high is not None else self.x


@dataclass(frozen=True, kw_only=True, eq=False)
class Bars(Mark):
    """Upright bars from 0, each with an interval."""

    values: Shaped[np.ndarray, " bar"]
    """Bar ``i`` stands at ``x=i``."""
    low: Shaped[np.ndarray, " bar"]
    high: Shaped[np.ndarray, " bar"]
    series: tuple[int, ...]
    """Of each bar."""
    text: tuple[str, ...]
    """What stands on each bar."""
    label: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Links(Mark):
    """Lines from one place to another, the darker and wider the larger their value."""

    x0: Float[np.ndarray, " link"]
    y0: Float[np.ndarray, " link"]
    x1: Float[np.ndarray, " link"]
    y1: Float[np.ndarray, " link"]
    z: Float[np.ndarray, " link"]
    names: tuple[str, ...]
    """Of the links, for who points at them and for tables."""
    colours: Colours
    boxed: tuple[int, ...] = ()
    """Links drawn in the accent colour."""
    label: str = ""

    def drawn(self) -> list[int]:
        """The links in the order of drawing, the largest on top; those without any value are left out."""
        return [int(i) for i in np.argsort(self.z, kind="stable") if self.z[i] > self.colours.vmin]


@dataclass(frozen=True, kw_only=True, eq=False)
class Words(Mark):
    """Words at places, such as the names of nodes."""

    x: Shaped[np.ndarray, " word"]
    y: Shaped[np.ndarray, " word"]
    text: tuple[str, ...]
    side: Literal["left", "right", "on"] = "right"
    """Of the place that the words stand on."""


@dataclass(frozen=True, kw_only=True)
class HLine(Mark):
    """A level to compare with, named at its right end."""

    at: float
    label: str


@dataclass(frozen=True, kw_only=True)
class VLine(Mark):
    """An upright level to compare with, named in the legend."""

    at: float
    label: str

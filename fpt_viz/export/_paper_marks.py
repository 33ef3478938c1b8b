"""How each mark is drawn on matplotlib axes."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap, Normalize
from matplotlib.patches import Rectangle
import numpy as np

from fpt_viz.export import colours as palette
from fpt_viz.export.marks import (
    Bars,
    Colours,
    Heatmap,
    HLine,
    Line,
    Links,
    Mark,
    Picture,
    Points,
    Tiles,
    VLine,
    Words,
    outlines,
)

MARKERS = dict(zip(palette.MARKERS, ("o", "s", "D", "^", "X", "v", "P"), strict=True))
MARKERS_ON_A_LINE = 12
ON_BAR = "on-bar"
"""Names the words on bars, which are made smaller once it is known how wide the bars are."""
DASH, DASH_DOWN = 0.2, 0.34
"""Half the width of the dash that marks a cell below 0, and how far below the centre it stands, in cells."""


def thick() -> float:
    """How much thicker than on a page of usual letters lines are drawn, on slides and posters."""
    return max(1.0, float(mpl.rcParams["font.size"]) / 8.0)


def colour_map(scale: str) -> Colormap:
    """The colour scale as matplotlib wants it; NaN stays blank."""
    return LinearSegmentedColormap.from_list(scale, palette.SCALES[scale]).with_extremes(bad=(1, 1, 1, 0))


def normalised(colours: Colours) -> Normalize:
    """The fixed range of ``colours``."""
    return Normalize(colours.vmin, colours.vmax)


@singledispatch
def draw_mark(mark: Mark, axes: Axes) -> Any:
    """Draw ``mark``; returns what stands for it in the legend, or None."""
    raise NotImplementedError(f"{type(mark).__name__} cannot be drawn on paper")


def _image(axes: Axes, z: Any, colours: Colours, cell_height: float) -> None:
    axes.imshow(
        z,
        cmap=colour_map(colours.scale),
        norm=normalised(colours),
        aspect=cell_height,
        interpolation="none",  # with "nearest" a PDF silently loses rows
    )
    axes.grid(visible=False)
    axes.tick_params(length=0)


@draw_mark.register
def _(mark: Heatmap, axes: Axes) -> None:
    _image(axes, mark.shown, mark.colours, mark.cell_height)
    for row, column, width in mark.hatched():
        cell = Rectangle(
            (column - 0.5, row - 0.5), width, 1, facecolor=palette.UNREACHABLE, edgecolor="#9aa5b1", hatch="////", lw=0
        )
        axes.add_patch(cell)
    below = mark.below_zero()
    _dashes(
        axes, [(row + DASH_DOWN, float(column), 1.0) for row, column in below], [mark.z[cell] for cell in below], mark
    )
    if mark.boxed:
        x, y = outlines([(*cell, 1, 1) for cell in mark.boxed], inset=0.04)
        axes.plot(x, y, color=palette.ACCENT, linewidth=1.2 * thick(), solid_joinstyle="miter")
    if mark.dotted:
        rows, columns = np.array(mark.dotted).T
        axes.plot(
            columns + 0.32, rows - 0.32, "o", color=palette.INK, markersize=2.6 * thick(), markeredgecolor="white",
            markeredgewidth=0.4,
        )  # fmt: skip


def _dashes(axes: Axes, places: list[tuple[float, float, float]], values: list[Any], mark: Heatmap | Picture) -> None:
    """A dash at each of ``places`` (row, column and width of what is marked), in an ink that its colour shows."""
    if not places:
        return
    strokes = [[(x - DASH * width, y), (x + DASH * width, y)] for y, x, width in places]
    scale = mark.colours
    inks = [palette.text_on(palette.colour_at(scale.scale, scale.share(float(value)))) for value in values]
    axes.add_collection(LineCollection(strokes, colors=inks, linewidths=0.7 * thick()), autolim=False)


@draw_mark.register
def _(mark: Picture, axes: Axes) -> None:
    axes.imshow(mark.painted(), interpolation="none")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    lines = [(*mark.boxes[i], 1) for i in mark.below_zero()]
    places = [(top + height * 0.8 - 0.5, left + width / 2 - 0.5, float(width)) for top, left, height, width, _ in lines]
    _dashes(axes, places, [mark.z[i] for i in mark.below_zero()], mark)
    for top, left, height, width in (mark.boxes[i] for i in mark.unreachable):
        axes.add_patch(
            Rectangle((left - 0.5, top - 0.5), width, height, facecolor="none", edgecolor="#52606d", hatch="////", lw=0)
        )
    axes.plot(*mark.outlines_of(mark.boxed), color=palette.ACCENT, linewidth=1.5 * thick(), solid_joinstyle="miter")


@draw_mark.register
def _(mark: Links, axes: Axes) -> None:
    order = mark.drawn()
    strokes = [[(mark.x0[i], mark.y0[i]), (mark.x1[i], mark.y1[i])] for i in order]
    shares = [mark.colours.share(float(mark.z[i])) for i in order]
    inks = [
        palette.ACCENT if i in mark.boxed else palette.colour_at(mark.colours.scale, share)
        for i, share in zip(order, shares, strict=True)
    ]
    widths = [thick() * (0.3 + 2.2 * min(max(share, 0.0), 1.0)) for share in shares]
    axes.add_collection(LineCollection(strokes, colors=inks, linewidths=widths, capstyle="round"))
    axes.autoscale_view()


@draw_mark.register
def _(mark: Words, axes: Axes) -> None:
    align = {"left": "right", "right": "left", "on": "center"}[mark.side]
    shift = {"left": -3, "right": 3, "on": 0}[mark.side]
    for x, y, text in zip(mark.x, mark.y, mark.text, strict=True):
        axes.annotate(
            text, (x, y), xytext=(shift, 0), textcoords="offset points", ha=align, va="center_baseline",
            fontsize=mpl.rcParams["ytick.labelsize"], annotation_clip=False,
        )  # fmt: skip


@draw_mark.register
def _(mark: Tiles, axes: Axes) -> None:
    canvas = mark.canvas()
    _image(axes, canvas, mark.colours, mark.cell_height)
    if mark.unreachable is not None:
        grey = ListedColormap([palette.UNREACHABLE]).with_extremes(bad=(1, 1, 1, 0))
        axes.imshow(mark.grey_canvas(), cmap=grey, aspect=mark.cell_height, interpolation="none")
    axes.plot(*mark.frames(mark.all_tiles()), color="#9aa5b1", linewidth=0.3 * thick())
    axes.plot(*mark.frames(mark.highlighted), color=palette.ACCENT, linewidth=1.3 * thick(), solid_joinstyle="miter")
    axes.set(xlim=(-1, canvas.shape[1]), ylim=(canvas.shape[0], -1))


@draw_mark.register
def _(mark: Line, axes: Axes) -> Any:
    style = palette.style(mark.series)
    if mark.low is not None and mark.high is not None:
        axes.fill_between(mark.x, mark.low, mark.high, color=style.colour, alpha=0.18, linewidth=0)
    if mark.faint:
        axes.plot(mark.x, mark.y, color=style.colour, alpha=0.45, linewidth=0.7 * thick())
        return None
    [line] = axes.plot(
        mark.x,
        mark.y,
        color=style.colour,
        linestyle=(0, style.dash) if style.dash else "-",
        marker=MARKERS[style.marker] if mark.markers else None,
        markevery=-(-len(mark.x) // MARKERS_ON_A_LINE),
    )
    return line


@draw_mark.register
def _(mark: Points, axes: Axes) -> Any:
    style = palette.style(mark.series)
    error: dict[str, Any] = {}
    if mark.low is not None and mark.high is not None:
        middle = mark.x if mark.across else mark.y
        error["xerr" if mark.across else "yerr"] = np.abs(np.stack([middle - mark.low, mark.high - middle]))
    drawn = axes.errorbar(
        mark.x,
        mark.y,
        **error,
        fmt=MARKERS[mark.marker or style.marker],
        color=style.colour,
        markersize=5.0 * thick(),
        markerfacecolor="white" if mark.hollow else style.colour,
        elinewidth=1.2 * thick(),
        capsize=1.8 * thick(),
    )
    for x, y, text in zip(mark.text_from, mark.y, mark.text, strict=False):
        axes.annotate(text, (x, y), xytext=(4 * thick(), 0), textcoords="offset points", va="center", fontsize="small")
    return drawn


@draw_mark.register
def _(mark: Bars, axes: Axes) -> None:
    places = np.arange(len(mark.values))
    shades = [palette.style(i).colour for i in mark.series]
    axes.bar(places, mark.values, width=0.62, color=shades, alpha=0.85)
    error = np.abs(np.stack([mark.values - mark.low, mark.high - mark.values]))
    axes.errorbar(
        places, mark.values, yerr=error, fmt="none", ecolor=palette.INK, elinewidth=1.0 * thick(), capsize=2.5 * thick()
    )
    for x, y, text in zip(places, np.maximum(mark.values, mark.high), mark.text, strict=True):
        axes.annotate(
            text, (x, y), xytext=(0, 3.5), textcoords="offset points", ha="center", va="bottom", label=ON_BAR,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8},
        )  # fmt: skip


@draw_mark.register
def _(mark: HLine, axes: Axes) -> None:
    axes.axhline(mark.at, color=palette.MUTED, linewidth=0.8 * thick(), linestyle=(0, (4, 2)), zorder=1.5)


@draw_mark.register
def _(mark: VLine, axes: Axes) -> Any:
    return axes.axvline(mark.at, color=palette.MUTED, linewidth=0.8 * thick(), linestyle=(0, (4, 2)), zorder=1.5)

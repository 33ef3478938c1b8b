"""How each mark is drawn in a plotly subplot."""

from __future__ import annotations

from functools import singledispatch
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from fpt_viz.export import colours as palette
from fpt_viz.export.marks import (
    Array,
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

MARKERS_ON_A_LINE = 12
MOST_HATCHED_CELLS = 200
"""With more, one stroke in each is dense enough."""
MOST_NAMED_CELLS = 60_000
"""Cells that are named one by one when pointed at; a larger picture shows its number only, to stay light."""
_SILENT: dict[str, Any] = {"hoverinfo": "skip", "showlegend": False}
_REFERENCE = {"color": palette.MUTED, "width": 1.2, "dash": "6px,3px"}

Place = dict[str, int]
"""The row and column of a subplot."""


@singledispatch
def draw_mark(mark: Mark, figure: go.Figure, place: Place, axis: str) -> None:
    """Draw ``mark`` at ``place``; ``axis`` is the name of its colour axis."""
    raise NotImplementedError(f"{type(mark).__name__} cannot be drawn on the screen")


def _line(colour: str, width: float) -> dict[str, Any]:
    return {"mode": "lines", "line": {"color": colour, "width": width}, **_SILENT}


@draw_mark.register
def _(mark: Heatmap, figure: go.Figure, place: Place, axis: str) -> None:
    cells = go.Heatmap(z=mark.shown, coloraxis=axis, **_pointed_at(_cell_names(mark)), **_words(mark))
    figure.add_trace(cells, **place)
    if mark.hatched():
        figure.add_trace(_grey(np.where(np.asarray(mark.unreachable), 1.0, np.nan)), **place)
        x, y = _strokes(mark)
        figure.add_trace(go.Scatter(x=x, y=y, **_line("#9aa5b1", 0.7)), **place)
    places = [(row + 0.34, float(column), 1.0) for row, column in mark.below_zero()]
    _dashes(figure, place, places, [float(mark.z[cell]) for cell in mark.below_zero()], mark.colours)
    if mark.boxed:
        x, y = outlines([(*cell, 1, 1) for cell in mark.boxed], inset=0.03)
        figure.add_trace(go.Scatter(x=x, y=y, **_line(palette.ACCENT, 2.5)), **place)
    if mark.dotted:
        rows, columns = np.array(mark.dotted).T
        dot = {"size": 6, "color": palette.INK, "line": {"color": "white", "width": 1}}
        figure.add_trace(go.Scatter(x=columns + 0.34, y=rows - 0.34, mode="markers", marker=dot, **_SILENT), **place)


def _dashes(
    figure: go.Figure, place: Place, places: list[tuple[float, float, float]], values: list[float], colours: Colours
) -> None:
    """A dash at each of ``places`` (row, column and width of what is marked), in an ink that its colour shows."""
    inks = [palette.text_on(palette.colour_at(colours.scale, colours.share(value))) for value in values]
    for ink in sorted(set(inks)):
        chosen = [each for each, own in zip(places, inks, strict=True) if own == ink]
        x = [at for _, column, width in chosen for at in (column - 0.2 * width, column + 0.2 * width, None)]
        y = [at for row, *_ in chosen for at in (row, row, None)]
        figure.add_trace(go.Scatter(x=x, y=y, **_line(ink, 1.6)), **place)


def _strokes(mark: Heatmap) -> tuple[Array, Array]:
    """Hatching: strokes through each unreachable cell, three of them where cells are few."""
    cells = [(row, column + i) for row, column, width in mark.hatched() for i in range(width)]
    starts = (-0.5, -1 / 6, 1 / 6) if len(cells) <= MOST_HATCHED_CELLS else (-0.5,)
    x = [[c + t, c + 0.5, np.nan, c - 0.5, c - t, np.nan] for _, c in cells for t in starts]
    y = [[r + 0.5, r + t, np.nan, r - t, r - 0.5, np.nan] for r, _ in cells for t in starts]
    return np.array(x).ravel(), np.array(y).ravel()


def _grey(cells: Array) -> go.Heatmap:
    """The cells that are not NaN, in the grey of what cannot be reached."""
    scale = [[0, palette.UNREACHABLE], [1, palette.UNREACHABLE]]
    return go.Heatmap(z=cells, colorscale=scale, showscale=False, hoverinfo="skip")


def _cell_names(mark: Heatmap) -> Array | None:
    if mark.z.size > MOST_NAMED_CELLS:
        return None
    row_name, column_name = mark.cell_names
    names = [
        [
            f"{row_name} <b>{escape(y)}</b><br>{column_name} <b>{escape(x)}</b><br>{escape(mark.colours.label)} "
            f"<b>{mark.z[r, c]:.3f}</b>"
            for c, x in enumerate(mark.x_labels)
        ]
        for r, y in enumerate(mark.y_labels)
    ]
    return np.array(names, dtype=object)


def _pointed_at(names: Array | None) -> dict[str, Any]:
    """What a cell says when it is pointed at."""
    if names is None:
        return {"hovertemplate": "%{z:.3f}<extra></extra>"}
    return {"hovertext": names, "hovertemplate": "%{hovertext}<extra></extra>", "hoverongaps": False}


def _words(mark: Heatmap) -> dict[str, Any]:
    if mark.text is None:
        return {}
    words = [[escape(word) for word in row] for row in mark.text]
    return {"text": words, "texttemplate": "%{text}", "textfont": {"size": 12}}


@draw_mark.register
def _(mark: Picture, figure: go.Figure, place: Place, axis: str) -> None:
    figure.add_trace(go.Image(z=np.round(255 * mark.painted()).astype(np.uint8), hoverinfo="skip"), **place)
    values = mark.values()
    names = np.full(values.shape, "", dtype=object)
    for i, (top, left, height, width) in enumerate(mark.boxes):
        name = mark.labels[i] if mark.labels else str(i)
        names[top : top + height, left : left + width] = (
            f"<b>{escape(name)}</b><br>{escape(mark.colours.label)} <b>{mark.z[i]:.3f}</b>"
        )
    seen = {"opacity": 0, **_pointed_at(names if values.size <= MOST_NAMED_CELLS else None)}
    figure.add_trace(go.Heatmap(z=values, coloraxis=axis, **seen), **place)
    below = [(mark.boxes[i], float(mark.z[i])) for i in mark.below_zero()]
    places = [
        (top + 0.8 * height - 0.5, left + width / 2 - 0.5, float(width)) for (top, left, height, width), _ in below
    ]
    _dashes(figure, place, places, [value for _, value in below], mark.colours)
    hidden = [mark.boxes[i] for i in mark.unreachable]
    x = [at for _, left, _, width in hidden for at in (left - 0.5, left + width - 0.5, None)]
    y = [at for top, _, height, _ in hidden for at in (top + height - 0.5, top - 0.5, None)]
    if hidden:
        figure.add_trace(go.Scatter(x=x, y=y, **_line("#52606d", 0.8)), **place)
    if mark.boxed:
        around = dict(zip("xy", mark.outlines_of(mark.boxed), strict=True))
        figure.add_trace(go.Scatter(**around, **_line(palette.ACCENT, 3.0)), **place)


LINK_GRADES = 8
"""Widths and shades that links are drawn in; each is one trace."""


@draw_mark.register
def _(mark: Links, figure: go.Figure, place: Place, axis: str) -> None:
    grades: dict[tuple[int, bool], list[int]] = {}
    for i in mark.drawn():
        share = min(max(mark.colours.share(float(mark.z[i])), 0.0), 1.0)
        grades.setdefault((round(share * LINK_GRADES), i in mark.boxed), []).append(i)
    for (grade, boxed), links in grades.items():
        share = grade / LINK_GRADES
        red, green, blue = palette.colour_at(mark.colours.scale, share)
        ink = palette.ACCENT if boxed else f"rgb({round(255 * red)},{round(255 * green)},{round(255 * blue)})"
        x = [at for i in links for at in (mark.x0[i], mark.x1[i], None)]
        y = [at for i in links for at in (mark.y0[i], mark.y1[i], None)]
        figure.add_trace(go.Scatter(x=x, y=y, **_line(ink, 0.5 + 4 * share)), **place)
    middle_x, middle_y = (mark.x0 + mark.x1) / 2, (mark.y0 + mark.y1) / 2
    text = [f"{escape(name)}: <b>{value:.3f}</b>" for name, value in zip(mark.names, mark.z, strict=True)]
    dots = {"color": mark.z, "coloraxis": axis, "size": 9, "opacity": 0}
    pointed = {"mode": "markers", "hovertext": text, "hovertemplate": "%{hovertext}<extra></extra>"}
    figure.add_trace(go.Scatter(x=middle_x, y=middle_y, marker=dots, showlegend=False, **pointed), **place)


@draw_mark.register
def _(mark: Words, figure: go.Figure, place: Place, axis: str) -> None:
    anchor = {"left": "right", "right": "left", "on": "center"}[mark.side]
    shift = {"left": -5, "right": 5, "on": 0}[mark.side]
    for x, y, text in zip(mark.x.tolist(), mark.y.tolist(), mark.text, strict=True):
        figure.add_annotation(
            x=x, y=y, text=escape(text), xanchor=anchor, xshift=shift, showarrow=False, font={"size": 12}, **place
        )


@draw_mark.register
def _(mark: Tiles, figure: go.Figure, place: Place, axis: str) -> None:
    canvas = mark.canvas()
    names = None
    if canvas.size <= MOST_NAMED_CELLS:
        names = np.full(canvas.shape, "", dtype=object)
        for r, c, q, k in np.ndindex(mark.z.shape):
            top, left = mark.corner(r, c)
            where = f"<b>{escape(mark.captions[r][c])}</b>"
            read = f"{escape(mark.y_labels[q])} reads {escape(mark.x_labels[k])}"
            names[top + q, left + k] = f"{where}<br>{read}: <b>{mark.z[r, c, q, k]:.3f}</b>"
    figure.add_trace(go.Heatmap(z=canvas, coloraxis=axis, **_pointed_at(names)), **place)
    if mark.unreachable is not None:
        figure.add_trace(_grey(mark.grey_canvas()), **place)
    for tiles, colour, width in ((mark.all_tiles(), "#9aa5b1", 0.6), (list(mark.highlighted), palette.ACCENT, 2.5)):
        x, y = mark.frames(tiles)
        figure.add_trace(go.Scatter(x=x, y=y, **_line(colour, width)), **place)
    if mark.captioned:
        _captions(mark, figure, place)


def _captions(mark: Tiles, figure: go.Figure, place: Place) -> None:
    corners = [mark.corner(*tile) for tile in mark.all_tiles()]
    words = []
    for tile in mark.all_tiles():
        word = escape(mark.caption(tile))
        words.append(f"<b>{word}</b>" if tile in mark.highlighted else word)
    figure.add_trace(
        go.Scatter(
            x=[left - 0.5 for _, left in corners],
            y=[top - 0.6 for top, _ in corners],
            text=words,
            mode="text",
            textposition="top right",
            textfont={"size": 10.5},
            **_SILENT,
        ),
        **place,
    )


@draw_mark.register
def _(mark: Line, figure: go.Figure, place: Place, axis: str) -> None:
    style = palette.style(mark.series)
    if mark.low is not None and mark.high is not None:
        around = np.concatenate([mark.x, mark.x[::-1]]), np.concatenate([mark.high, mark.low[::-1]])
        shade = f"rgba({','.join(str(round(255 * c)) for c in palette.rgb(style.colour))},0.18)"
        band = go.Scatter(x=around[0], y=around[1], fill="toself", fillcolor=shade, line={"width": 0}, **_SILENT)
        figure.add_trace(band.update(mode="lines"), **place)
    if mark.faint:
        trace = go.Scatter(x=mark.x, y=mark.y, **_line(style.colour, 1.2))
        figure.add_trace(trace.update(opacity=0.45), **place)
        return
    dash = ",".join(f"{2.2 * length:.1f}px" for length in style.dash) or "solid"
    trace = go.Scatter(
        x=mark.x,
        y=mark.y,
        mode="lines+markers" if mark.markers else "lines",
        line={"color": style.colour, "width": 2.2, "dash": dash},
        marker={"symbol": style.marker, "size": 7, "maxdisplayed": MARKERS_ON_A_LINE},
        name=escape(mark.label),
        hovertemplate=f"{escape(mark.label)}<br>%{{x}}: %{{y:.4g}}<extra></extra>",
    )
    figure.add_trace(trace, **place)


@draw_mark.register
def _(mark: Points, figure: go.Figure, place: Place, axis: str) -> None:
    style = palette.style(mark.series)
    error: dict[str, Any] = {}
    if mark.low is not None and mark.high is not None:
        middle = mark.x if mark.across else mark.y
        bounds = {"array": mark.high - middle, "arrayminus": middle - mark.low, "symmetric": False}
        error["error_x" if mark.across else "error_y"] = {**bounds, "thickness": 1.8, "width": 4}
    value = "x" if mark.across else "y"
    trace = go.Scatter(
        x=mark.x,
        y=mark.y,
        mode="markers",
        **error,
        marker={
            "symbol": mark.marker or style.marker,
            "size": 9,
            "color": "white" if mark.hollow else style.colour,
            "line": {"color": style.colour, "width": 1.6},
        },
        name=escape(mark.label),
        hovertemplate=f"{escape(mark.label)}: %{{{value}:.3f}}<extra></extra>",
    )
    if error:
        trace.update({next(iter(error)): {"color": style.colour}})
    figure.add_trace(trace, **place)
    for x, y, text in zip(mark.text_from, mark.y, mark.text, strict=False):
        figure.add_annotation(x=x, y=y, text=escape(text), xanchor="left", xshift=6, showarrow=False, **place)


@draw_mark.register
def _(mark: Bars, figure: go.Figure, place: Place, axis: str) -> None:
    error = {"array": mark.high - mark.values, "arrayminus": mark.values - mark.low, "symmetric": False}
    trace = go.Bar(
        x=np.arange(len(mark.values)),
        y=mark.values,
        width=0.62,
        marker={"color": [palette.style(i).colour for i in mark.series], "opacity": 0.85},
        error_y={**error, "color": palette.INK, "thickness": 1.6, "width": 6},
        hovertemplate=f"{escape(mark.label)}: %{{y:.4f}}<extra></extra>",
        showlegend=False,
    )
    figure.add_trace(trace, **place)
    for x, (top, text) in enumerate(zip(np.maximum(mark.values, mark.high), mark.text, strict=True)):
        look = {"yanchor": "bottom", "yshift": 3, "showarrow": False, "bgcolor": "rgba(255,255,255,0.85)"}
        figure.add_annotation(x=x, y=top, text=escape(text), **look, **place)


@draw_mark.register
def _(mark: HLine, figure: go.Figure, place: Place, axis: str) -> None:
    figure.add_shape(
        type="line", xref="x domain", x0=0, x1=1, y0=mark.at, y1=mark.at, line=_REFERENCE, layer="below", **place
    )


@draw_mark.register
def _(mark: VLine, figure: go.Figure, place: Place, axis: str) -> None:
    figure.add_shape(
        type="line", yref="y domain", y0=0, y1=1, x0=mark.at, x1=mark.at, line=_REFERENCE, layer="below",
        showlegend=bool(mark.label), name=escape(mark.label), **place,
    )  # fmt: skip

"""Figures on the screen: plotly, from the arrays that paper is drawn from; and as HTML that needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
import json
import textwrap
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from fpt_viz.export import _layout, colours as palette
from fpt_viz.export._screen_marks import draw_mark
from fpt_viz.export.description import Description, Panel
from fpt_viz.export.marks import Bars, Colours, Heatmap, Line, Picture, Points, Tiles

WIDTH, MOST_WIDTH = 760, 1_100
"""Of a figure in pixels, where it has no reason for another; a page may make it narrower."""
MOST_BAR = 320
TILE_WIDTH = 74
TEXT_SIZE = 13
LINE_HEIGHT = 21
"""Of a line of a chart with one line an entry."""
CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}
FONT = "system-ui, 'Open Sans', 'Liberation Sans', Arial, sans-serif"


def draw(figure: Description, *, columns: int, headed: bool = True) -> go.Figure:
    """``figure`` in plotly, ``columns`` panels beside each other, at its natural size."""
    columns = min(columns, len(figure.panels))
    rows = _layout.rows_of(figure.panels, columns)
    width = _width(figure, columns)
    margin = _margins(figure, width, headed=headed)
    inner = width / columns - margin["l"] - margin["r"]
    heights = [max(_height(panel, inner) for panel in row) for row in rows]
    between = 64
    total = sum(heights) + between * (len(rows) - 1)
    drawn = make_subplots(
        rows=len(rows),
        cols=columns,
        row_heights=heights,
        vertical_spacing=between / total if len(rows) > 1 else 0,
        horizontal_spacing=(margin["l"] + margin["r"]) / (width - margin["l"] - margin["r"]) if columns > 1 else 0,
        subplot_titles=[_panel_title(panel) for panel in figure.panels] if _titled(figure) else None,
    )
    bars: list[Colours] = []
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            _fill(drawn, panel, {"row": i + 1, "col": j + 1}, bars, height=heights[i])
    _list_once(drawn)
    _dress(drawn, figure, headed=headed)
    return drawn.update_layout(width=width, height=round(total + margin["t"] + margin["b"]), margin=margin)


def fragment(figure: Description, div_id: str, *, columns: int) -> str:
    """The figure as a box that scales with its page, which brings plotly.js, title and note."""
    drawn = draw(figure, columns=columns, headed=False)
    width, height = drawn.layout.width, drawn.layout.height
    spec = json.loads(drawn.update_layout(width=None, height=None, autosize=True).to_json())
    arguments = ", ".join(_script_safe(part) for part in (div_id, spec["data"], spec["layout"], CONFIG))
    least = min(width, _least_width(figure) if columns == 1 else 400 * columns)
    pictures = any(_layout.picture(panel) for panel in figure.panels)
    tall = f"aspect-ratio:{width}/{height};min-height:240px" if pictures else f"height:{height}px"
    style = f"width:100%;max-width:{width}px;min-width:{least}px;{tall}"
    return (
        f'<div class="figure-scroll" style="overflow-x:auto" tabindex="0">'
        f'<div id="{escape(div_id)}" role="img" aria-label="{escape(figure.alt)}" style="{style}"></div></div>\n'
        f"<script>Plotly.newPlot({arguments});</script>"
    )


def page(figure: Description, *, about: Mapping[str, Any] | None = None) -> str:
    """One HTML file with plotly.js inside; ``about`` says in its metadata where the numbers come from."""
    note = f"<p>{escape(figure.note)}</p>" if figure.note else ""
    source = escape(json.dumps(figure.source if about is None else about, sort_keys=True, default=str))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="description" content="{escape(figure.alt)}">
<meta name="source" content="{source}">
<link rel="icon" href="data:,">
<title>{escape(figure.title)}</title>
<style>body {{ font: 16px/1.5 {FONT}; color: {palette.INK}; margin: 1.5rem auto; max-width: 70rem; padding: 0 1rem }}
h1 {{ font-size: 1.3rem }} p, figcaption {{ color: {palette.MUTED}; max-width: 48rem }} figure {{ margin: 0 }}</style>
<script>{get_plotlyjs()}</script>
</head>
<body>
<main>
<h1>{escape(figure.title)}</h1>
<figure>
{fragment(figure, "figure", columns=figure.columns)}
<figcaption>{note}<p>{escape(figure.alt)}</p></figcaption>
</figure>
</main>
</body>
</html>
"""


def _script_safe(value: Any) -> str:
    """``value`` as JavaScript that no text in it can end early."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028")


def _titled(figure: Description) -> bool:
    return any(panel.title or panel.letter for panel in figure.panels)


def _panel_title(panel: Panel) -> str:
    return f"<b>{escape(panel.letter)}</b>  {escape(panel.title)}" if panel.letter else escape(panel.title)


def _width(figure: Description, columns: int) -> int:
    across = [mark.z.shape[1] for mark in figure.marks() if isinstance(mark, Tiles)]
    return int(
        min(MOST_WIDTH, max([WIDTH, 560 * columns if columns > 1 else 0, *(150 + TILE_WIDTH * n for n in across)]))
    )


def _least_width(figure: Description) -> int:
    """In pixels; on a narrower screen the figure scrolls sideways."""
    tiles = [130 + 58 * mark.z.shape[1] for mark in figure.marks() if isinstance(mark, Tiles)]
    heatmaps = [mark for mark in figure.marks() if isinstance(mark, Heatmap)]
    cells = [min(620, 130 + (28 if mark.text else 20) * mark.z.shape[1]) for mark in heatmaps]
    listed = [110 + 7 * len(mark.label) for mark in figure.marks() if isinstance(mark, Line | Points)]
    return int(max([340, *tiles, *cells, *listed]))


def _height(panel: Panel, width: float) -> float:
    if panel.n_lines is not None and _layout.picture(panel) is None:
        return float(panel.n_lines * LINE_HEIGHT)
    if _layout.picture(panel) is None:
        return max(230.0, min(width * panel.shape, 340.0))
    return max(60.0, width * _layout.ratio(panel))


def _margins(figure: Description, width: int, *, headed: bool) -> dict[str, int]:
    """Room in pixels for what stands around the panels."""
    names = [name for panel in figure.panels for name in _layout.level_names(panel).values()]
    right = max((len(line) for name in names for line in name.split("\n")), default=0) * 7 + 16
    beside = max(map(_layout.words_beside, figure.panels))
    right = max(right, 7 * beside + 12 if beside else 0)
    if any(_layout.colours_of(panel) for panel in figure.panels):
        right = max(right + (76 if beside else 0), 92)
    ticks = [label for panel in figure.panels for label in _tick_labels(panel)]
    left = 52 + 7 * max((len(label) for label in ticks), default=4)
    labels = {getattr(mark, "label", "") for mark in figure.marks()} - {""}
    listed = [label for label in labels if not any(label in name.replace("\n", " ") for name in names)]
    key_rows = -(-sum(8 * len(label) + 60 for label in listed) // (width - left - right)) if listed else 0
    top = 24 + 22 * int(key_rows) + (18 if _titled(figure) else 0)
    if headed:
        top += 34 + 17 * (_note(figure, WIDTH).count("<br>") + 1 if figure.note else 0)
    return {"l": left, "r": right, "t": top, "b": 60}


def _tick_labels(panel: Panel) -> tuple[str, ...]:
    mark = _layout.picture(panel)
    if mark is not None:
        return _layout.row_names(mark)
    return panel.y_ticks[1] if panel.y_ticks else ()


def _note(figure: Description, width: int) -> str:
    return escape(_layout.wrapped(figure.note, float(width - 40), 11.5)).replace("\n", "<br>")


def _fill(drawn: go.Figure, panel: Panel, place: dict[str, int], bars: list[Colours], *, height: float) -> None:
    """Draw the marks and the axes of ``panel``; a new meaning of colours is added to ``bars``."""
    colours = _layout.colours_of(panel)
    axis = ""
    if colours is not None:
        if colours not in bars:
            bars.append(colours)
        number = bars.index(colours) + 1
        axis = f"coloraxis{number if number > 1 else ''}"
        drawn.update_layout({axis: _colour_axis(colours, height)})
    for mark in panel.marks:
        draw_mark(mark, drawn, place, axis)
    x_title = escape(textwrap.fill(panel.x_title, 44)).replace("\n", "<br>")
    drawn.update_xaxes(title_text=x_title, range=panel.x_range, **_ticks(panel.x_ticks), **place)
    drawn.update_yaxes(title_text=escape(panel.y_title), range=panel.y_range, **_ticks(panel.y_ticks), **place)
    picture = _layout.picture(panel)
    if picture is not None:
        _label_cells(drawn, picture, place)
    elif any(isinstance(mark, Bars) for mark in panel.marks):
        drawn.update_xaxes(showgrid=False, **place)
    if panel.bare:
        bare = {"showgrid": False, "zeroline": False, "showline": False, "ticks": ""}
        drawn.update_xaxes(showticklabels=panel.x_ticks is not None, **bare, **place)
        drawn.update_yaxes(showticklabels=panel.y_ticks is not None, **bare, **place)
    _name_levels(drawn, panel, place, height)


def _bar_length(height: float) -> dict[str, Any]:
    """As long as the panel is high, up to a point."""
    return {"lenmode": "fraction", "len": min(1.0, MOST_BAR / height)}


def _colour_axis(colours: Colours, height: float) -> dict[str, Any]:
    title = {"text": escape(colours.label), "side": "right"}
    bar = {"title": title, "thickness": 13, "outlinewidth": 0.5, "yanchor": "top", "y": 1, **_bar_length(height)}
    return {
        "cmin": colours.vmin,
        "cmax": colours.vmax,
        "colorscale": palette.plotly_scale(colours.scale),
        "colorbar": bar,
    }


def _ticks(ticks: tuple[tuple[float, ...], tuple[str, ...]] | None) -> dict[str, Any]:
    if ticks is None:
        return {}
    names = [escape(name).replace("\n", "<br>") for name in ticks[1]]
    return {"tickmode": "array", "tickvals": list(ticks[0]), "ticktext": names}


def _label_cells(drawn: go.Figure, mark: _layout.Cells, place: dict[str, int]) -> None:
    """Square cells, row 0 at the top, and as many tick labels as fit."""
    rows, columns, cell_height = _layout.cells(mark)
    x: dict[str, Any]
    y: dict[str, Any]
    if isinstance(mark, Picture):
        x, y = {"showticklabels": False}, {"showticklabels": False}
        x_range, y_range = (-0.5, columns - 0.5), (rows - 0.5, -0.5)
    elif isinstance(mark, Tiles):
        across, down = mark.centres()
        x, y = _ticks((tuple(across), mark.column_labels)), _ticks((tuple(down), mark.row_labels))
        x_range, y_range = (-1.0, float(columns)), (float(rows), -1.0)
    else:
        step = _layout.every(columns, WIDTH - 140.0, 18.0)
        x = _ticks((tuple(map(float, range(0, columns, step))), mark.x_labels[::step]))
        step = _layout.every(rows, (WIDTH - 140) * _layout.ratio(Panel(marks=(mark,))), 16.0)
        y = _ticks((tuple(map(float, range(0, rows, step))), mark.y_labels[::step]))
        x_range, y_range = (-0.5, columns - 0.5), (rows - 0.5, -0.5)
    square = {"constrain": "domain", "showgrid": False, "zeroline": False, "ticks": "", "showline": False}
    drawn.update_xaxes(range=x_range, **x, **square, **place)
    anchor = drawn.get_subplot(**place).xaxis.plotly_name.replace("axis", "")
    fixed = {"scaleanchor": anchor, "scaleratio": cell_height, "constraintoward": "top"}
    drawn.update_yaxes(range=y_range, **y, **square, **fixed, **place)


def _list_once(drawn: go.Figure) -> None:
    """List each name once in the legend, and nothing without a name."""
    listed: set[str] = set()
    for trace in drawn.data:
        if trace.type == "image":  # never listed
            continue
        if trace.showlegend is None:
            trace.showlegend = bool(trace.name) and trace.name not in listed
        listed.add(trace.name or "")


def _name_levels(drawn: go.Figure, panel: Panel, place: dict[str, int], height: float) -> None:
    """The names of levels at the right of the axes; those too close together are moved apart."""
    names = _layout.level_names(panel)
    low, high = panel.y_range or (0.0, 1.0)
    places = [(at - low) / (high - low) * height for at in names]
    moved = _layout.spread(places, [17.0 * (name.count("\n") + 1) for name in names.values()])
    for (at, name), position, to in zip(names.items(), places, moved, strict=True):
        words = escape(name).replace("\n", "<br>")
        look = {"showarrow": False, "align": "left", "font": {"size": 12, "color": palette.MUTED}}
        drawn.add_annotation(
            xref="x domain", x=1, xanchor="left", xshift=4, y=at, yshift=to - position, text=words, **look, **place
        )


def _dress(drawn: go.Figure, figure: Description, *, headed: bool) -> None:
    """Letters, axes and legend of the whole figure."""
    axis = {
        "gridcolor": palette.GRID, "linecolor": palette.MUTED, "zeroline": False, "ticks": "outside", "ticklen": 4,
        "tickcolor": palette.MUTED, "automargin": True, "title": {"standoff": 10},
    }  # fmt: skip
    for update in (drawn.for_each_xaxis, drawn.for_each_yaxis):
        update(lambda each: each.update(axis, overwrite=False) if each.showgrid is False else each.update(axis))
    drawn.update_layout(
        template=go.layout.Template(),
        font={"family": FONT, "size": TEXT_SIZE, "color": palette.INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        hoverlabel={"bgcolor": "white", "font": {"color": palette.INK}},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "yref": "paper"},
        dragmode=False,
    )
    if headed:
        subtitle = {"text": _note(figure, WIDTH), "font": {"size": 11.5, "color": palette.MUTED}}
        head = {"text": f"<b>{escape(figure.title)}</b>", "subtitle": subtitle, "font": {"size": 15}}
        drawn.update_layout(title={**head, "x": 0.01, "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 10}})

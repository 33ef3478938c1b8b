"""A still picture of a widget, for pages in which no widget runs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
import html
import io

from jaxtyping import UInt8
import numpy as np
from PIL import Image, ImageDraw

from fpt_viz.export import Figure, paper
from fpt_viz.export.colours import UNREACHABLE, colour_at, rgb
from fpt_viz.export.presets import preset

GREY, WHITE = 254, 255
"""Entries of the palette of a still grid; those below are the scale."""
LEAST_SIDE = 48
"""Pixels along a tile's longer side, at least."""
CAPTION, GAP = 14, 6


def picture(figure: Figure, widget_id: str) -> str:
    """``figure`` as HTML; its class names the widget, which hides it once it runs."""
    svg = base64.b64encode(paper.render(figure, "svg", preset("paper-wide"))).decode()
    return _shown(f"data:image/svg+xml;base64,{svg}", figure.alt, widget_id)


def grid(
    tiles: UInt8[np.ndarray, "layer head row column"],
    captions: Sequence[Sequence[str]],
    *,
    scale: str,
    alt: str,
    widget_id: str,
) -> str:
    """Many tiles as one small picture; drawn in some 30 ms, where a figure of 144 heads takes seconds.

    Args:
        tiles: 8 bits a weight, 255 for none, as :func:`fpt_viz.widgets._patterns.quantised` makes them.
        captions: Of each tile.
        scale: Its colours, by name.
        alt: What it shows, in words.
        widget_id: See :func:`picture`.
    """
    n_layers, n_heads, n_rows, n_columns = tiles.shape
    times = max(1, -(-LEAST_SIDE // max(n_rows, n_columns)))
    height, width = n_rows * times, n_columns * times
    canvas = np.full((n_layers * (height + CAPTION + GAP), n_heads * (width + GAP)), WHITE, dtype=np.uint8)
    places = {}
    for layer in range(n_layers):
        for head in range(n_heads):
            top, left = layer * (height + CAPTION + GAP) + CAPTION, head * (width + GAP)
            tile = np.where(tiles[layer, head] == 255, GREY, np.minimum(tiles[layer, head], GREY - 1))
            canvas[top : top + height, left : left + width] = tile.repeat(times, 0).repeat(times, 1)
            places[layer, head] = left, top - CAPTION
    image = Image.fromarray(canvas).convert("P")
    colours = [colour_at(scale, i / (GREY - 1)) for i in range(GREY)] + [rgb(UNREACHABLE), rgb("#ffffff")]
    image.putpalette([round(255 * channel) for colour in colours for channel in colour])
    draw = ImageDraw.Draw(image)
    for (layer, head), place in places.items():
        draw.text(place, captions[layer][head], fill=GREY - 1)
    written = io.BytesIO()
    image.save(written, format="PNG")
    return _shown(f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}", alt, widget_id)


def _shown(address: str, alt: str, widget_id: str) -> str:
    words = html.escape(alt)
    return (
        f'<div class="fpt-still {widget_id}-still">'
        f'<img alt="{words}" title="{words}" style="max-width:100%" src="{address}"></div>'
    )

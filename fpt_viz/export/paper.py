"""Figures on paper: matplotlib's vector back ends, at the exact width, with real text and the same bytes each time.

Neither pyplot nor the reader's own matplotlib settings take part, and nothing global is left changed.
"""

from __future__ import annotations

from collections.abc import Mapping
import html
import io
import itertools
import json
import re
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Sheet
from matplotlib.text import Text

from fpt_viz.export import _layout
from fpt_viz.export._paper_layout import POINTS_PER_INCH, Drawn, arrange
from fpt_viz.export._paper_opaque import opaque
from fpt_viz.export._paper_panels import colour_bar, fill, page_bar, room
from fpt_viz.export._paper_style import settings
from fpt_viz.export._paper_words import fit_words_on_bars, name_levels, part_levels, words_in_cells
from fpt_viz.export.description import Description
from fpt_viz.export.marks import Colours, Picture
from fpt_viz.export.presets import TIMES, Preset


def render(
    figure: Description, suffix: str, preset: Preset, *, dpi: int = 300, about: Mapping[str, Any] | None = None
) -> bytes:
    """The file for ``figure``: ``suffix`` is pdf, svg, png or eps; the same figure gives the same bytes.

    Args:
        figure: What is drawn.
        suffix: The kind of file.
        preset: The page.
        dpi: Dots an inch of a png.
        about: Where the numbers come from, as JSON in the file's metadata; the figure's source unless given.
    """
    content = io.BytesIO()
    told = as_json(figure.source if about is None else about)
    metadata: dict[str, dict[str, str | None]] = {
        "pdf": {"Title": figure.title, "Subject": figure.alt, "Keywords": told, "CreationDate": None},
        "svg": {"Title": figure.title, "Description": figure.alt, "Keywords": told, "Date": None},
        "png": {"Title": figure.title, "Description": figure.alt, "Source": told, "Software": "fpt_viz"},
        "eps": {"Creator": "fpt_viz"},
    }
    sheet = draw(figure, preset)
    with settings(preset):
        if suffix == "eps":
            opaque(sheet)  # PostScript knows no transparency
        sheet.savefig(content, format=suffix, dpi=dpi, metadata=metadata[suffix])
    if suffix == "svg":
        label = f'<svg role="img" aria-label="{html.escape(figure.alt)}" '
        return content.getvalue().decode().replace("<svg ", label, 1).encode()
    return _undated(content.getvalue(), figure, told) if suffix == "eps" else content.getvalue()


def as_json(about: Mapping[str, Any]) -> str:
    """``about`` as one line of ASCII."""
    return json.dumps(about, sort_keys=True, default=str)


def comments(figure: Description, told: str) -> list[str]:
    """What a file of text says of itself at its head, in lines of at most 200 letters, without comment signs."""
    alt = figure.alt.encode("ascii", "replace").decode()
    words = {"Title": figure.title.encode("ascii", "replace").decode(), "Alt": alt, "About": told}
    return [f"{name}: {text[i : i + 180]}" for name, text in words.items() for i in range(0, len(text), 180)]


def _undated(eps: bytes, figure: Description, told: str) -> bytes:
    """An EPS file without the hour of its making, and with what it is about."""
    text = eps.decode("latin-1")
    lines = "\n".join(f"%FptViz{line}" for line in comments(figure, told))
    return re.sub(r"%%CreationDate: [^\n]*", lambda _: lines, text, count=1).encode("latin-1")


def draw(figure: Description, preset: Preset) -> Sheet:
    """``figure`` as a matplotlib figure of the preset's width, as high as its content needs."""
    with settings(preset):
        sheet = Sheet(figsize=(preset.width_inches, preset.width_inches), dpi=POINTS_PER_INCH)
        FigureCanvasAgg(sheet)
        width = preset.width_inches * POINTS_PER_INCH
        columns = max(1, min(figure.columns, int(width / (_least_width(figure) * preset.font_size))))
        rows = _layout.rows_of(figure.panels, columns)
        drawn: list[list[Drawn]] = []
        legend: dict[str, Any] = {}
        barred: list[Colours] = []
        shared = _shared(figure) if columns > 1 else None
        bar = page_bar(sheet, shared) if shared else None
        for row in rows:
            drawn.append([])
            for panel, following in zip(row, [*row[1:], None], strict=True):
                axes = sheet.add_axes((0.2, 0.2, 0.6, 0.6))
                fill(panel, axes, width / columns, preset, legend)
                colours = _layout.colours_of(panel)
                beside = following is not None and _layout.colours_of(following) == colours
                if colours and not (beside or bar or colours in barred):
                    barred.append(colours)
                    inner = room(panel, width / columns, preset.font_size)
                    colour_bar(panel, axes, colours, inner, inner * _layout.ratio(panel) / (0.8 * preset.font_size))
                drawn[-1].append(Drawn(panel, axes, name_levels(panel, axes, 0.85 * preset.font_size)))
        for text in sheet.findobj(Text):
            if preset.font_family == TIMES:  # its own lines stand far apart
                text.set_linespacing(0.95)
        arrange(sheet, figure, preset, rows=drawn, legend=legend, bar=bar)
        for each in itertools.chain(*drawn):
            words_in_cells(each.panel, each.axes, preset)
            fit_words_on_bars(each.axes)
            part_levels(each.levels)
    return sheet


def _shared(figure: Description) -> Colours | None:
    """The one meaning that colours have in all panels that have any, where it is one and there are several panels."""
    found = [colours for panel in figure.panels if (colours := _layout.colours_of(panel)) is not None]
    return found[0] if len(found) > 1 and all(colours == found[0] for colours in found) else None


def _least_width(figure: Description) -> int:
    """Of a panel, in font sizes: pictures without labels stand closer together than charts."""
    return 8 if all(any(isinstance(mark, Picture) for mark in panel.marks) for panel in figure.panels) else 22

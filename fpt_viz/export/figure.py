"""A figure, described once: the screen and paper are drawn from the same arrays."""

from __future__ import annotations

import base64
from dataclasses import dataclass
import html
import json
from pathlib import Path
from typing import Any

from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.export.description import Description
from fpt_viz.export.presets import preset as preset_named
from fpt_viz.records import store

SUFFIXES = ("html", "pdf", "png", "svg")


@dataclass(frozen=True, kw_only=True, eq=False)
class Figure(Description):
    """A description that can be saved, shown and handed to plotly or matplotlib."""

    def save(self, path: str | Path, *, preset: str = "paper", width_mm: float | None = None, dpi: int = 300) -> Path:
        """Write the figure to ``path`` as its suffix says: pdf, svg, png, or one offline html file.

        Needs no browser. The same figure gives the same bytes each time, and the file is whole or not there. PDF, SVG
        and PNG are exactly as wide as asked, text is text with its fonts embedded (PDF), and the file carries the alt
        text and ``source``.

        Args:
            path: Where to; folders are made as needed.
            preset: Width and letters, by name (see :data:`fpt_viz.export.PRESETS`). An html file takes the width of
                its window instead.
            width_mm: Another width than the preset's, in millimetres.
            dpi: Dots an inch of a png.

        Raises:
            UnknownNameError: There is no such preset or file type.
            RecordError: The file cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower().removeprefix(".")
        if suffix not in SUFFIXES:
            raise UnknownNameError("file type", suffix, SUFFIXES)
        chosen = preset_named(preset).at_width(width_mm)
        if not 10 <= dpi <= 2_400:
            raise ConfigError(f"dpi must lie between 10 and 2400, got {dpi}")
        if suffix == "html":
            content = self.to_html().encode()
        else:
            from fpt_viz.export import paper

            content = paper.render(self, suffix, chosen, dpi=dpi)
        store.write_bytes(path, content)
        return path

    def to_plotly(self, *, columns: int | None = None, headed: bool = True) -> Any:
        """The figure as a ``plotly.graph_objects.Figure``, its natural size set.

        Args:
            columns: Panels side by side, where it should be other than the figure's own.
            headed: Whether title and note stand in the figure.
        """
        from fpt_viz.export import screen

        return screen.draw(self, columns=columns or self.columns, headed=headed)

    def to_matplotlib(self, *, preset: str = "paper", width_mm: float | None = None) -> Any:
        """The figure as a ``matplotlib.figure.Figure`` at the width of ``preset``; nothing global changes."""
        from fpt_viz.export import paper

        return paper.draw(self, preset_named(preset).at_width(width_mm))

    def html_fragment(self, div_id: str, *, columns: int | None = None) -> str:
        """The interactive figure for a page that brings plotly.js itself.

        Args:
            div_id: Its id; must be unique on the page.
            columns: Panels side by side; 1 suits a page that must also read on a phone.
        """
        from fpt_viz.export import screen

        return screen.fragment(self, div_id, columns=columns or self.columns)

    def to_html(self) -> str:
        """One page with the interactive figure that opens offline; 5 MB, for it brings plotly.js."""
        from fpt_viz.export import screen

        return screen.page(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """What a notebook shows: plotly where there is such a viewer, else a still picture, else the alt text."""
        from fpt_viz.export import paper

        still = base64.b64encode(paper.render(self, "svg", preset_named("paper-wide"))).decode()
        alt = html.escape(self.alt)
        picture = f'<img alt="{alt}" style="max-width:100%" src="data:image/svg+xml;base64,{still}">'
        return {
            "application/vnd.plotly.v1+json": json.loads(self.to_plotly().to_json()),
            "text/html": picture,
            "text/plain": self.alt,
        }

    def __repr__(self) -> str:
        n = len(self.panels)
        return f"Figure({self.title!r}, {n} panel{'s' if n > 1 else ''}, {sum(1 for _ in self.marks())} marks)"

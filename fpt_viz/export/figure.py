"""A figure, described once: the screen and paper are drawn from the same arrays."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
import html
import json
from pathlib import Path
from typing import Any

from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.export import numbers, provenance
from fpt_viz.export.description import Description
from fpt_viz.export.presets import PRESETS, Preset, preset as preset_named
from fpt_viz.export.recipe import Recipe
from fpt_viz.records import store

SUFFIXES = ("csv", "eps", "html", "pdf", "pgf", "png", "svg")


@dataclass(frozen=True, kw_only=True, eq=False)
class Figure(Description):
    """A description that can be saved, shown and handed to plotly or matplotlib."""

    def save(
        self,
        path: str | Path,
        *,
        preset: str | Preset = "paper",
        width_mm: float | None = None,
        font_size: float | None = None,
        font_family: str | None = None,
        headed: bool | None = None,
        max_height_mm: float | None = None,
        dpi: int = 300,
        format: str | None = None,  # noqa: A002 (what matplotlib and the command line call it)
        recipe: Recipe | None = None,
        sidecar: bool = True,
    ) -> Path:
        """Write the figure to ``path`` as its suffix says, and ``PATH.json`` beside it, which says where it comes from.

        Needs no browser. The same figure gives the same bytes each time, and the file is whole or not there. All but
        html are exactly as wide as asked; text is text with its fonts embedded (pdf, eps); the file carries the alt
        text and where it comes from.

        Args:
            path: Where to; folders are made as needed.
            preset: Width and letters, by name (see :data:`fpt_viz.export.PRESETS`). An html file takes the width of
                its window instead.
            width_mm: Another width than the preset's, in millimetres.
            font_size: Another size of letters than the preset's, in points.
            font_family: Another font than the preset's; this machine must have it.
            headed: Whether title and note stand in the figure.
            max_height_mm: How high a picture of cells may become, in millimetres.
            dpi: Dots an inch of a png.
            format: The kind of file, where the suffix should not say it: html, pdf, svg, png, eps, pgf (needs a TeX;
                pictures of cells are written beside it) or csv (the drawn numbers).
            recipe: How the command line makes it, so that the file says the command. A figure of records that lie in
                files knows that by itself; of any other the file says by which call it was made.
            sidecar: Whether ``PATH.json`` is written.

        Raises:
            UnknownNameError: There is no such preset or file type.
            ConfigError: A size that nothing can be drawn in, a font that is not there, or pgf without a TeX.
            RecordError: The file cannot be written.
        """
        path = Path(path)
        suffix = (format or path.suffix.removeprefix(".")).lower()
        if suffix not in SUFFIXES:
            raise UnknownNameError("file type", suffix, SUFFIXES)
        changes = {
            "width_mm": width_mm,
            "font_size": font_size,
            "font_family": font_family,
            "headed": headed,
            "max_height_mm": max_height_mm,
        }
        chosen = preset_named(preset).changed(**changes)  # type: ignore[arg-type]
        if not 10 <= dpi <= 2_400:
            raise ConfigError(f"dpi must lie between 10 and 2400, got {dpi}")
        name = next((each for each, known in PRESETS.items() if known == preset), preset)
        page = {"preset": name, **changes, "dpi": dpi, "format": format}
        options = None if isinstance(name, Preset) else _words(page)
        told = provenance.about(self, path, recipe=recipe, options=options)
        files = self._files(path, suffix, chosen, dpi=dpi, about=told)
        for name, content in files.items():
            store.write_bytes(path.with_name(name), content)
        if sidecar:
            provenance.write_sidecar(path, self, told, files[path.name])
        return path

    def _files(
        self, path: Path, suffix: str, preset: Preset, *, dpi: int, about: Mapping[str, Any]
    ) -> dict[str, bytes]:
        """The file at ``path``, and those that belong to it, by name."""
        if suffix == "csv":
            return {path.name: self.to_csv().encode()}
        if suffix == "html":
            return {path.name: self.to_html(about=about).encode()}
        if suffix == "pgf":
            from fpt_viz.export import _paper_pgf

            found = _paper_pgf.render(self, preset, path.stem, dpi=dpi, about=about)
            own = found.pop(f"{path.stem}.pgf")
            return {**found, path.name: own}
        from fpt_viz.export import paper

        return {path.name: paper.render(self, suffix, preset, dpi=dpi, about=about)}

    def to_csv(self) -> str:
        """The drawn numbers, one row a value, exact; the columns are those of ``fpt_viz.export.numbers``."""
        return numbers.to_csv(self)

    def to_plotly(self, *, columns: int | None = None, headed: bool = True) -> Any:
        """The figure as a ``plotly.graph_objects.Figure``, its natural size set.

        Args:
            columns: Panels side by side, where it should be other than the figure's own.
            headed: Whether title and note stand in the figure.
        """
        from fpt_viz.export import screen

        return screen.draw(self, columns=columns or self.columns, headed=headed)

    def to_matplotlib(self, *, preset: str | Preset = "paper", width_mm: float | None = None) -> Any:
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

    def to_html(self, *, about: Mapping[str, Any] | None = None) -> str:
        """One page with the interactive figure that opens offline; 5 MB, for it brings plotly.js.

        Args:
            about: What its metadata says of where it comes from; the figure's source unless given.
        """
        from fpt_viz.export import screen

        return screen.page(self, about=about)

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


_USUAL = {"preset": "paper", "dpi": 300}


def _words(page: Mapping[str, Any]) -> list[str]:
    """The options of the command line that ask for ``page``; what is usual is not said."""
    words: list[str] = []
    for name, value in page.items():
        if value is None or value == _USUAL.get(name):
            continue
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(option if value else f"--no-{name.replace('_', '-')}")
        else:
            words += [option, str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)]
    return words

"""Figures as PGF code, which a LaTeX document takes in and sets in its own letters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
import shutil
import tempfile
from typing import Any

import matplotlib as mpl
from matplotlib.text import Text

from fpt_viz.errors import ConfigError
from fpt_viz.export import paper
from fpt_viz.export._latex import escaped
from fpt_viz.export._paper_style import settings
from fpt_viz.export.description import Description
from fpt_viz.export.presets import Preset

TEX = ("pdflatex", "xelatex", "lualatex")
"""Looked for in this order; matplotlib asks it how wide words are."""


def render(
    figure: Description, preset: Preset, stem: str, *, dpi: int = 300, about: Mapping[str, Any] | None = None
) -> dict[str, bytes]:
    """The PGF file for ``figure`` and the pictures that it takes in, by name.

    Args:
        figure: What is drawn.
        preset: The page; its letters are the document's, in the preset's size.
        stem: The file's name without its suffix; pictures of cells stand beside it as ``STEM-img0.png``.
        dpi: Of such pictures, where they are resampled.
        about: Where the numbers come from, as comments at the head.

    Raises:
        ConfigError: There is no TeX on this machine, or it cannot print a letter of the figure.
    """
    tex = next((name for name in TEX if shutil.which(name)), None)
    if tex is None:
        raise ConfigError(
            f"a pgf file needs a TeX to measure its words, and there is neither {', '.join(TEX[:-1])} nor {TEX[-1]}: "
            "install one (Debian: apt-get install texlive-latex-base texlive-pictures), or save a pdf"
        )
    sheet = paper.draw(figure, preset)
    with settings(preset), mpl.rc_context({"pgf.texsystem": tex}), tempfile.TemporaryDirectory() as folder:
        for text in sheet.findobj(Text):
            text.set_text(escaped(text.get_text()))
        _freeze_ticks(sheet)
        path = Path(folder) / f"{stem}.pgf"
        try:
            sheet.savefig(path, format="pgf", dpi=dpi)
        except (RuntimeError, ValueError) as error:
            line = str(error).strip().splitlines()[0]
            raise ConfigError(
                f"{tex} could not set the words of {figure.title!r}: {line}; save a pdf instead"
            ) from error
        told = paper.as_json(figure.source if about is None else about)
        head = "".join(f"%% {line}\n" for line in paper.comments(figure, told))
        found = {each.name: each.read_bytes() for each in sorted(Path(folder).iterdir())}
    found[f"{stem}.pgf"] = head.encode() + found[f"{stem}.pgf"]
    return found


def _freeze_ticks(sheet: Any) -> None:
    """Let numbers at ticks be the words that they are, escaped; a formatter would write them anew."""
    for axes in [*sheet.axes, *(child for parent in sheet.axes for child in parent.child_axes)]:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            places = [at for at in axis.get_ticklocs() if low - 1e-9 <= at <= high + 1e-9]
            words = [escaped(word) for word in axis.get_major_formatter().format_ticks(places)]
            axis.set_ticks(places, words)

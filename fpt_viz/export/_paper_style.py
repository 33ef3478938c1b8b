"""The look of paper: letters, lines and file formats."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl

from fpt_viz.export import colours as palette
from fpt_viz.export.presets import Preset

_NOT_STYLE = ("backend", "webagg", "interactive", "toolbar", "timezone", "date.", "docstring", "figure.hooks", "tk.")
"""Settings of the session, which a figure leaves alone."""


def settings(preset: Preset) -> AbstractContextManager[None]:
    """Give matplotlib's own defaults, whatever the session changed, and ours on top; undone at the end of the block."""
    defaults = {name: value for name, value in mpl.rcParamsDefault.items() if not name.startswith(_NOT_STYLE)}
    size = preset.font_size
    thick = max(1.0, size / 8.0)  # lines keep their look on slides and posters
    ours: dict[str, Any] = {
        "font.family": [preset.font_family, "DejaVu Sans"],  # the second has letters that the first may lack
        "font.size": size,
        "axes.titlesize": size,
        "axes.labelsize": size,
        "xtick.labelsize": 0.9 * size,
        "ytick.labelsize": 0.9 * size,
        "legend.fontsize": 0.9 * size,
        "text.hinting": "no_hinting",  # letters are as wide as on paper
        "text.parse_math": False,  # a $ in a label is a $
        "text.color": palette.INK,
        "axes.labelcolor": palette.INK,
        "xtick.labelcolor": palette.INK,
        "ytick.labelcolor": palette.INK,
        "axes.edgecolor": palette.MUTED,
        "xtick.color": palette.MUTED,
        "ytick.color": palette.MUTED,
        "axes.linewidth": 0.6 * thick,
        "xtick.major.width": 0.6 * thick,
        "ytick.major.width": 0.6 * thick,
        "xtick.major.size": 2.5 * thick,
        "ytick.major.size": 2.5 * thick,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": palette.GRID,
        "grid.linewidth": 0.5 * thick,
        "lines.linewidth": 1.3 * thick,
        "lines.markersize": 4.0 * thick,
        "hatch.linewidth": 0.4 * thick,
        "hatch.color": "#9aa5b1",
        "legend.frameon": False,
        "legend.borderpad": 0,
        "legend.borderaxespad": 0,
        "legend.handlelength": 2.6,
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
        "pgf.rcfonts": False,  # the letters are those of the document that takes the figure in
        "svg.fonttype": "none",
        "svg.hashsalt": "fpt_viz",
    }
    settings: dict[Any, Any] = {**defaults, **ours}
    return mpl.rc_context(settings)

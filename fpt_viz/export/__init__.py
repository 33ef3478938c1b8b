"""Figures as plain data, drawn for the screen (plotly) and for paper (matplotlib) from the same arrays.

A :class:`Figure` holds panels, a :class:`Panel` holds marks. Drawing libraries are imported when a figure is drawn.
"""

from fpt_viz.export.colours import SCALES
from fpt_viz.export.description import Panel
from fpt_viz.export.figure import SUFFIXES, Figure
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
)
from fpt_viz.export.panels import compose
from fpt_viz.export.presets import PRESETS, Preset
from fpt_viz.export.recipe import Recipe
from fpt_viz.export.table import PaperTable

__all__ = [
    "PRESETS",
    "SCALES",
    "SUFFIXES",
    "Bars",
    "Colours",
    "Figure",
    "HLine",
    "Heatmap",
    "Line",
    "Links",
    "Mark",
    "Panel",
    "PaperTable",
    "Picture",
    "Points",
    "Preset",
    "Recipe",
    "Tiles",
    "VLine",
    "Words",
    "compose",
]

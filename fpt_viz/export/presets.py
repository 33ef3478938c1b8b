"""Where a paper figure will stand: how wide it is, and in which letters."""

from __future__ import annotations

from dataclasses import dataclass, replace
import math

from fpt_viz.errors import ConfigError, UnknownNameError

MM_PER_INCH = 25.4


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The page that a figure is drawn for."""

    width_inches: float
    """Of the page, which is exactly that wide."""
    font_size: float = 7.5
    """Of axis titles, in points; ticks and notes are a little smaller."""
    font_family: str = "DejaVu Sans"
    """One that matplotlib brings, so that the file is the same on every machine."""
    headed: bool = True
    """Whether title and note stand in the figure; journals want them in the caption."""
    max_height_inches: float = math.inf
    """A picture of cells that would be taller is made smaller; charts keep their height."""

    def at_width(self, width_mm: float | None) -> Preset:
        """The preset at another width, or itself for None."""
        if width_mm is None:
            return self
        if not 20 <= width_mm <= 2_000:
            raise ConfigError(f"width_mm must lie between 20 and 2000 millimetres, got {width_mm}")
        return replace(self, width_inches=width_mm / MM_PER_INCH)


PRESETS = {
    "paper": Preset(width_inches=3.25),
    "paper-wide": Preset(width_inches=6.75),
    "icml": Preset(width_inches=3.25, font_size=8.0, font_family="STIXGeneral", headed=False),
    "slides": Preset(width_inches=10.0, font_size=15.0, max_height_inches=5.6),
}


def preset(name: str) -> Preset:
    """The preset called ``name``."""
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    return PRESETS[name]

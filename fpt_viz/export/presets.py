"""Where a figure will stand: how wide it is, and in which letters.

Widths are those of the venues' own templates; :attr:`Preset.source` names what was read and how. The letters are those
that matplotlib brings, so that a file is the same on every machine: STIXGeneral where the template sets Times, DejaVu
Sans where it asks for Arial or Helvetica. A machine that has the template's own font takes it with ``font_family=``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
import math

from fpt_viz.errors import ConfigError, UnknownNameError

MM_PER_INCH = 25.4
TIMES = "STIXGeneral"
"""Matplotlib's own Times; its widths are those of Times New Roman."""
SANS = "DejaVu Sans"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The page that a figure is drawn for."""

    width_inches: float
    """Of the page, which is exactly that wide."""
    font_size: float = 7.5
    """Of axis titles, in points; ticks and notes are a little smaller."""
    font_family: str = SANS
    """One that matplotlib brings, so that the file is the same on every machine."""
    headed: bool = True
    """Whether title and note stand in the figure; journals want them in the caption. A caveat always stands in it."""
    max_height_inches: float = math.inf
    """A picture of cells that would be taller is made smaller; charts keep their height."""
    least_font_size: float = 3.8
    """In points; words in cells that would be smaller are left out."""
    source: str = ""
    """Where width and letters were read, and how well that was checked."""

    def changed(
        self,
        *,
        width_mm: float | None = None,
        font_size: float | None = None,
        font_family: str | None = None,
        headed: bool | None = None,
        max_height_mm: float | None = None,
    ) -> Preset:
        """The preset with some of its fields replaced; None leaves a field as it is.

        Raises:
            ConfigError: A size that nothing can be drawn in, or a font that this machine lacks.
        """
        for name, value, low, high in (
            ("width_mm", width_mm, 20, 2_000),
            ("font_size", font_size, 3, 200),
            ("max_height_mm", max_height_mm, 20, 5_000),
        ):
            if value is not None and not low <= value <= high:
                unit = "points" if name == "font_size" else "millimetres"
                raise ConfigError(f"{name} must lie between {low} and {high} {unit}, got {value}")
        if font_family is not None:
            _check_font(font_family)
        fields = {
            "width_inches": None if width_mm is None else width_mm / MM_PER_INCH,
            "font_size": font_size,
            "font_family": font_family,
            "headed": headed,
            "max_height_inches": None if max_height_mm is None else max_height_mm / MM_PER_INCH,
        }
        return replace(self, **{name: value for name, value in fields.items() if value is not None})  # type: ignore[arg-type]

    def at_width(self, width_mm: float | None) -> Preset:
        """The preset at another width, or itself for None."""
        return self.changed(width_mm=width_mm)


def _mm(width: float, **fields: object) -> Preset:
    return Preset(width_inches=width / MM_PER_INCH, **fields)  # type: ignore[arg-type]


_NEURIPS = (
    "neurips_2025.sty of 2025/04/02, read in a public copy: textwidth=5.5in, ptm (Times), normalsize 10 pt, small and "
    "footnotesize 9 pt; neurips_2026.sty is quoted with the same width"
)
_ICML = (
    "icml2025.sty (2023/11/23 v2.0), read in a public copy: textwidth 6.75in, columnsep 0.25in, so two columns of "
    "3.25 in; Times"
)
_ICLR = "iclr2026_conference.sty (ICLR/Master-Template): textwidth 5.5 true in, Times, normalsize 10 pt, small 9 pt"
_ACL = "ACL formatting guidelines and acl.sty (acl-org/acl-style-files): column 7.7 cm of 16 cm, Times, footnotes 9 pt"
_NATURE = (
    "research-figure-guide.nature.com, building and exporting figure panels: 89 and 183 mm wide, at most 170 mm high, "
    "Arial or Helvetica, 5 to 7 pt, fonts embedded as TrueType"
)
_IEEE = (
    "ieeeauthorcenter.ieee.org, size requirements for graphics: 3.5 in (88.9 mm) and 7.16 in (182 mm); file "
    "formatting: type of about 9 to 10 pt; Times New Roman, Helvetica or Arial"
)
_OWN = "no venue: our own choice"

PRESETS = {
    "paper": Preset(width_inches=3.25, source=_OWN),
    "paper-wide": Preset(width_inches=6.75, source=_OWN),
    "neurips": Preset(width_inches=5.5, font_size=9.0, font_family=TIMES, headed=False, source=_NEURIPS),
    "icml": Preset(width_inches=3.25, font_size=8.0, font_family=TIMES, headed=False, source=_ICML),
    "icml-wide": Preset(width_inches=6.75, font_size=8.0, font_family=TIMES, headed=False, source=_ICML),
    "iclr": Preset(width_inches=5.5, font_size=9.0, font_family=TIMES, headed=False, source=_ICLR),
    "acl": _mm(77.0, font_size=9.0, font_family=TIMES, headed=False, source=_ACL),
    "acl-wide": _mm(160.0, font_size=9.0, font_family=TIMES, headed=False, source=_ACL),
    "nature-single": _mm(
        89.0, font_size=6.5, headed=False, max_height_inches=170 / MM_PER_INCH, least_font_size=5.0, source=_NATURE
    ),
    "nature-double": _mm(
        183.0, font_size=6.5, headed=False, max_height_inches=170 / MM_PER_INCH, least_font_size=5.0, source=_NATURE
    ),
    "ieee-single": Preset(width_inches=3.5, font_size=10.0, font_family=TIMES, headed=False, source=_IEEE),
    "ieee-double": Preset(width_inches=7.16, font_size=10.0, font_family=TIMES, headed=False, source=_IEEE),
    "slides": Preset(width_inches=10.0, font_size=15.0, max_height_inches=5.6, source=_OWN + ": a 16:9 slide"),
    "poster": _mm(
        260.0, font_size=24.0, max_height_inches=600 / MM_PER_INCH, source=_OWN + ": one of three columns of A0 upright"
    ),
}


def preset(name: str | Preset) -> Preset:
    """The preset called ``name``, or one that was made by hand."""
    if isinstance(name, Preset):
        return name
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    return PRESETS[name]


def _check_font(family: str) -> None:
    from matplotlib import font_manager

    known = set(font_manager.get_font_names())
    if family not in known:
        raise ConfigError(
            f"there is no font {family!r} on this machine, and another in its place would be wider or narrower: "
            f"install it, or take one that matplotlib brings, such as {SANS}, DejaVu Serif or {TIMES}"
        )

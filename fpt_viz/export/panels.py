"""Several figures as the panels of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from string import ascii_lowercase
from typing import Any

from fpt_viz.errors import ConfigError
from fpt_viz.export.description import Panel
from fpt_viz.export.figure import Figure
from fpt_viz.export.marks import Colours, Heatmap, Links, Mark, Picture, Tiles
from fpt_viz.export.recipe import Made, made, note

COLOURED = (Heatmap, Tiles, Picture, Links)
MOST_PANELS = len(ascii_lowercase)


def compose(
    figures: Sequence[Figure], *, columns: int = 2, letters: bool = True, same_scale: bool = False, title: str = ""
) -> Figure:
    """One figure whose panels are those of ``figures``, in rows of ``columns``.

    Panels of one scale (range, label and colours) share a colour bar.

    Args:
        figures: In the order of reading.
        columns: Panels side by side.
        letters: Whether each panel is named a, b, c ...; alt text and note say what stands in which.
        same_scale: Whether scales of the same label and colours are widened to one range, so that panels compare by
            eye.
        title: Of the whole; the figures' own titles in a row unless given.

    Raises:
        ConfigError: No figure, more than 26 panels, or no columns.
    """
    if not figures or columns < 1:
        raise ConfigError(f"wanted figures and at least 1 column, got {len(figures)} figures and {columns} columns")
    n_panels = sum(len(figure.panels) for figure in figures)
    if n_panels > MOST_PANELS:
        raise ConfigError(f"{n_panels} panels are too many for one figure: letters end at {MOST_PANELS}")
    ranges = _ranges(figures) if same_scale else {}
    names = iter(ascii_lowercase)
    panels: list[Panel] = []
    said: list[tuple[str, Figure]] = []
    for figure in figures:
        own = [next(names) for _ in figure.panels]
        said.append((own[0] if len(own) == 1 else f"{own[0]}-{own[-1]}", figure))
        for panel, letter in zip(figure.panels, own, strict=True):
            marks = tuple(_widened(mark, ranges) for mark in panel.marks)
            panels.append(replace(panel, marks=marks, letter=letter if letters else ""))
    composed = Figure(
        title=title or "; ".join(dict.fromkeys(figure.title for figure in figures)),
        alt=" ".join(f"{letter}: {figure.alt}" for letter, figure in said),
        panels=tuple(panels),
        columns=columns,
        note=" ".join(f"{letter}: {figure.note}" for letter, figure in said if figure.note),
        finding=" ".join(f"{letter}: {figure.finding}" for letter, figure in said if figure.finding),
        source=_source(figures),
    )
    note(composed, _made(figures))
    return composed


def _made(figures: Sequence[Figure]) -> Made:
    """How a figure of ``figures`` was made; the command line makes single ones."""
    parts = [made(figure) for figure in figures]
    own = [
        path
        for part in parts
        for path in ((*part.recipe.inputs, *part.recipe.files.values()) if part.recipe else part.inputs)
    ]
    return Made(
        call=f"compose([{', '.join(part.call or '...' for part in parts)}])",
        why_not="several figures in one are put together in Python; each of them alone has a command where it can",
        inputs=tuple(dict.fromkeys(own)),
        stamp=tuple(each for part in parts for each in part.stamp),
    )


def _ranges(figures: Sequence[Figure]) -> dict[tuple[str, str], tuple[float, float]]:
    """The range that holds all scales of one label and colours."""
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for mark in (mark for figure in figures for mark in figure.marks()):
        if isinstance(mark, COLOURED):
            own = mark.colours
            low, high = found.get((own.label, own.scale), (own.vmin, own.vmax))
            found[own.label, own.scale] = (min(low, own.vmin), max(high, own.vmax))
    return found


def _widened(mark: Mark, ranges: dict[tuple[str, str], tuple[float, float]]) -> Mark:
    if not isinstance(mark, COLOURED) or (mark.colours.label, mark.colours.scale) not in ranges:
        return mark
    low, high = ranges[mark.colours.label, mark.colours.scale]
    wide = Colours(vmin=low, vmax=high, label=mark.colours.label, scale=mark.colours.scale)
    return replace(mark, colours=wide)


def _source(figures: Sequence[Figure]) -> dict[str, Any]:
    """The sources of ``figures``, each once."""
    sources: list[dict[str, Any]] = []
    for figure in figures:
        for each in figure.source.get("runs", [figure.source]):
            if each and each not in sources:
                sources.append(dict(each))
    return sources[0] if len(sources) == 1 else {"runs": sources} if sources else {}

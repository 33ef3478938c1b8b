"""What a figure shows, as plain data that knows nothing of how it is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fpt_viz.errors import ConfigError
from fpt_viz.export.marks import Mark

Ticks = tuple[tuple[float, ...], tuple[str, ...]]
"""Where ticks stand, and what each says."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """One pair of axes and what is drawn in it, the first mark at the back."""

    marks: tuple[Mark, ...]
    title: str = ""
    x_title: str = ""
    y_title: str = ""
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    """Low, high; or high, low for an axis that runs down."""
    x_ticks: Ticks | None = None
    """None: numbers, where the renderer sees fit (a heatmap brings its own labels)."""
    y_ticks: Ticks | None = None
    shape: float = 0.6
    """Height as a share of the width; a heatmap brings its own."""
    n_lines: int | None = None
    """Height in lines of text instead, for charts with one line an entry."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Description:
    """What is drawn: panels, words, and where the numbers come from. Renderers draw it; it knows none of them."""

    title: str
    alt: str
    """What the figure shows, with its numbers, for whoever cannot see it."""
    panels: tuple[Panel, ...]
    columns: int = 1
    """Panels side by side, where the width allows."""
    note: str = ""
    """How to read the marks; a line or two below the figure."""
    source: dict[str, Any] = field(default_factory=dict)
    """Where the numbers come from; kept in every exported file."""

    def __post_init__(self) -> None:
        if not self.alt.strip() or not self.title.strip():
            raise ConfigError("a figure needs a title and an alt text that says what it shows; one of them is empty")
        if not self.panels:
            raise ConfigError(f"the figure {self.title!r} has no panel")

    def marks(self) -> Iterator[Mark]:
        """Every mark of every panel."""
        for panel in self.panels:
            yield from panel.marks

    @property
    def data(self) -> dict[str, list[dict[str, Any]]]:
        """The drawn numbers: for each panel, by its title (or its place), the data of each mark."""
        names = [panel.title or f"panel {i}" for i, panel in enumerate(self.panels)]
        return {name: [mark.data() for mark in panel.marks] for name, panel in zip(names, self.panels, strict=True)}

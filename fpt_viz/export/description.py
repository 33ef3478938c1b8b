"""What a figure shows, as plain data that knows nothing of how it is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fpt_viz.errors import ConfigError
from fpt_viz.export._latex import escaped
from fpt_viz.export.marks import Heatmap, Mark, Picture

DASHED = "A dash marks values below 0."
"""Closes the note of a figure that holds such values: their colour alone does not say it in grey."""
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
    bare: bool = False
    """Without frame, grid and ticks, for drawings whose axes measure nothing; names given as ticks stay."""
    letter: str = ""
    """Names the panel in a figure of several, bold at its upper left."""


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
    finding: str = ""
    """What the numbers say, in a sentence or two that name them; the heart of the caption."""
    source: dict[str, Any] = field(default_factory=dict)
    """Where the numbers come from; kept in every exported file. What its ``note`` says of the task is said wherever the
    figure is shown (:attr:`caveat`)."""

    def __post_init__(self) -> None:
        if not self.alt.strip() or not self.title.strip():
            raise ConfigError("a figure needs a title and an alt text that says what it shows; one of them is empty")
        if not self.panels:
            raise ConfigError(f"the figure {self.title!r} has no panel")
        if self._signed() and DASHED not in self.note:
            object.__setattr__(self, "note", f"{self.note} {DASHED}".strip())
        for name in ("note", "alt"):
            said = getattr(self, name)
            if self.caveat not in said:
                object.__setattr__(self, name, f"{said} {self.caveat}".strip())

    @property
    def caveat(self) -> str:
        """What a reader must know of the tasks shown, as their sources note it; empty for most.

        It closes the note and the alt text, and stands on paper even where title and note are left to the caption.
        """
        sources = self.source.get("runs", [self.source])
        notes = {f"{each.get('task', 'the task')}: {each['note']}." for each in sources if each.get("note")}
        return " ".join(sorted(notes))

    def _signed(self) -> bool:
        """Whether a dash marks what lies below 0 in some panel."""
        return any(mark.below_zero() for mark in self.marks() if isinstance(mark, Heatmap | Picture))

    def caption(self, *, latex: bool = False) -> str:
        """A caption drafted from the data: the title, what the numbers say, and how to read the marks.

        Args:
            latex: Escaped for LaTeX, the title in bold; the words alone, without their command.
        """
        rest = " ".join(part for part in (self.finding, self.note) if part)
        title = self.title if self.title.endswith((".", "?", "!")) else f"{self.title}."
        if not latex:
            return f"{title} {rest}".strip()
        return f"\\textbf{{{escaped(title)}}} {escaped(rest)}".strip()

    def marks(self) -> Iterator[Mark]:
        """Every mark of every panel."""
        for panel in self.panels:
            yield from panel.marks

    @property
    def data(self) -> dict[str, list[dict[str, Any]]]:
        """The drawn numbers: for each panel, by its title (or its place), the data of each mark."""
        names = [panel.title or f"panel {i}" for i, panel in enumerate(self.panels)]
        return {name: [mark.data() for mark in panel.marks] for name, panel in zip(names, self.panels, strict=True)}

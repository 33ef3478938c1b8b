"""The drawn numbers as a table: one row a value, exact."""

from __future__ import annotations

from collections.abc import Iterator
import csv
from dataclasses import fields
from functools import singledispatch
import hashlib
import io
from typing import Any

import numpy as np

from fpt_viz.export.description import Description
from fpt_viz.export.marks import (
    Bars,
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

COLUMNS = ("panel", "mark", "kind", "label", "tile", "row", "column", "x", "y", "value", "low", "high")
"""``value`` is what is measured; ``x`` and ``y`` are places on the axes, ``low`` and ``high`` its interval. Empty where
a mark has none. ``row``, ``column`` and ``tile`` are names."""


LOOKS = {
    "series", "hollow", "marker", "markers", "faint", "boxed", "dotted", "highlighted", "captioned", "colours", "text",
    "text_x", "values", "cell_names", "side", "label", "across",
}  # fmt: skip
"""Fields of marks that say how they are drawn, or repeat a number in words."""


def to_csv(figure: Description) -> str:
    """Every drawn number of ``figure``, in the order of drawing; floats are written so that they read back exactly."""
    content = io.StringIO()
    table = csv.DictWriter(content, COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows(figure))
    return content.getvalue()


def sha256(figure: Description) -> str:
    """The SHA-256 of the drawn numbers, to about twelve digits, and of their names; says nothing of the drawing.

    The same on every machine and with every version of the drawing libraries.
    """
    digest = hashlib.sha256()
    for i, panel in enumerate(figure.panels):
        digest.update(f"{i}\x1f{panel.letter}\x1f{panel.title}\x1e".encode())
        for mark in panel.marks:
            digest.update(f"{type(mark).__name__}\x1f{_named(mark)}\x1e".encode())
            for each in fields(mark):  # type: ignore[arg-type]
                if each.name not in LOOKS:
                    _add(digest, each.name, getattr(mark, each.name))
    return digest.hexdigest()


def _add(digest: Any, name: str, value: Any) -> None:
    if isinstance(value, np.ndarray):
        digest.update(f"{name}{value.shape}".encode())
        digest.update(_rounded(value))
    elif isinstance(value, float | int):
        digest.update(name.encode() + _rounded(np.array([value])))
    elif isinstance(value, str | tuple):
        digest.update(f"{name}\x1f{value!r}\x1e".encode())


def _rounded(values: np.ndarray) -> bytes:
    """The bytes of ``values`` as doubles of 40 binary digits; one zero and one NaN."""
    double = np.ascontiguousarray(values, dtype="<f8") + 0.0
    double[np.isnan(double)] = np.nan
    bits = double.view("<i8")
    return ((bits + (1 << 11)) & ~np.int64((1 << 12) - 1)).tobytes()


def rows(figure: Description) -> Iterator[dict[str, str]]:
    """One row a drawn value, every entry as text."""
    for i, panel in enumerate(figure.panels):
        name = panel.letter or panel.title or f"panel {i}"
        for j, mark in enumerate(panel.marks):
            first = {"panel": name, "mark": str(j), "kind": type(mark).__name__, "label": _named(mark)}
            for row in values(mark):
                yield first | {column: _word(value) for column, value in row.items()}


def _named(mark: Mark) -> str:
    label = str(getattr(mark, "label", ""))
    colours = getattr(mark, "colours", None)
    return label or (str(colours.label) if colours is not None else "")


def _word(value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    return repr(value) if isinstance(value, float) else str(value)


@singledispatch
def values(mark: Mark) -> Iterator[dict[str, Any]]:
    """The drawn numbers of ``mark``, each with its place."""
    raise NotImplementedError(f"{type(mark).__name__} has no table of its numbers")


@values.register
def _(mark: Heatmap) -> Iterator[dict[str, Any]]:
    for (r, c), value in np.ndenumerate(mark.shown):
        if not np.isnan(value):
            yield {"row": mark.y_labels[r], "column": mark.x_labels[c], "x": c, "y": r, "value": value}


@values.register
def _(mark: Tiles) -> Iterator[dict[str, Any]]:
    shown = mark.z if mark.unreachable is None else np.where(mark.unreachable, np.nan, mark.z)
    for (r, c, q, k), value in np.ndenumerate(shown):
        if not np.isnan(value):
            place = {"tile": mark.captions[r][c], "row": mark.y_labels[q], "column": mark.x_labels[k]}
            yield place | {"x": k, "y": q, "value": value}


@values.register
def _(mark: Picture) -> Iterator[dict[str, Any]]:
    for i, (box, value) in enumerate(zip(mark.boxes, mark.z, strict=True)):
        if not np.isnan(value):
            name = mark.labels[i] if mark.labels else str(i)
            yield {"row": name, "x": box[1], "y": box[0], "value": value}


@values.register
def _(mark: Links) -> Iterator[dict[str, Any]]:
    for i, value in enumerate(mark.z):
        yield {"row": mark.names[i], "x": mark.x1[i], "y": mark.y1[i], "value": value}


@values.register(Line)
@values.register(Points)
def _(mark: Line | Points) -> Iterator[dict[str, Any]]:
    across = isinstance(mark, Points) and mark.across
    bounded = mark.low is not None and mark.high is not None
    for i, (x, y) in enumerate(zip(mark.x, mark.y, strict=True)):
        interval = {"low": mark.low[i], "high": mark.high[i]} if bounded else {}  # type: ignore[index]
        yield {"x": x, "y": y, "value": x if across else y, **interval}


@values.register
def _(mark: Bars) -> Iterator[dict[str, Any]]:
    for i, value in enumerate(mark.values):
        yield {"row": mark.text[i], "x": i, "value": value, "low": mark.low[i], "high": mark.high[i]}


@values.register
def _(mark: HLine) -> Iterator[dict[str, Any]]:
    yield {"y": mark.at, "value": mark.at}


@values.register
def _(mark: VLine) -> Iterator[dict[str, Any]]:
    yield {"x": mark.at, "value": mark.at}


@values.register
def _(mark: Words) -> Iterator[dict[str, Any]]:
    yield from ()

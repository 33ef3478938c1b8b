"""Pictures of cells that a panel can show, what their colours mean, and what every mark is.

Positions along an axis are numbers; the cell in row ``r`` and column ``c`` of a heatmap is centred on ``x=c, y=r``, and
row 0 is at the top.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
import math
from typing import Any

from jaxtyping import Bool, Float, Shaped
import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export.colours import ScaleName, colour_at

Cell = tuple[int, int]
"""Row and column."""
Box = tuple[int, int, int, int]
"""Top, left, height and width, in cells or pixels."""
Array = Shaped[np.ndarray, "..."]

_TILE_SHAPES = (0.35, 1.0)
"""Least and greatest height of a tile as a share of its width; cells are stretched to stay between."""
_HEATMAP_SHAPES = (0.3, 2.0)
"""The same of a heatmap."""
LEAST_SIGNED = 0.04
"""Share of a signed scale's end from which a negative cell is marked as such; nearer to 0 its tint is not seen."""
PIXEL_SHARE = 0.3
"""How much of a picture is seen through the colour of its patches."""


class Mark:
    """Something drawn in a panel."""

    def data(self) -> dict[str, Any]:
        """The drawn numbers and words, by field."""
        drawn = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {"mark": type(self).__name__} | {name: value for name, value in drawn.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Colours:
    """What the colours of a picture mean; one colour bar serves all marks that share it."""

    vmin: float
    vmax: float
    label: str
    """What is coloured, with its unit."""
    scale: ScaleName = "sequential"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.vmin) and math.isfinite(self.vmax) and self.vmin < self.vmax):
            raise ConfigError(f"the colours of {self.label!r} must go up from vmin, got {self.vmin} to {self.vmax}")

    @property
    def signed(self) -> bool:
        """Whether the scale runs through 0; what lies below it is then also marked with a dash."""
        return self.scale == "diverging"

    def share(self, value: float) -> float:
        """How far up the scale ``value`` lies, 0 to 1."""
        return (value - self.vmin) / (self.vmax - self.vmin)


@dataclass(frozen=True, kw_only=True, eq=False)
class Heatmap(Mark):
    """One matrix as cells of colour."""

    z: Float[np.ndarray, "row column"]
    """NaN leaves a cell blank."""
    x_labels: tuple[str, ...]
    y_labels: tuple[str, ...]
    colours: Colours
    text: tuple[tuple[str, ...], ...] | None = None
    """What stands in each cell."""
    boxed: tuple[Cell, ...] = ()
    """Cells drawn with an outline."""
    dotted: tuple[Cell, ...] = ()
    """Cells marked with a dot in their upper right corner."""
    unreachable: Bool[np.ndarray, "row column"] | None = None
    """Cells drawn hatched instead of coloured."""
    cell_names: tuple[str, str] = ("row", "column")
    """What a row and a column are, said before their labels when a cell is pointed at."""
    label: str = ""
    """What sets the heatmap apart in a table of its numbers; drawn nowhere."""

    def __post_init__(self) -> None:
        got = (len(self.y_labels), len(self.x_labels))
        if self.z.shape != got:
            raise ConfigError(f"a heatmap of shape {self.z.shape} wants as many labels, got {got[0]} and {got[1]}")

    @property
    def cell_height(self) -> float:
        """The height of a cell as a share of its width; 1 unless the heatmap would be very flat or very tall."""
        return _cell_height(self.z.shape, _HEATMAP_SHAPES)

    @property
    def shown(self) -> Float[np.ndarray, "row column"]:
        """``z`` with NaN where no colour is drawn."""
        return self.z if self.unreachable is None else np.where(self.unreachable, np.nan, self.z)

    def below_zero(self) -> list[Cell]:
        """The cells of a signed heatmap that are marked with a dash: coloured below 0 by more than one can overlook."""
        if not self.colours.signed:
            return []
        least = LEAST_SIGNED * max(abs(self.colours.vmin), abs(self.colours.vmax))
        return [(int(row), int(column)) for row, column in np.argwhere(np.nan_to_num(self.shown) <= -least)]

    def hatched(self) -> list[tuple[int, int, int]]:
        """The unreachable cells, neighbours in a row together: row, first column and number of columns."""
        if self.unreachable is None:
            return []
        runs: list[tuple[int, int, int]] = []
        for row, column in np.argwhere(self.unreachable).tolist():
            if runs and runs[-1][0] == row and runs[-1][1] + runs[-1][2] == column:
                runs[-1] = (row, runs[-1][1], runs[-1][2] + 1)
            else:
                runs.append((row, column, 1))
        return runs


@dataclass(frozen=True, kw_only=True, eq=False)
class Tiles(Mark):
    """Many small matrices of one shape, laid out in rows and columns on one colour scale."""

    z: Float[np.ndarray, "tile_row tile_column row column"]
    captions: tuple[tuple[str, ...], ...]
    """The name of each tile."""
    values: tuple[tuple[str, ...], ...] | None = None
    """A number that stands after each caption where there is room."""
    row_labels: tuple[str, ...]
    """Of the tiles' rows."""
    column_labels: tuple[str, ...]
    """Of the tiles' columns."""
    x_labels: tuple[str, ...]
    """Of the columns in each tile; seen when a cell is pointed at."""
    y_labels: tuple[str, ...]
    """Of the rows in each tile."""
    colours: Colours
    highlighted: tuple[Cell, ...] = ()
    """Tiles with an outline."""
    unreachable: Bool[np.ndarray, "row column"] | None = None
    """Cells of every tile that are left grey."""
    captioned: bool = True
    """Whether names stand above the tiles; not where the labels of rows and columns name them."""

    def __post_init__(self) -> None:
        got = tuple(len(x) for x in (self.row_labels, self.column_labels, self.y_labels, self.x_labels))
        if self.z.shape != got:
            raise ConfigError(f"tiles of shape {self.z.shape} want as many labels, got {got}")

    @property
    def cell_height(self) -> float:
        """The height of a cell as a share of its width."""
        return _cell_height(self.z.shape[2:], _TILE_SHAPES)

    @property
    def gaps(self) -> tuple[int, int]:
        """Blank cells above each tile, for its caption, and to its right."""
        columns = self.z.shape[3]
        if not self.captioned:
            return math.ceil(0.08 * columns / self.cell_height), math.ceil(0.08 * columns)
        return math.ceil(0.3 * columns / self.cell_height), math.ceil(0.08 * columns)

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """The row and column on the canvas of the tile's first cell."""
        above, right = self.gaps
        return above + row * (self.z.shape[2] + above), column * (self.z.shape[3] + right)

    def canvas(self) -> Float[np.ndarray, "canvas_row canvas_column"]:
        """All tiles in one matrix, NaN between them and where a cell is unreachable."""
        shown = self.z if self.unreachable is None else np.where(self.unreachable, np.nan, self.z)
        return self._laid_out(shown)

    def grey_canvas(self) -> Float[np.ndarray, "canvas_row canvas_column"]:
        """1 in the unreachable cells of all tiles, NaN elsewhere."""
        grey = np.full(self.z.shape, np.nan)
        grey[:, :, self.unreachable if self.unreachable is not None else np.zeros(self.z.shape[2:], dtype=bool)] = 1.0
        return self._laid_out(grey)

    def _laid_out(self, tiles: Array) -> Array:
        tile_rows, tile_columns, rows, columns = tiles.shape
        last_row, last_column = self.corner(tile_rows - 1, tile_columns - 1)
        canvas = np.full((last_row + rows, last_column + columns), np.nan, dtype=tiles.dtype)
        for row, column in self.all_tiles():
            y, x = self.corner(row, column)
            canvas[y : y + rows, x : x + columns] = tiles[row, column]
        return canvas

    def frames(self, tiles: Iterable[Cell]) -> tuple[Array, Array]:
        """The outlines of ``tiles`` on the canvas as one path, x and y, NaN between two outlines."""
        rows, columns = self.z.shape[2:]
        return outlines([(*self.corner(*tile), rows, columns) for tile in tiles])

    def caption(self, tile: Cell, *, valued: bool = True) -> str:
        """The name of ``tile``, with its value where it has one and ``valued``."""
        row, column = tile
        return self.captions[row][column] + (f" {self.values[row][column]}" if self.values and valued else "")

    def all_tiles(self) -> list[Cell]:
        """Every tile, row by row."""
        return [(row, column) for row in range(self.z.shape[0]) for column in range(self.z.shape[1])]

    def centres(self) -> tuple[list[float], list[float]]:
        """Where the tiles' columns and rows are centred on the canvas."""
        tile_rows, tile_columns, rows, columns = self.z.shape
        across = [self.corner(0, c)[1] + (columns - 1) / 2 for c in range(tile_columns)]
        return across, [self.corner(r, 0)[0] + (rows - 1) / 2 for r in range(tile_rows)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture(Mark):
    """An image in grey, its patches shaded by a value each."""

    pixels: Float[np.ndarray, "row column"]
    """Brightness, 0 (black) to 1 (white)."""
    boxes: tuple[Box, ...]
    """Of each patch."""
    z: Float[np.ndarray, " patch"]
    """NaN leaves a patch as it is."""
    colours: Colours
    labels: tuple[str, ...] = ()
    """Of the patches, for who points at them and for tables."""
    boxed: tuple[int, ...] = ()
    """Patches with an outline."""
    unreachable: tuple[int, ...] = ()
    """Patches drawn hatched instead of shaded."""
    label: str = ""

    def __post_init__(self) -> None:
        if len(self.boxes) != len(self.z):
            raise ConfigError(f"{len(self.z)} values were given for {len(self.boxes)} patches; wanted one each")

    def outlines_of(self, patches: Iterable[int]) -> tuple[Array, Array]:
        """The outlines of ``patches`` as one path, x and y, NaN between two of them."""
        return outlines([self.boxes[patch] for patch in patches])

    def below_zero(self) -> list[int]:
        """The patches of a signed picture that are marked with a dash."""
        least = LEAST_SIGNED * max(abs(self.colours.vmin), abs(self.colours.vmax))
        return [i for i, value in enumerate(self.z.tolist()) if self.colours.signed and value <= -least]

    def painted(self) -> Float[np.ndarray, "row column 3"]:
        """The image with its patches shaded: red, green and blue, 0 to 1."""
        seen = 0.25 + 0.7 * np.clip(self.pixels, 0.0, 1.0)
        painted = np.repeat(seen[:, :, None], 3, axis=2)
        for (top, left, height, width), value in zip(self.boxes, self.z.tolist(), strict=True):
            if not math.isnan(value):
                patch = painted[top : top + height, left : left + width]
                patch *= PIXEL_SHARE
                patch += (1 - PIXEL_SHARE) * np.array(colour_at(self.colours.scale, self.colours.share(value)))
        return painted

    def values(self) -> Float[np.ndarray, "row column"]:
        """The value of each pixel's patch, NaN where there is none."""
        found = np.full(self.pixels.shape, np.nan)
        for (top, left, height, width), value in zip(self.boxes, self.z.tolist(), strict=True):
            found[top : top + height, left : left + width] = value
        return found


def _cell_height(shape: tuple[int, ...], shapes: tuple[float, float]) -> float:
    rows, columns = shape
    low, high = shapes
    return float(min(max(rows / columns, low), high) * columns / rows)


def outlines(boxes: Sequence[Box], inset: float = 0.0) -> tuple[Array, Array]:
    """One path around ``boxes`` (row, column, height, width, in cells), x and y, NaN between two of them."""
    x: list[float] = []
    y: list[float] = []
    for row, column, height, width in boxes:
        left, right = column - 0.5 + inset, column + width - 0.5 - inset
        top, bottom = row - 0.5 + inset, row + height - 0.5 - inset
        x += [left, right, right, left, left, math.nan]
        y += [top, top, bottom, bottom, top, math.nan]
    return np.array(x), np.array(y)

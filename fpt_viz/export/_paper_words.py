"""Words inside the axes of a paper figure: in cells, above tiles, at the ends of levels."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.text import Annotation

from fpt_viz.export import _layout, colours as palette
from fpt_viz.export._paper_marks import ON_BAR
from fpt_viz.export.description import Panel
from fpt_viz.export.marks import Heatmap, Picture, Tiles
from fpt_viz.export.presets import Preset

LEAST_ON_BARS = 0.45
"""Of the usual letters."""


def words_in_cells(panel: Panel, axes: Axes, preset: Preset) -> None:
    """The words in the cells of a heatmap and above the tiles, as large as fits."""
    mark = _layout.picture(panel)
    if mark is None or isinstance(mark, Picture):
        return
    _, columns, cell_height = _layout.cells(mark)
    box = axes.get_window_extent()
    cell = box.width / columns
    if isinstance(mark, Tiles):
        if mark.captioned:
            _captions(mark, axes, cell, preset)
    elif mark.text is not None:
        longest = max((len(word) for row in mark.text for word in row), default=1)
        size = min(0.9 * preset.font_size, cell * 0.92 / (longest * _layout.CHARACTER_WIDTH), 0.75 * cell * cell_height)
        if size < preset.least_font_size:
            return
        for (row, column), value in _items(mark):
            ink = palette.text_on(palette.colour_at(mark.colours.scale, mark.colours.share(value)))
            axes.text(column, row, mark.text[row][column], color=ink, fontsize=size, ha="center", va="center_baseline")


def fit_words_on_bars(axes: Axes) -> None:
    """Make the words on bars smaller where those of neighbours would run into each other."""
    words = [text for text in axes.texts if text.get_label() == ON_BAR]
    low, high = axes.get_xlim()
    pitch = axes.get_window_extent().width / (high - low)
    longest = max((text.get_window_extent().width for text in words), default=0.0)
    if longest > pitch:
        for text in words:
            text.set_fontsize(max(LEAST_ON_BARS, 0.94 * pitch / longest) * float(text.get_fontsize()))


def _items(mark: Heatmap) -> list[tuple[tuple[int, int], float]]:
    rows, columns = mark.z.shape
    places = [(row, column) for row in range(rows) for column in range(columns)]
    return [(place, float(mark.shown[place])) for place in places if mark.shown[place] == mark.shown[place]]


def _captions(mark: Tiles, axes: Axes, cell: float, preset: Preset) -> None:
    """Name each tile above it, with its value where both can be read; where neither can, only highlighted tiles."""
    width, room = cell * mark.z.shape[3], 0.8 * cell * mark.cell_height * mark.gaps[0]
    for valued in (True, False):
        shown = {tile: mark.caption(tile, valued=valued) for tile in mark.all_tiles()}
        longest = max(len(word) for word in shown.values())
        size = min(0.8 * preset.font_size, 1.06 * width / (longest * _layout.CHARACTER_WIDTH), room)
        if size >= preset.least_font_size:
            break
    else:
        size, shown = 0.7 * preset.font_size, {tile: mark.caption(tile) for tile in mark.highlighted}
    for tile, word in shown.items():
        top, left = mark.corner(*tile)
        weight = "bold" if tile in mark.highlighted else "normal"
        axes.annotate(
            word, (left - 0.5, top - 0.5), xytext=(0, 1), textcoords="offset points", fontsize=size, weight=weight,
            ha="left", va="bottom", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.2},
        )  # fmt: skip


def name_levels(panel: Panel, axes: Axes, font_size: float) -> list[Annotation]:
    """The names of the levels of ``panel``, at the right of its axes."""
    return [
        axes.annotate(
            name, (1, at), xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points",
            fontsize=font_size, color=palette.MUTED, va="center", ha="left", annotation_clip=False,
        )
        for at, name in _layout.level_names(panel).items()
    ]  # fmt: skip


def part_levels(names: list[Annotation]) -> None:
    """Move level names apart that would overlap."""
    boxes = [name.get_window_extent() for name in names]
    places = [(box.y0 + box.y1) / 2 for box in boxes]
    moved = _layout.spread(places, [box.height + 1 for box in boxes])
    for name, place, to in zip(names, places, moved, strict=True):
        name.set_position((3, to - place))

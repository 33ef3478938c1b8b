"""What each patch of an image adds to an answer."""

from __future__ import annotations

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Colours, Figure, Panel, Picture
from fpt_viz.figures import _patches
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import Array, listed, number
from fpt_viz.records import Geometry

__all__ = ["attribution_patches"]


@remembered
def attribution_patches(
    values: Array,
    *,
    image: Array | None = None,
    geometry: Geometry | None = None,
    unit: str = "attribution",
    about: str = "",
    method: str = "",
    target: str = "the answer",
) -> Figure:
    """Attribution of an answer to each patch over the image, on a scale centred on 0.

    Args:
        values: ``[patch]``; or ``[row column]`` for a grid of patches.
        image: The example's pixels, ``[row column]`` or ``[row column colour]``, from 0 to 1 or 0 to 255.
        geometry: Where the patches lie. None: a grid that fills the image, or squares of 8 pixels without one.
        unit: What is attributed, with its unit, beside the scale.
        about: What it is of, for note and alt text.
        method: How it was found, for the title.
        target: What is explained, for title and note.

    Raises:
        ConfigError: No finite value, values that fill no grid, or an image of another size.
    """
    table = np.asarray(values, dtype=float)
    if not table.size or not np.isfinite(table).any():
        raise ConfigError(
            f"attributions of shape {table.shape} were given, wanted [patch] or [row column] with numbers"
        )
    where = _grid(table, image) if geometry is None else geometry
    flat = table.ravel()
    extent = float(np.nanmax(np.abs(flat))) or 1.0
    picture = Picture(
        pixels=_patches.brightness(image, where),
        boxes=where.boxes,
        z=flat,
        colours=Colours(vmin=-extent, vmax=extent, label=unit, scale="diverging"),
        labels=_patches.place_names(where),
    )
    order = np.argsort(-np.nan_to_num(np.abs(flat)), kind="stable")[:3]
    finding = f"Largest in size: {listed(f'{picture.labels[i]} ({number(flat[i])})' for i in order)}."
    title = f"What each patch adds to {target}{f', by {method}' if method else ''}"
    return Figure(
        title=title,
        alt=f"Image of {len(flat)} patches, coloured by {title[0].lower()}{title[1:]}"
        f"{f', of {about}' if about else ''}; centred on 0. {finding}",
        panels=(Panel(marks=(picture,)),),
        note=f"Above 0 speaks for {target}{f'; {about}' if about else ''}.",
        finding=finding,
        source={"about": about} if about else {},
    )


def _grid(table: Array, image: Array | None) -> Geometry:
    """Patches of one size in rows and columns."""
    rows, columns = table.shape if table.ndim == 2 else (round(table.size**0.5),) * 2
    if rows * columns != table.size:
        raise ConfigError(f"{table.size} patches fill no square: give them as [row column], or a geometry")
    height, width = (8 * rows, 8 * columns) if image is None else np.shape(image)[:2]
    if height % rows or width % columns:
        raise ConfigError(f"{rows} x {columns} patches do not divide an image of {height} x {width} pixels")
    down, across = height // rows, width // columns
    boxes = tuple((r * down, c * across, down, across) for r in range(rows) for c in range(columns))
    return Geometry(image_size=(int(height), int(width)), boxes=boxes)

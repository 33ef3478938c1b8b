"""Attention on the patches of an image, as pictures."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Colours, Picture
from fpt_viz.figures.base import Array, array, place_of, scale_top
from fpt_viz.records import AttentionMaps, Geometry

_LUMA = np.array([0.2126, 0.7152, 0.0722])
"""Of red, green and blue."""


def brightness(image: Array | None, geometry: Geometry) -> Float[np.ndarray, "row column"]:
    """``image`` in grey, 0 to 1; even grey where there is none.

    Args:
        image: ``[row column]`` or ``[row column colour]``, from 0 to 1 or from 0 to 255.
        geometry: Of the task whose patches lie on it.

    Raises:
        ConfigError: The task has no patches, or the image is of another size than theirs.
    """
    if geometry.image_size is None or not geometry.boxes:
        raise ConfigError("these tokens are no image patches: their geometry has no boxes; use attention_heatmap")
    if image is None:
        return np.full(geometry.image_size, 0.75)
    pixels = np.asarray(image, dtype=float)
    if pixels.ndim == 3 and pixels.shape[2] in (1, 3):
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels @ _LUMA
    if pixels.shape != tuple(geometry.image_size):
        raise ConfigError(
            f"an image of shape {tuple(np.shape(image))} was given for patches of an image of "
            f"{geometry.image_size[0]} x {geometry.image_size[1]} pixels; wanted [row column] or [row column colour]"
        )
    if not np.isfinite(pixels).all() or pixels.min() < 0:
        raise ConfigError("an image is wanted from 0 to 1 or from 0 to 255; undo the task's normalisation first")
    return pixels / 255.0 if pixels.max() > 1.0 else pixels


def place_names(geometry: Geometry) -> tuple[str, ...]:
    """``"patch 5 (row 2, column 1)"``, by the patch's place in the grid."""
    tops = sorted({box[0] for box in geometry.boxes})
    lefts = sorted({box[1] for box in geometry.boxes})
    return tuple(
        f"patch {i} (row {tops.index(box[0])}, column {lefts.index(box[1])})" for i, box in enumerate(geometry.boxes)
    )


def row_of(maps: AttentionMaps, *, layer: int, head: int, example: int) -> tuple[Array, list[int]]:
    """The captured rows of one head, ``[query key]``, and the token that each is of.

    Raises:
        ConfigError: The layer, head or example was not captured.
    """
    place_of(example, range(maps.weights.shape[1]), "example")
    at = place_of(layer, maps.layers, "layer"), example, place_of(head, maps.heads, "head")
    queries = array(maps.queries[example])
    real = queries >= 0
    return array(maps.weights[at])[real], [int(query) for query in queries[real]]


def shaded(
    pixels: Float[np.ndarray, "row column"], maps: AttentionMaps, weights: Array, *, query: int, vmax: float
) -> Picture:
    """``pixels`` shaded by what ``query`` reads of each patch; later patches are hatched in a causal model."""
    boxes = maps.geometry.boxes
    hidden = tuple(range(query + 1, len(boxes))) if maps.causal else ()
    z = np.array(weights[: len(boxes)], dtype=float)
    z[list(hidden)] = np.nan
    return Picture(
        pixels=pixels,
        boxes=boxes,
        z=z,
        colours=Colours(vmin=0.0, vmax=vmax, label="attention weight"),
        labels=place_names(maps.geometry),
        boxed=(query,) if query < len(boxes) else (),
        unreachable=hidden,
    )


def chosen_queries(queries: Sequence[int], wanted: Sequence[int] | None, n_most: int) -> list[int]:
    """The queries asked for, or up to ``n_most`` evenly spread over those there are."""
    if wanted is not None:
        for query in wanted:
            place_of(query, queries, "query")
        return list(wanted)
    if len(queries) <= n_most:
        return list(queries)
    return [queries[round(i * (len(queries) - 1) / (n_most - 1))] for i in range(n_most)]


def top_of(weights: Array, vmax: float | None) -> float:
    """The end of the scale: as asked, or just above the largest weight."""
    return scale_top(weights) if vmax is None else vmax

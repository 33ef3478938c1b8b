"""Which patches of an image one query reads, on the image."""

from __future__ import annotations

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Figure, Panel
from fpt_viz.figures import _patches
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import Array, head_name, listed, number, origin, place_of
from fpt_viz.records import AttentionMaps

__all__ = ["patch_overlay"]


@remembered
def patch_overlay(
    maps: AttentionMaps,
    *,
    image: Array | None = None,
    layer: int = 0,
    head: int = 0,
    example: int = 0,
    query: int | None = None,
    vmax: float | None = None,
    rollout: Array | None = None,
) -> Figure:
    """The attention of one query on each patch, over the image in grey; the query's own patch is outlined.

    Args:
        maps: Captured attention of a task whose tokens are image patches.
        image: The example's pixels, ``[row column]`` or ``[row column colour]``, from 0 to 1 or 0 to 255. None shows
            the patches alone.
        layer: Zero-based number of a captured layer.
        head: Zero-based number of a captured head.
        example: Place in the captured batch.
        query: The token that reads. None: the last one captured.
        vmax: End of the colour scale, to compare with another figure. None: just above the largest weight.
        rollout: What reaches the query over all layers, ``[key]``, to be shown instead of one head's attention.

    Raises:
        ConfigError: What was asked for was not captured, the tokens are no patches, or the image is of another size.
    """
    pixels = _patches.brightness(image, maps.geometry)
    rows, queries = _patches.row_of(maps, layer=layer, head=head, example=example)
    query = queries[-1] if query is None else query
    weights = rows[place_of(query, queries, "query")]
    if rollout is not None:
        weights = np.asarray(rollout, dtype=float)
        if weights.shape != rows.shape[1:]:
            raise ConfigError(
                f"a rollout of shape {weights.shape} was given, wanted one value for each of {rows.shape[1:]}"
            )
    picture = _patches.shaded(pixels, maps, weights, query=query, vmax=_patches.top_of(weights, vmax))
    name, names = head_name((layer, head)), picture.labels
    reader = names[query] if query < len(names) else maps.labels[example][query]
    order = np.argsort(-np.nan_to_num(picture.z, nan=-1.0), kind="stable")[:3]
    most = listed(f"{names[i]} ({number(picture.z[i])})" for i in order)
    if rollout is None:
        what, title = "attention", f"What {reader} reads, head {name}"
        finding = f"Head {name}, {reader}: most of its attention goes to {most}."
    else:
        what, title = "attention rollout", f"Rollout to {reader}"
        finding = f"Attention rollout to {reader}: the largest shares are of {most}."
    notes = [f"Example {example} of {origin(maps.source)}; the image in grey below the colours"]
    notes += ["outlined: the patch that reads"] if picture.boxed else []
    notes += ["hatched: later patches, which it cannot see"] if picture.unreachable else []
    return Figure(
        title=title,
        alt=f"Image of {len(names)} patches, example {example} of {origin(maps.source)}, shaded by {what}. {finding}",
        panels=(Panel(marks=(picture,)),),
        note="; ".join(notes) + ".",
        finding=finding,
        source={**maps.source, "layer": layer, "head": head, "example": example, "query": query},
    )

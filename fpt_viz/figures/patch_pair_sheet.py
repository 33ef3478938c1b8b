"""What several patches of an image read, one small picture each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fpt_viz.export import Figure, Panel
from fpt_viz.figures import _patches
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import Array, head_name, listed, number, origin
from fpt_viz.records import AttentionMaps

__all__ = ["patch_pair_sheet"]

_MOST = 12


@remembered
def patch_pair_sheet(
    maps: AttentionMaps,
    *,
    image: Array | None = None,
    layer: int = 0,
    head: int = 0,
    example: int = 0,
    queries: Sequence[int] | None = None,
    columns: int = 4,
    vmax: float | None = None,
) -> Figure:
    """One picture a query, all on one scale: the query's patch outlined, every patch shaded by what it is read.

    Args:
        maps: Captured attention of a task whose tokens are image patches.
        image: The example's pixels, as of ``patch_overlay``.
        layer: Zero-based number of a captured layer.
        head: Zero-based number of a captured head.
        example: Place in the captured batch.
        queries: The tokens that read. None: up to twelve, evenly spread over those captured.
        columns: Pictures side by side.
        vmax: End of the colour scale. None: just above the largest weight.

    Raises:
        ConfigError: What was asked for was not captured, the tokens are no patches, or the image is of another size.
    """
    pixels = _patches.brightness(image, maps.geometry)
    rows, captured = _patches.row_of(maps, layer=layer, head=head, example=example)
    chosen = _patches.chosen_queries(captured, queries, _MOST)
    shown = rows[[captured.index(query) for query in chosen]]
    top = _patches.top_of(shown, vmax)
    pictures = [
        _patches.shaded(pixels, maps, row, query=query, vmax=top) for row, query in zip(shown, chosen, strict=True)
    ]
    names, name = pictures[0].labels, head_name((layer, head))
    told = []
    for picture, query in list(zip(pictures, chosen, strict=True))[:6]:
        best = int(np.nanargmax(picture.z))
        told.append(f"token {query} reads {names[best]} ({number(picture.z[best])})")
    finding = f"Head {name}, most read: {listed(told)}{', and so on' if len(chosen) > 6 else ''}."
    notes = [f"Example {example} of {origin(maps.source)}; outlined: the patch that reads"]
    notes += ["hatched: later patches, which it cannot see"] if maps.causal else []
    return Figure(
        title=f"What {len(chosen)} patches read, head {name}",
        alt=f"{len(chosen)} pictures of one image of {len(names)} patches, shaded by attention, of "
        f"{origin(maps.source)}. {finding}",
        panels=tuple(
            Panel(marks=(picture,), title=f"token {query}") for picture, query in zip(pictures, chosen, strict=True)
        ),
        columns=columns,
        note="; ".join(notes) + ".",
        finding=finding,
        source={**maps.source, "layer": layer, "head": head, "example": example},
    )

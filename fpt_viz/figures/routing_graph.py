"""How attention carries tokens through the layers, as a graph."""

from __future__ import annotations

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Colours, Figure, Links, Panel
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import Maps, array, as_maps, head_name, listed, number, origin, place_of

__all__ = ["routing_graph"]


@remembered
def routing_graph(source: Maps, *, example: int = 0, edges: int = 24, others: bool = True) -> Figure:
    """The largest attention edges of all captured layers: tokens down, layers across, reading from left to right.

    An edge ends at the token that reads; its weight is that of the head, of those captured in the layer, that reads
    most there. It says what may have been moved, not what was used.

    Args:
        source: Captured attention, or arrays ``[layer batch head query key]`` from elsewhere.
        example: Place in the captured batch.
        edges: The largest so many are drawn.
        others: Whether edges from a token to itself are left out.

    Raises:
        ConfigError: No such example, or less than one edge.
    """
    maps = as_maps(source)
    place_of(example, range(maps.weights.shape[1]), "example")
    if edges < 1:
        raise ConfigError(f"edges must be at least 1, got {edges}")
    weights, queries = array(maps.weights[:, example]), array(maps.queries[example])
    best_heads, best = weights.argmax(axis=1), weights.max(axis=1)
    keys = np.flatnonzero(array(maps.mask[example]))
    found = [
        (float(best[i, r, k]), i, int(query), int(k), maps.heads[int(best_heads[i, r, k])])
        for i in range(len(maps.layers))
        for r, query in enumerate(queries)
        if query >= 0
        for k in keys
        if not (others and k == query)
    ]
    kept = sorted(found, key=lambda edge: (-edge[0], edge[1:]))[:edges]
    labels = maps.labels[example]
    names = tuple(f"{head_name((maps.layers[i], head))}: {labels[q]} reads {labels[k]}" for _, i, q, k, head in kept)
    links = Links(
        x0=np.array([float(edge[1]) for edge in kept]),
        y0=np.array([float(edge[3]) for edge in kept]),
        x1=np.array([float(edge[1] + 1) for edge in kept]),
        y1=np.array([float(edge[2]) for edge in kept]),
        z=np.array([edge[0] for edge in kept]),
        names=names,
        colours=Colours(vmin=0.0, vmax=1.0, label="attention weight"),
    )
    panel = Panel(
        marks=(links,),
        x_title="into layer",
        y_title="token",
        x_range=(-0.1, len(maps.layers) + 0.1),
        y_range=(float(keys.max()) + 0.6, float(keys.min()) - 0.6),
        x_ticks=(tuple(i + 0.5 for i in range(len(maps.layers))), tuple(map(str, maps.layers))),
        y_ticks=(tuple(map(float, keys)), tuple(labels[k] for k in keys)),
        n_lines=max(8, len(keys) + 1),
        bare=True,
    )
    most = listed(f"{name} ({number(edge[0])})" for name, edge in zip(names[:5], kept, strict=False))
    finding = f"Largest edges: {most}."
    own = " between different tokens" if others else ""
    return Figure(
        title=f"The {len(kept)} largest attention edges{own}",
        alt=f"Graph of {len(keys)} tokens down and {len(maps.layers)} layers across, example {example} of "
        f"{origin(maps.source)}. {finding}",
        panels=(panel,),
        note=f"Example {example} of {origin(maps.source)}; of each layer's captured heads the one that reads most. An "
        f"edge ends at the token that reads; {len(kept)} of {len(found)} edges are drawn, the smallest "
        f"{number(kept[-1][0])}.",
        finding=finding,
        source={**maps.source, "example": example},
    )

"""What each token of an example reads, as lines."""

from __future__ import annotations

from jaxtyping import Float
import numpy as np

from fpt_viz.export import Colours, Figure, Links, Panel, Words
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import Maps, array, as_maps, head_name, listed, number, origin, place_of

__all__ = ["head_view"]

LEAST = 0.02
"""Weights below it are not drawn unless asked for; the figure says so."""


@remembered
def head_view(source: Maps, *, layer: int = 0, head: int = 0, example: int = 0, least: float = LEAST) -> Figure:
    """Lines from each query (left) to the keys that it reads (right), the darker and wider the larger the weight.

    Args:
        source: Captured attention, or arrays ``[layer batch head query key]`` from elsewhere.
        layer: Zero-based number of a captured layer.
        head: Zero-based number of a captured head.
        example: Place in the captured batch.
        least: Weights below it are left out.

    Raises:
        ConfigError: ``layer``, ``head`` or ``example`` was not captured; the message says what was.
    """
    maps = as_maps(source)
    place_of(example, range(maps.weights.shape[1]), "example")
    at = place_of(layer, maps.layers, "layer"), example, place_of(head, maps.heads, "head")
    queries = array(maps.queries[example])
    weights = array(maps.weights[at])[queries >= 0]
    queries = queries[queries >= 0]
    real = np.flatnonzero(array(maps.mask[example]))
    labels = maps.labels[example]
    drawn = [(r, int(k)) for r in range(len(queries)) for k in real if weights[r, k] >= least]
    links = Links(
        x0=np.zeros(len(drawn)),
        y0=np.array([float(queries[r]) for r, _ in drawn]),
        x1=np.ones(len(drawn)),
        y1=np.array([float(k) for _, k in drawn]),
        z=np.array([float(weights[r, k]) for r, k in drawn]),
        names=tuple(f"{labels[queries[r]]} reads {labels[k]}" for r, k in drawn),
        colours=Colours(vmin=0.0, vmax=1.0, label="attention weight"),
    )
    keys = Words(x=np.ones(len(real)), y=real.astype(float), text=tuple(labels[k] for k in real))
    name = head_name((layer, head))
    left_out = _left_out(weights[:, real], least)
    panel = Panel(
        marks=(links, keys),
        x_range=(-0.03, 1.03),
        y_range=(float(real.max()) + 0.6, float(real.min()) - 0.6),
        x_ticks=((0.0, 1.0), ("query (reads)", "key (is read)")),
        y_ticks=(tuple(map(float, queries)), tuple(labels[query] for query in queries)),
        n_lines=len(real) + 1,
        bare=True,
    )
    best = weights[:, real].argmax(axis=1)
    most = [
        f"{labels[q]} reads {labels[real[b]]} ({number(weights[r, real[b]])})"
        for r, (q, b) in enumerate(zip(queries, best, strict=True))
    ]
    finding = f"Head {name}, most read: {listed(most[:6])}{', and so on' if len(most) > 6 else ''}."
    return Figure(
        title=f"What head {name} reads",
        alt=f"Lines from {len(queries)} queries to {len(real)} keys, example {example} of {origin(maps.source)}. "
        f"{finding}",
        panels=(panel,),
        note=f"Example {example} of {origin(maps.source)}. Lines below {least:g} are not drawn; they carry "
        f"{number(left_out)} of a row on average.",
        finding=finding,
        source={**maps.source, "layer": layer, "head": head, "example": example},
    )


def _left_out(weights: Float[np.ndarray, "query key"], least: float) -> float:
    """The share of a row, on average, that lies on weights below ``least``."""
    return float(np.where(weights < least, weights, 0.0).sum(axis=1).mean())

"""The attention of one head on one example."""

from __future__ import annotations

from jaxtyping import Bool, Int
import numpy as np

from fpt_viz.export import Colours, Figure, Heatmap, Panel
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import Maps, array, as_maps, head_name, listed, number, origin, place_of

__all__ = ["attention_heatmap"]

_QUERIES_IN_WORDS = 6


@remembered
def attention_heatmap(source: Maps, *, layer: int = 0, head: int = 0, example: int = 0) -> Figure:
    """One attention pattern: queries (which read) down, keys (which are read) across, weight from 0 to 1.

    Keys that the query needs are outlined, padding is blank, and what a causal model cannot see yet is hatched.

    Args:
        source: Captured attention, or arrays ``[layer batch head query key]`` from elsewhere.
        layer: Zero-based number of a captured layer.
        head: Zero-based number of a captured head.
        example: Place in the captured batch.

    Raises:
        ConfigError: ``layer``, ``head`` or ``example`` was not captured; the message says what was.
        RecordError: Arrays that are no attention.
    """
    maps = as_maps(source)
    place = place_of(layer, maps.layers, "layer"), place_of(head, maps.heads, "head")
    place_of(example, range(maps.weights.shape[1]), "example")
    queries = array(maps.queries[example])
    real_rows = queries >= 0
    queries = queries[real_rows]
    padded = ~array(maps.mask[example])
    weights = array(maps.weights[place[0], example, place[1]])[real_rows].copy()
    weights[:, padded] = np.nan
    labels = maps.labels[example]
    ahead = (np.arange(weights.shape[1])[None] > queries[:, None]) & ~padded if maps.causal else None
    needs = array(maps.needs[example])[real_rows] if maps.needs is not None else None
    heatmap = Heatmap(
        z=weights,
        x_labels=tuple("" if pad else label for label, pad in zip(labels, padded, strict=True)),
        y_labels=tuple(labels[query] for query in queries),
        colours=Colours(vmin=0.0, vmax=1.0, label="attention weight"),
        boxed=() if needs is None else tuple((int(r), int(c)) for r, c in np.argwhere(needs)),
        unreachable=ahead if ahead is not None and ahead.any() else None,
        cell_names=("query", "key"),
    )
    name = head_name((layer, head))
    notes = [f"Example {example} of {origin(maps.source)}. Each row sums to 1"]
    notes += ["outlined: the keys that the query needs"] if heatmap.boxed else []
    notes += ["hatched: later tokens, which it cannot see"] if heatmap.unreachable is not None else []
    notes += ["blank: padding"] if padded.any() else []
    words = _found(name, heatmap, queries, needs=needs)
    about = f"example {example} of {origin(maps.source)}"
    rows, columns = heatmap.z.shape
    down = f"{rows} {'query' if rows == 1 else 'queries'} down"
    panel = Panel(marks=(heatmap,), x_title="key (is read)", y_title="query (reads)")
    return Figure(
        title=f"Attention of head {name}",
        alt=f"Attention heatmap of head {name}, {about}: {down}, {columns} keys across, weights 0 to 1. {words}",
        panels=(panel,),
        note="; ".join(notes) + ".",
        finding=words,
        source={**maps.source, "layer": layer, "head": head, "example": example},
    )


def _found(
    name: str,
    heatmap: Heatmap,
    queries: Int[np.ndarray, " query"],
    *,
    needs: Bool[np.ndarray, "query key"] | None,
) -> str:
    """What the numbers say: how much lies on the keys that are needed, and what each query reads most."""
    rows, columns = heatmap.z.shape
    words = []
    if needs is not None:
        others = needs & (np.arange(columns)[None] != queries[:, None])
        scored = others.any(axis=1)
        if scored.any():
            on_needed = float(np.where(others, np.nan_to_num(heatmap.z), 0.0)[scored].sum(axis=1).mean())
            words.append(
                f"Head {name} puts {number(on_needed)} of read-out attention on the other tokens that a query needs, "
                f"mean over {int(scored.sum())} queries."
            )
    best = np.nanargmax(heatmap.z, axis=1)
    most = [
        f"{heatmap.y_labels[r]} reads {heatmap.x_labels[best[r]]} ({number(heatmap.z[r, best[r]])})"
        for r in range(min(rows, _QUERIES_IN_WORDS))
    ]
    words.append(f"Most read: {listed(most)}{', and so on' if rows > _QUERIES_IN_WORDS else ''}.")
    return " ".join(words)

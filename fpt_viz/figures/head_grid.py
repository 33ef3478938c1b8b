"""Every head of a model at a glance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Colours, Figure, Panel, Tiles
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import (
    Array,
    Maps,
    array,
    as_maps,
    head_name,
    listed,
    number,
    origin,
    place_of,
    scale_top,
    short,
)
from fpt_viz.records import AttentionMaps, HeadStatistics

__all__ = ["head_grid"]


@remembered
def head_grid(
    source: HeadStatistics | Maps, *, highlight: Iterable[Sequence[int]] | None = None, vmax: float | None = None
) -> Figure:
    """The mean attention pattern of each head, layers down and heads across, all on one absolute scale.

    In each tile queries run down and keys across; above it stand the head's name and, where it has one, its routing
    score.

    Args:
        source: Head statistics, or captured maps, whose examples are then averaged, or arrays
            ``[layer batch head query key]`` from elsewhere.
        highlight: Heads to outline, as (layer, head). None: the one with the highest routing score, if any.
        vmax: End of the colour scale, to compare with another grid. None: just above the largest weight shown.

    Raises:
        ConfigError: A head to highlight is not there, or the maps' examples read for different tokens.
    """
    source = source if isinstance(source, HeadStatistics) else as_maps(source)
    patterns, layers, heads = _patterns(source)
    scores, ranking = None, []
    if isinstance(source, HeadStatistics) and source.routing_score is not None:
        scores, ranking = array(source.routing_score), source.ranking()
    if highlight is None:
        highlight = ranking[:1]
    chosen = [(int(layer), int(head)) for layer, head in highlight]
    places = tuple((place_of(layer, layers, "layer"), place_of(head, heads, "head")) for layer, head in chosen)
    queries, labels, ahead = _tokens(source)
    top = scale_top(patterns) if vmax is None else vmax
    tiles = Tiles(
        z=patterns,
        captions=tuple(tuple(head_name((layer, head)) for head in heads) for layer in layers),
        values=None if scores is None else tuple(tuple(short(score) for score in row) for row in scores.tolist()),
        row_labels=tuple(map(str, layers)),
        column_labels=tuple(map(str, heads)),
        x_labels=labels,
        y_labels=tuple(labels[query] for query in queries),
        colours=Colours(vmin=0.0, vmax=top, label="mean attention weight"),
        highlighted=places,
        unreachable=ahead,
    )
    n, what = _counted(source)
    notes = [f"Mean over {n} {what} of {origin(source.source)}. In each tile queries run down, keys across"]
    notes += ["the number is the head's routing score"] if scores is not None else []
    notes += ["grey: later tokens, which a query cannot see"] if ahead is not None else []
    notes += [f"outlined: {listed(head_name(head) for head in chosen)}"] if 0 < len(chosen) <= 8 else []
    notes += [f"one scale for all heads, 0 to {top:g}"]
    found = _found(tiles, scores)
    return Figure(
        title=f"Mean attention of all {len(layers) * len(heads)} heads",
        alt=(
            f"Grid of mean attention patterns, {len(layers)} layers down by {len(heads)} heads across, over {n} {what} "
            f"of {origin(source.source)}; one colour scale from 0 to {top:g}. {found}"
        ),
        finding=found,
        panels=(Panel(marks=(tiles,), x_title="head", y_title="layer"),),
        note="; ".join(notes) + ".",
        source=dict(source.source),
    )


def _patterns(source: HeadStatistics | AttentionMaps) -> tuple[Array, tuple[int, ...], tuple[int, ...]]:
    """The mean patterns, and the layers and heads that they are of."""
    if isinstance(source, HeadStatistics):
        patterns = array(source.mean_pattern)
        return patterns, tuple(range(patterns.shape[0])), tuple(range(patterns.shape[1]))
    if not bool((source.queries == source.queries[:1]).all()):
        raise ConfigError(
            "the examples of these maps read for different tokens, so their mean pattern says nothing: "
            "show one with attention_heatmap, or compute head_statistics"
        )
    real = (source.mask[:, None, :] & (source.queries[:, :, None] >= 0))[None, :, None]
    total = (source.weights.double() * real).sum(1)
    mean = total / real.sum(1).clamp(min=1)
    return array(mean.to(source.weights.dtype)), source.layers, source.heads


def _tokens(source: HeadStatistics | AttentionMaps) -> tuple[tuple[int, ...], tuple[str, ...], Array | None]:
    """The tokens that rows are for, each token's name, and which cells a causal model cannot see."""
    if isinstance(source, HeadStatistics):
        queries, labels = source.queries, source.labels
    else:
        queries = tuple(int(query) for query in source.queries[0])
        labels = source.labels[0]
        if len(set(source.labels)) > 1:  # values differ between examples: name places only, "a0=1" as "a0"
            labels = tuple(label.split("=")[0] for label in labels)
    ahead = np.arange(len(labels))[None] > np.array(queries)[:, None]
    return queries, labels, ahead if source.causal and ahead.any() else None


def _counted(source: HeadStatistics | AttentionMaps) -> tuple[int, str]:
    if isinstance(source, HeadStatistics):
        return source.n_examples, f"{source.split} examples"
    return source.weights.shape[1], "captured examples"


def _found(tiles: Tiles, scores: Array | None) -> str:
    """The highest routing scores; without any, the largest weight."""
    n_heads = tiles.z.shape[1]
    if scores is not None:
        order = np.argsort(-scores, axis=None, kind="stable")[:3]
        best = [divmod(int(i), n_heads) for i in order]
        named = [f"{tiles.captions[r][c]} ({number(scores[r, c])})" for r, c in best]
        return f"Highest routing scores: {listed(named)}; median over heads {number(float(np.median(scores)))}."
    place = np.unravel_index(int(np.nanargmax(tiles.z)), tiles.z.shape)
    r, c, q, k = (int(i) for i in place)
    return (
        f"The largest mean weight is {number(float(tiles.z[r, c, q, k]))}: {tiles.captions[r][c]}, "
        f"{tiles.y_labels[q]} reads {tiles.x_labels[k]}."
    )

"""How one head's attention differs between two models."""

from __future__ import annotations

from jaxtyping import Float, Int
import numpy as np

from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.export import Colours, Figure, Heatmap, Panel
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import (
    Array,
    Maps,
    array,
    as_maps,
    head_name,
    listed,
    merged_source,
    number,
    origin,
    place_of,
    scale_top,
)
from fpt_viz.records import AttentionMaps, HeadStatistics

__all__ = ["attention_difference"]

N_NAMED = 3


@remembered
def attention_difference(
    first: HeadStatistics | Maps,
    second: HeadStatistics | Maps,
    *,
    layer: int = 0,
    head: int = 0,
    example: int | None = None,
    vmax: float | None = None,
) -> Figure:
    """The second model's attention less the first's: queries down, keys across, on a scale that is even about 0.

    Args:
        first: Head statistics, whose mean patterns are then compared, captured maps, or arrays
            ``[layer batch head query key]``.
        second: The same of the other model, of the same tokens; maps must show the same examples.
        layer: Zero-based number of a captured layer.
        head: Zero-based number of a captured head.
        example: Place in the captured batch. None: the mean over its examples.
        vmax: Both ends of the scale. None: just beyond the largest difference.

    Raises:
        RecordError: They show other examples, tokens, layers or heads, so a difference says nothing.
        ConfigError: ``layer``, ``head`` or ``example`` was not captured.
    """
    ours = first if isinstance(first, HeadStatistics) else as_maps(first)
    theirs = second if isinstance(second, HeadStatistics) else as_maps(second)
    before, queries, labels = _pattern(ours, layer=layer, head=head, example=example)
    if isinstance(ours, AttentionMaps) and isinstance(theirs, AttentionMaps):
        ours.check_comparable(theirs)
    after, other_queries, other_labels = _pattern(theirs, layer=layer, head=head, example=example)
    if (labels, queries.tolist()) != (other_labels, other_queries.tolist()):
        raise RecordError(f"the two show other tokens, so they cannot be compared: {labels[:4]} and {other_labels[:4]}")
    change = after - before
    extent = scale_top(np.abs(change)) if vmax is None else vmax
    name = head_name((layer, head))
    heatmap = Heatmap(
        z=change,
        x_labels=labels,
        y_labels=tuple(labels[query] for query in queries),
        colours=Colours(vmin=-extent, vmax=extent, label="difference of attention weights", scale="diverging"),
        cell_names=("query", "key"),
    )
    order = np.argsort(-np.abs(np.nan_to_num(change)), axis=None, kind="stable")[:N_NAMED]
    cells = [divmod(int(i), change.shape[1]) for i in order]
    most = listed(f"{heatmap.y_labels[r]} reads {heatmap.x_labels[c]} by {number(change[r, c])}" for r, c in cells)
    finding = f"Head {name}, largest differences: {most}."
    pair = f"{origin(theirs.source)}, less {origin(ours.source)}"
    what = "mean over examples" if example is None else f"example {example}"
    return Figure(
        title=f"Difference of head {name}",
        alt=f"Heatmap of differences, {what} of {pair}; scale from {number(-extent)} to {number(extent)}. {finding}",
        panels=(Panel(marks=(heatmap,), x_title="key (is read)", y_title="query (reads)"),),
        note=f"{what[0].upper()}{what[1:]} of {pair}. A dash marks what fell.",
        finding=finding,
        source={**merged_source([ours.source, theirs.source]), "layer": layer, "head": head},
    )


def _pattern(
    source: HeadStatistics | AttentionMaps, *, layer: int, head: int, example: int | None
) -> tuple[Float[np.ndarray, "query key"], Int[np.ndarray, " query"], tuple[str, ...]]:
    """One head's weights, NaN on padding; the tokens of its rows; every token's label."""
    if isinstance(source, HeadStatistics):
        n_layers, n_heads = source.entropy.shape
        if example is not None:
            raise ConfigError(f"head statistics hold means alone, not example {example}: leave it out, or give maps")
        place = place_of(layer, range(n_layers), "layer"), place_of(head, range(n_heads), "head")
        return array(source.mean_pattern[place]), np.array(source.queries), source.labels
    place = place_of(layer, source.layers, "layer"), place_of(head, source.heads, "head")
    if example is None:
        return _mean(source, place)
    place_of(example, range(source.weights.shape[1]), "example")
    real = array(source.queries[example]) >= 0
    weights: Array = array(source.weights[place[0], example, place[1]])[real].copy()
    weights[:, ~array(source.mask[example])] = np.nan
    return weights, array(source.queries[example])[real], source.labels[example]


def _mean(
    maps: AttentionMaps, place: tuple[int, int]
) -> tuple[Float[np.ndarray, "query key"], Int[np.ndarray, " query"], tuple[str, ...]]:
    """The mean over examples; only where all of them read for the same tokens."""
    if not bool((maps.queries == maps.queries[:1]).all()):
        raise ConfigError("the examples of these maps read for different tokens: choose one, as in example=0")
    real = maps.mask[:, None, :] & (maps.queries[:, :, None] >= 0)
    mean = (maps.weights[place[0], :, place[1]].double() * real).sum(0) / real.sum(0).clamp(min=1)
    labels = maps.labels[0]
    if len(set(maps.labels)) > 1:  # values differ between examples: name places only
        labels = tuple(label.split("=")[0] for label in labels)
    return array(mean.float()), array(maps.queries[0]), labels

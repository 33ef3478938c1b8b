"""What the widgets show of heads, from whatever they are given: a model, a record, maps, statistics or arrays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from jaxtyping import Float, UInt8
import numpy as np
import torch

from fpt_viz.analysis.attention_distance import attention_distance
from fpt_viz.analysis.attention_entropy import attention_entropy
from fpt_viz.analysis.routing_score import routing_score
from fpt_viz.analysis.sink_mass import sink_mass
from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.figures.base import Array, array
from fpt_viz.records import AblationEffects, AttentionMaps, HeadStatistics, LiveModel, RunRecord

MEAN = -1
"""The example that stands for the mean over all of them."""
BLANK = 255
"""Of a quantised weight: there is none (padding, or a later token of a causal model)."""
N_STEPS = 254
"""Of the 8-bit scale, from its low end to its high end."""
PAYLOAD_BYTES, BINNED_BYTES = 10_000_000, 2_000_000
"""All tiles go to the page whole up to the first; beyond that they are binned to the second."""
WHOLE_TOKENS = 256
"""One pattern of more tokens than this is binned until part of it is asked for."""
CAPTURE_BYTES = 256_000_000
"""The most that a widget captures of a model that it is handed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Patterns:
    """The patterns of some heads on some examples, or their mean, and what was measured of each head."""

    maps: AttentionMaps | None
    statistics: HeadStatistics | None
    metrics: dict[str, Float[np.ndarray, "layer head"]] = field(default_factory=dict)
    """By name: routing, entropy, distance, sink, ablation, as far as known."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers shown, zero-based."""
        return self.maps.layers if self.maps is not None else tuple(range(len(self._statistics.entropy)))

    @property
    def heads(self) -> tuple[int, ...]:
        """The heads shown of each layer, zero-based."""
        return self.maps.heads if self.maps is not None else tuple(range(self._statistics.entropy.shape[1]))

    @property
    def _statistics(self) -> HeadStatistics:
        assert self.statistics is not None  # one of the two is given
        return self.statistics

    @property
    def n_examples(self) -> int:
        """Examples of which single patterns are at hand."""
        return 0 if self.maps is None else self.maps.weights.shape[1]

    @property
    def has_mean(self) -> bool:
        """Whether a mean over examples says something: all of them read for the same tokens."""
        return self.maps is None or bool((self.maps.queries == self.maps.queries[:1]).all())

    @property
    def causal(self) -> bool:
        """Whether a query sees only itself and earlier tokens."""
        return self.maps.causal if self.maps is not None else self._statistics.causal

    @property
    def source(self) -> dict[str, Any]:
        """Where they come from."""
        return dict(self.maps.source if self.maps is not None else self._statistics.source)

    def drawable(self, example: int) -> AttentionMaps | HeadStatistics:
        """What a figure of ``example`` is drawn from."""
        return self.maps if self.maps is not None else self._statistics

    def queries(self, example: int) -> list[int]:
        """The token that each row reads for; -1 for none."""
        if self.maps is None:
            return list(self._statistics.queries)
        return [int(token) for token in self.maps.queries[max(example, 0)]]

    def labels(self, example: int) -> list[str]:
        """One text a token; of the mean, its place only."""
        if self.maps is None:
            return list(self._statistics.labels)
        if example == MEAN and len(set(self.maps.labels)) > 1:
            return [label.split("=")[0] for label in self.maps.labels[0]]
        return list(self.maps.labels[max(example, 0)])

    def needs(self, example: int) -> list[list[int]]:
        """Row and token of each need."""
        if self.maps is None or self.maps.needs is None or example == MEAN:
            return []
        return [[int(i) for i in pair] for pair in self.maps.needs[example].nonzero()]

    def weights(self, example: int) -> Float[np.ndarray, "layer head query key"]:
        """The weights of an example, or their mean; NaN where there is none."""
        if self.maps is None:
            found = array(self._statistics.mean_pattern).astype(np.float32)
            return self._blanked(found, np.ones(found.shape[-1], dtype=bool), example)
        if example != MEAN:
            found = array(self.maps.weights[:, example]).astype(np.float32)
            return self._blanked(found, array(self.maps.mask[example]), example)
        real = (self.maps.mask[:, None, :] & (self.maps.queries[:, :, None] >= 0))[None, :, None]
        total = (self.maps.weights.double() * real).sum(1) / real.sum(1).clamp(min=1)
        return self._blanked(array(total.float()), array(self.maps.mask.any(0)), example)

    def _blanked(self, weights: Array, real: Array, example: int) -> Array:
        """NaN on padding, in rows of no token, and on what a causal model cannot see."""
        queries = np.array(self.queries(example))
        hidden = ~real[None] | (queries < 0)[:, None]
        if self.causal:
            hidden = hidden | (np.arange(weights.shape[-1])[None] > queries[:, None])
        return np.where(hidden[None, None], np.float32(np.nan), weights)

    def check_comparable(self, other: Patterns) -> None:
        """Raise unless a difference to ``other`` says something."""
        if self.maps is not None and other.maps is not None:
            self.maps.check_comparable(other.maps)
            return
        for what, ours, theirs in (
            ("shape", self.weights(MEAN).shape, other.weights(MEAN).shape),
            ("tokens", self.labels(MEAN), other.labels(MEAN)),
        ):
            if ours != theirs:
                raise RecordError(f"these heads are of another {what}, so they cannot be compared: {ours} and {theirs}")


def patterns_of(
    source: Any, task: Any = None, *, effects: AblationEffects | None = None, n_examples: int = 16, seed: int = 0
) -> Patterns:
    """What ``source`` tells of its heads.

    Args:
        source: A :class:`~fpt_viz.records.LiveModel`, a run's record, maps, statistics, or arrays
            ``[layer batch head query key]``.
        task: For a model: what its examples are drawn from; its own task unless given.
        effects: What cutting each head costs, where the source does not hold it.
        n_examples: For a model: distinct validation examples that are captured.
        seed: Of their choice.

    Raises:
        RecordError: Arrays that are no attention, or a record beside which nothing was captured.
        ConfigError: A model without a task.
    """
    if isinstance(source, HeadStatistics):
        found = Patterns(maps=None, statistics=source, metrics=_of_statistics(source))
    elif isinstance(source, RunRecord):
        found = _of_record(source)
    elif isinstance(source, LiveModel):
        found = _of_maps(captured(source, task, n_examples, seed))
    else:
        maps = source if isinstance(source, AttentionMaps) else AttentionMaps.from_arrays(source)
        found = _of_maps(maps)
    if effects is not None:
        found = replace(found, metrics={**found.metrics, **_of_effects(effects, found)})
    _check_finite(found)
    return found


def captured(model: LiveModel, task: Any, n_examples: int, seed: int) -> AttentionMaps:
    """Whole patterns of ``model`` on validation examples of ``task``, as many as memory allows."""
    task = task_of(model, task)
    batch = task.distinct(n_examples, "validation", seed).trimmed()
    one = model.capture(batch[:1], queries=None)
    bytes_each = one.weights.numel() * one.weights.element_size()
    affordable = max(1, CAPTURE_BYTES // max(bytes_each, 1))
    return model.capture(batch[: min(len(batch), affordable)], queries=None)


def task_of(model: LiveModel, task: Any) -> Any:
    """``task``, or that of the model."""
    found = task if task is not None else getattr(model, "task", None)
    if found is None:
        raise ConfigError("the widget needs examples to show: give the task, as in AttentionExplorer(model, task)")
    return found


def quantised(weights: Float[np.ndarray, "*axes"], low: float, high: float) -> UInt8[np.ndarray, "*axes"]:
    """``weights`` in 254 even steps from ``low`` to ``high``, clipped; 255 where there is none (NaN)."""
    shares = np.clip((np.nan_to_num(weights) - low) / (high - low), 0.0, 1.0)
    return np.where(np.isnan(weights), BLANK, np.rint(shares * N_STEPS)).astype(np.uint8)


def binned(weights: Float[np.ndarray, "*axes query key"], size: int) -> Float[np.ndarray, "*axes row column"]:
    """The weight of largest magnitude in each block of ``size`` x ``size``; NaN in blocks without any."""
    if size == 1:
        return weights
    *axes, n_queries, n_keys = weights.shape
    rows, columns = -(-n_queries // size), -(-n_keys // size)
    padding = [(0, 0)] * len(axes) + [(0, rows * size - n_queries), (0, columns * size - n_keys)]
    blocks = np.pad(weights, padding, constant_values=np.nan).reshape(*axes, rows, size, columns, size)
    flat = np.moveaxis(blocks, -3, -2).reshape(*axes, rows, columns, size * size)
    largest = np.argmax(np.where(np.isnan(flat), -1.0, np.abs(flat)), axis=-1)
    return np.take_along_axis(flat, largest[..., None], axis=-1)[..., 0]


def bin_size(n_heads: int, n_queries: int, n_keys: int) -> int:
    """How many tokens share a cell, so that the tiles of all heads are no more than a page bears."""
    if n_heads * n_queries * n_keys <= PAYLOAD_BYTES and max(n_queries, n_keys) <= WHOLE_TOKENS:
        return 1
    size = 2
    while n_heads * -(-n_queries // size) * -(-n_keys // size) > BINNED_BYTES:
        size += 1
    return size


def _of_statistics(statistics: HeadStatistics) -> dict[str, Array]:
    scores = {"routing": statistics.routing_score, "entropy": statistics.entropy, "distance": statistics.distance}
    scores["sink"] = statistics.sink_mass
    return {name: array(score) for name, score in scores.items() if score is not None}


def _of_maps(maps: AttentionMaps) -> Patterns:
    weights = maps.weights.float()
    real = (maps.queries >= 0)[None, :, None]
    n = real.sum((1, 3)).clamp(min=1)
    rows = {
        "entropy": attention_entropy(weights),
        "distance": attention_distance(weights, maps.queries),
        "sink": sink_mass(weights),
    }
    metrics = {name: array((value * real).sum((1, 3)) / n) for name, value in rows.items()}
    if maps.needs is not None:
        score = routing_score(weights, maps.needs, maps.queries)
        n_scored = score.n_scored.sum()
        if int(n_scored):
            metrics = {
                "routing": array(torch.einsum("lbh,b->lh", score.score, score.n_scored.float()) / n_scored)
            } | metrics
    return Patterns(maps=maps, statistics=None, metrics=metrics)


def _of_record(record: RunRecord) -> Patterns:
    maps, statistics, effects = record.maps(), record.statistics(), record.ablation()
    if maps is None and statistics is None:
        raise RecordError(
            f"nothing was captured of the run in {record.path}: fpt-viz statistics {record.path} for all heads, or "
            f"fpt-viz capture {record.path} for single examples; or give the widget fpt_viz.load_model(record)"
        )
    whole = maps is not None and statistics is not None and maps.weights.shape[0] == len(statistics.entropy)
    whole = whole and maps is not None and statistics is not None and len(maps.heads) == statistics.entropy.shape[1]
    found = _of_maps(maps) if maps is not None else Patterns(maps=None, statistics=statistics)
    if statistics is not None and (whole or maps is None):  # over more examples than the maps hold
        found = replace(found, statistics=statistics, metrics={**found.metrics, **_of_statistics(statistics)})
    return found if effects is None else replace(found, metrics={**found.metrics, **_of_effects(effects, found)})


def _of_effects(effects: AblationEffects, patterns: Patterns) -> dict[str, Array]:
    """The fall in accuracy by head; NaN for a head that was not cut."""
    if not effects.single_heads:
        raise ConfigError("the effects are of sets of parts: a head grid shows those of single heads")
    found = np.full((len(patterns.layers), len(patterns.heads)), np.nan, dtype=np.float32)
    for parts, drop in zip(effects.sets, effects.accuracy_drop, strict=True):
        layer, head = parts[0][:2]
        if layer in patterns.layers and head in patterns.heads:
            found[patterns.layers.index(layer), patterns.heads.index(head)] = drop
    return {"ablation": found}


def _check_finite(patterns: Patterns) -> None:
    drawn = patterns.drawable(MEAN)
    weights = drawn.weights if isinstance(drawn, AttentionMaps) else drawn.mean_pattern
    n_bad = int((~torch.isfinite(weights)).sum())
    if n_bad:
        raise RecordError(
            f"{n_bad} of {weights.numel()} attention weights are NaN or infinite: the model's logits "
            "were not finite, or the arrays are no attention"
        )

"""All heads at a glance; click one for its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import traitlets

from fpt_viz import figures
from fpt_viz.errors import ConfigError
from fpt_viz.export import SCALES, Figure
from fpt_viz.figures.base import Array, head_name, origin, place_of, scale_top
from fpt_viz.records import AblationEffects, LiveModel
from fpt_viz.widgets import _patterns, _still
from fpt_viz.widgets._patterns import MEAN
from fpt_viz.widgets.base import Choice, Widget, packed

__all__ = ["AttentionExplorer"]

WORDS = {
    "routing": "routing score",
    "ablation": "accuracy lost when cut",
    "entropy": "entropy (bits)",
    "distance": "mean distance (tokens)",
    "sink": "on the first token",
}
OFFLINE_BYTES = 6_000_000
"""The most that a saved page carries of patterns; beyond it, fewer examples."""
N_OFFLINE = 16
VIEWS = ("pattern", "lines")


class AttentionExplorer(Widget):
    """A grid of all heads on one 8-bit scale, and one head's pattern or lines with its tokens.

    Click a head, or move with the arrow keys; hover for a weight. Heads can be sorted by what was measured of them.
    """

    script = "attention_explorer.js"
    depends = {"tiles": ("example", "side", "top"), "detail": ("example", "side", "layer", "head", "zoom")}  # noqa: RUF012
    optional = ("detail",)

    tiles = traitlets.Dict().tag(sync=True)
    """Every head's weights in 8 bits, on one scale."""
    detail = traitlets.Dict(allow_none=True).tag(sync=True)
    """The chosen head's weights as they are."""

    def __init__(
        self,
        source: Any,
        task: Any = None,
        *,
        compare: Any = None,
        effects: AblationEffects | None = None,
        n_examples: int = 16,
        seed: int = 0,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Show the heads of ``source``.

        Args:
            source: A model, a run's record, :class:`~fpt_viz.records.AttentionMaps`,
                :class:`~fpt_viz.records.HeadStatistics`, or arrays ``[layer batch head query key]``.
            task: For a model: what examples are drawn from; the model's own unless given.
            compare: A second source of the same examples, to show beside it and as a difference.
            effects: What cutting each head costs, where the source holds none.
            n_examples: For a model: distinct validation examples captured.
            seed: Of their choice.
            state: The :attr:`state` of another explorer of the same source.

        Raises:
            RecordError: Arrays that are no attention, a record with nothing captured, or sources that differ in their
                examples, tokens or heads.
        """
        self._sides = {"a": _patterns.patterns_of(source, task, effects=effects, n_examples=n_examples, seed=seed)}
        if compare is not None:
            self._sides["b"] = _patterns.patterns_of(compare, task, n_examples=n_examples, seed=seed)
            self._sides["a"].check_comparable(self._sides["b"])
        self._weights_of: dict[tuple[str, int], Array] = {}
        ours = self._sides["a"]
        metrics = {
            side: {
                name: {"words": words, "values": _plain(found.metrics[name])}
                for name, words in WORDS.items()
                if name in found.metrics
            }
            for side, found in self._sides.items()
        }
        fixed = {
            "title": f"Attention of {origin(ours.source)}",
            "layers": list(ours.layers),
            "heads": list(ours.heads),
            "n_examples": sum(example != MEAN for example in self._examples()),
            "has_mean": MEAN in self._examples(),
            "causal": ours.causal,
            "metrics": metrics,
            "scales": {name: list(stops) for name, stops in SCALES.items()},
            "sides": self._side_names(),
        }
        layer, head = self._best()
        first = {
            "example": self._examples()[0],
            "side": "a",
            "top": 0,
            "layer": layer,
            "head": head,
            "zoom": None,
            "query": -1,
            "view": "pattern",
            "sort": "place",
            "least": None,
        }
        super().__init__(first=first, fixed=fixed, state=state)
        for one in (source, compare):
            if isinstance(one, LiveModel):
                self.watch(one)

    def _examples(self) -> list[int]:
        """What can be shown: the mean, and the examples that every side has."""
        n = min(side.n_examples for side in self._sides.values())
        return [*([MEAN] if all(side.has_mean for side in self._sides.values()) else []), *range(n)]

    def _side_names(self) -> list[list[str]]:
        if "b" not in self._sides:
            return [["a", "the model"]]
        names = [origin(side.source) for side in self._sides.values()]
        if names[0] == names[1]:
            names = [f"{name} ({letter})" for name, letter in zip(names, "AB", strict=True)]
        return [["a", names[0]], ["b", names[1]], ["difference", "difference (second less first)"]]

    def _best(self) -> tuple[int, int]:
        """The head with the highest routing score; the first where there is none."""
        ours = self._sides["a"]
        scores = ours.metrics.get("routing", np.zeros((1, 1)))
        layer, head = np.unravel_index(int(np.argmax(scores)), scores.shape)
        return ours.layers[int(layer)], ours.heads[int(head)]

    def checked(self, choice: Choice) -> Choice:
        """``choice`` if it is of this source."""
        ours = self._sides["a"]
        if not isinstance(choice["top"], int | float) or not choice["top"] >= 0:
            raise ConfigError(f"top must be the end of the scale, or 0 for the largest weight, got {choice['top']!r}")
        place_of(choice["layer"], ours.layers, "layer")
        place_of(choice["head"], ours.heads, "head")
        place_of(choice["example"], self._examples(), "example")
        for name, there in (("side", [one for one, _ in self.fixed["sides"]]), ("view", VIEWS)):
            if choice[name] not in there:
                raise ConfigError(f"{name} must be one of {', '.join(there)}, got {choice[name]!r}")
        sorts = ("place", *self.fixed["metrics"]["a"])
        if choice["sort"] not in sorts:
            raise ConfigError(f"heads cannot be sorted by {choice['sort']!r}: there are {', '.join(sorts)}")
        return choice

    def answer(self, trait: str, choice: Choice) -> Any:
        """The tiles of all heads, or the weights of one."""
        example, side = choice["example"], choice["side"]
        weights = self._weights(side, example)
        if trait == "tiles":
            n_layers, n_heads, n_queries, n_keys = weights.shape
            size = _patterns.bin_size(n_layers * n_heads, n_queries, n_keys)
            low, high = self._scale(choice)
            tiles = _patterns.quantised(_patterns.binned(weights, size), low, high)
            window = (0, n_queries, 0, n_keys)
            return {"values": packed(tiles), "scale": {"low": low, "high": high}, **self._names(example, window, size)}
        ours = self._sides["a"]
        one = weights[ours.layers.index(choice["layer"]), ours.heads.index(choice["head"])]
        window = self._window(choice["zoom"], one.shape)
        part = one[window[0] : window[1], window[2] : window[3]]
        size = -(-max(part.shape) // _patterns.WHOLE_TOKENS)
        values = packed(_patterns.binned(part, size).astype(np.float32))
        return {"values": values, "exact": size == 1, **self._names(example, window, size)}

    def _weights(self, side: str, example: int) -> Array:
        place = side, example
        if place not in self._weights_of:
            if len(self._weights_of) >= 4:
                self._weights_of.pop(next(iter(self._weights_of)))
            if side == "difference":
                self._weights_of[place] = self._weights("b", example) - self._weights("a", example)
            else:
                self._weights_of[place] = self._sides[side].weights(example)
        return self._weights_of[place]

    def _scale(self, choice: Choice) -> tuple[float, float]:
        """Both ends of the one scale of all heads."""
        weights = self._weights(choice["side"], choice["example"])
        signed = choice["side"] == "difference"
        top = float(choice["top"]) or scale_top(np.abs(weights))
        return (-top if signed else 0.0), top

    def _names(self, example: int, window: tuple[int, int, int, int], size: int) -> dict[str, Any]:
        """What rows and columns of a window stand for, ``size`` tokens each."""
        ours = self._sides["a"]
        labels, queries = ours.labels(example), ours.queries(example)
        rows = range(window[0], window[1], size)
        columns = range(window[2], window[3], size)
        last = [queries[min(r + size, window[1]) - 1] for r in rows]
        needs = ours.needs(example) if size == 1 else []
        return {
            "bin": size,
            "start": [window[0], window[2]],
            "row_labels": [
                _range_name(labels, [q for q in queries[r : min(r + size, window[1])] if q >= 0]) for r in rows
            ],
            "column_labels": [_range_name(labels, list(range(c, min(c + size, window[3])))) for c in columns],
            "queries": [queries[r] for r in rows],
            "query_tokens": last,
            "keys": list(columns),
            "needs": [[r - window[0], c - window[2]] for r, c in needs if r in rows and c in columns],
        }

    def _window(self, zoom: Any, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        if zoom is None:
            return 0, shape[0], 0, shape[1]
        try:
            top, bottom, left, right = (int(bound) for bound in zoom)
        except (TypeError, ValueError):
            raise ConfigError(f"zoom must be first and last row and column, got {zoom!r}") from None
        found = max(top, 0), min(bottom, shape[0]), max(left, 0), min(right, shape[1])
        if found[0] >= found[1] or found[2] >= found[3]:
            raise ConfigError(f"zoom {list(zoom)} lies outside the {shape[0]} queries and {shape[1]} keys")
        return found

    def reply(self, question: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The exact weight of one cell of a tile; of a binned one, the largest in it."""
        if question.get("ask") != "weight":
            return None
        weights = self._weights(self.choice["side"], self.choice["example"])
        size = self.tiles["bin"]
        try:
            block = weights[question["l"], question["h"]]
            rows = slice(question["r"] * size, (question["r"] + 1) * size)
            part = block[rows, question["c"] * size : (question["c"] + 1) * size]
            value = float(_patterns.binned(part, max(part.shape))[0, 0])
        except (KeyError, IndexError, TypeError):
            return None  # a page that is a moment behind
        return {"weight": None if np.isnan(value) else value}

    def offline(self, trait: str) -> Iterable[Choice]:
        """Every side and head of as many examples as a page bears, the one shown first."""
        ours = self._sides["a"]
        shape = self._weights("a", self.choice["example"]).shape
        n_bytes = int(np.prod(shape)) * len(self._sides) * (5 if max(shape) <= 64 else 1)
        n = max(1, min(N_OFFLINE, OFFLINE_BYTES // n_bytes))
        examples = list(dict.fromkeys([self.choice["example"], *self._examples()]))[:n]
        sides = [side for side, _ in self.fixed["sides"]]
        if trait == "tiles":
            return [{"example": e, "side": s} for e in examples for s in sides]
        if max(shape) > 64:  # the tiles' 8 bits have to do
            return [self.choice]
        pairs = [(layer, head) for layer in ours.layers for head in ours.heads]
        kept = [
            {"example": e, "side": s, "layer": x, "head": h, "zoom": None}
            for e in examples
            for s in sides
            for x, h in pairs
        ]
        return [self.choice, *kept]

    def still(self) -> str:
        """The grid, small; one head where one example is shown."""
        if self.choice["example"] != MEAN and self.choice["side"] != "difference":
            return super().still()
        packed_tiles = self.tiles["values"]
        tiles = np.frombuffer(packed_tiles["data"], dtype=np.uint8).reshape(packed_tiles["shape"])
        ours = self._sides["a"]
        captions = [[head_name((layer, head)) for head in ours.heads] for layer in ours.layers]
        scale = "diverging" if self.tiles["scale"]["low"] < 0 else "sequential"
        return _still.grid(tiles, captions, scale=scale, alt=self.alt, widget_id=self.fixed["id"])

    def figure(self) -> Figure:
        """What is on screen: the grid of heads and the chosen head."""
        choice = self.choice
        example, head = choice["example"], {"layer": choice["layer"], "head": choice["head"]}
        if choice["side"] == "difference":
            pair = [side.drawable(example) for side in self._sides.values()]
            chosen = None if example == MEAN else example
            found: Figure = figures.attention_difference(
                *pair, example=chosen, vmax=float(choice["top"]) or None, **head
            )
            return found
        side = self._sides[choice["side"]]
        if side.maps is None or example == MEAN:
            chosen = [(head["layer"], head["head"])]
            found = figures.head_grid(side.drawable(example), highlight=chosen, vmax=float(choice["top"]) or None)
        else:
            drawn = figures.head_view if choice["view"] == "lines" else figures.attention_heatmap
            found = drawn(side.maps, example=example, **head)
        return found


def _range_name(labels: list[str], tokens: list[int]) -> str:
    """The token's label, or the first's and last's of several."""
    if not tokens:
        return ""
    return labels[tokens[0]] if len(tokens) == 1 else f"{labels[tokens[0]]} … {labels[tokens[-1]]}"


def _plain(values: Array) -> list[list[float | None]]:
    """``values`` as JSON bears them: None for NaN."""
    return [[None if np.isnan(one) else float(one) for one in row] for row in values]

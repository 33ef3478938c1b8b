"""Captured attention patterns of a few examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float, Int
import torch
from torch import Tensor

from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.records import store
from fpt_viz.records._given import as_tensor, check_attention, check_shape, stacked
from fpt_viz.records._maps_file import load_maps, places_of, save_maps, taken
from fpt_viz.records.geometry import Geometry
from fpt_viz.records.packed import WEIGHT_ERRORS, PackedWeights, converted, stored_dtype, stored_note


@dataclass(frozen=True, kw_only=True)
class AttentionMaps:
    """Post-softmax attention of chosen layers, heads and query rows, with what is needed to read it."""

    weights: Float[Tensor, "layer batch head query key"]
    """Attention before dropout; each row sums to 1 over the real keys, and is 0 on padded ones.

    Stored as uint8, a :class:`fpt_viz.records.packed.PackedWeights`: to every function the float32 tensor that it
    stands for.
    """
    layers: tuple[int, ...]
    """The layer that each entry of axis 0 shows; zero-based."""
    heads: tuple[int, ...]
    """The head that each entry of axis 2 shows; zero-based."""
    queries: Int[Tensor, "batch query"]
    """The token that each row of axis 3 reads for; differs between examples where they are padded. -1: no token."""
    labels: tuple[tuple[str, ...], ...]
    """One string a token, for each example."""
    mask: Bool[Tensor, "batch key"]
    """True on real tokens, False on padding."""
    needs: Bool[Tensor, "batch query key"] | None = None
    """True where the row's query needs that token; None for a task that has no such truth."""
    causal: bool
    """True where a query sees only itself and earlier tokens."""
    geometry: Geometry = field(default_factory=Geometry)
    source: dict[str, Any] = field(default_factory=dict)
    """Where the maps come from: task, backbone, initialisation, run, step.

    ``precision`` where the forward pass was not in float32; ``stored_as`` and ``weight_error`` where the weights were
    not kept in it.
    """

    def __post_init__(self) -> None:
        n_layers, n_examples, n_heads, n_queries, n_keys = self.weights.shape
        expected = {
            "layers": (n_layers, len(self.layers)),
            "heads": (n_heads, len(self.heads)),
            "labels": (n_examples, len(self.labels)),
            "queries": ((n_examples, n_queries), tuple(self.queries.shape)),
            "mask": ((n_examples, n_keys), tuple(self.mask.shape)),
            "labels of an example": (n_keys, len(self.labels[0]) if self.labels else n_keys),
        }
        for name, (wanted, got) in expected.items():
            if wanted != got:
                raise RecordError(f"attention of shape {tuple(self.weights.shape)} wants {wanted} {name}, got {got}")

    def __repr__(self) -> str:
        axes = ("layers", "examples", "heads", "queries", "keys")
        sizes = ", ".join(f"{n} {axis}" for axis, n in zip(axes, self.weights.shape, strict=True))
        return f"AttentionMaps({sizes}; {self.source.get('task', 'no task')})"

    @property
    def precision(self) -> str:
        """In what the forward pass was computed."""
        return str(self.source.get("precision", "float32"))

    @property
    def weight_error(self) -> float:
        """How far storage may have moved a weight, in parts of its row's largest: 0 in float32, 1/255 in uint8.

        No row's sum is further from 1 because of it.
        """
        return float(self.source.get("weight_error", WEIGHT_ERRORS[self.stored_as]))

    @property
    def stored_as(self) -> torch.dtype:
        """What a weight is held and saved as."""
        return torch.uint8 if isinstance(self.weights, PackedWeights) else self.weights.dtype

    def to_dtype(self, dtype: torch.dtype | str) -> AttentionMaps:
        """The same maps held and saved as ``dtype``; beside float32, halves take half the bytes and uint8 a quarter.

        Raises:
            ConfigError: Weights cannot be stored so.
        """
        wanted = stored_dtype(dtype)
        weights = converted(self.weights, wanted)
        error = self.weight_error + (0.0 if wanted == self.stored_as else WEIGHT_ERRORS[wanted])
        return replace(self, weights=weights, source=self.source | stored_note(wanted, error))

    def select(
        self,
        *,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        examples: Sequence[int] | None = None,
    ) -> AttentionMaps:
        """The maps of some layers, heads and examples alone, in the order given; None for all.

        Args:
            layers: By their numbers in the model.
            heads: Likewise.
            examples: From 0.

        Raises:
            ConfigError: One of them was not captured.
        """
        at = places_of(self.layers, self.heads, len(self.labels), (layers, examples, heads))
        weights = self.weights
        if isinstance(weights, PackedWeights):
            weights = PackedWeights(*(taken(tensor, at) for tensor in (weights.codes, weights.largest)))
        else:
            weights = taken(weights, at)
        _, kept, _ = at
        return replace(
            self,
            weights=weights,
            layers=tuple(self.layers[i] for i in at[0]),
            heads=tuple(self.heads[i] for i in at[2]),
            queries=self.queries[kept],
            labels=tuple(self.labels[i] for i in kept),
            mask=self.mask[kept],
            needs=None if self.needs is None else self.needs[kept],
        )

    @classmethod
    def from_arrays(
        cls,
        weights: Any,
        labels: Sequence[str] | Sequence[Sequence[str]] | None = None,
        *,
        mask: Any = None,
        needs: Any = None,
        causal: bool | None = None,
        source: dict[str, Any] | None = None,
    ) -> AttentionMaps:
        """Maps of attention from elsewhere, checked: all queries of whole patterns.

        Args:
            weights: Post-softmax attention ``[layer batch head query key]`` of any array library, or a sequence of one
                ``[batch head query key]`` a layer, as transformers returns it.
            labels: One string a token, or such a list for each example; None for numbers.
            mask: ``[batch key]``, True on real tokens; None where there is no padding.
            needs: ``[batch query key]``, True where the query needs the key; None where it is not known.
            causal: Whether a query sees only itself and earlier tokens; None finds out from the weights.
            source: Where they come from, for captions.

        Raises:
            RecordError: What is given is no attention: nothing, axes that disagree, rows that do not sum to 1, or
                padding that is attended to.
        """
        whole = stacked(weights)
        n_layers, n_examples, n_heads, n_queries, n_keys = whole.shape
        if n_queries != n_keys:
            raise RecordError(
                f"attention of shape {tuple(whole.shape)} has {n_queries} queries and {n_keys} keys: whole patterns "
                "are wanted, one query a key; build AttentionMaps itself for chosen rows, and say which they are"
            )
        shown = list(map(str, range(n_keys))) if labels is None else list(labels)
        per_example = shown if shown and not isinstance(shown[0], str) else [shown] * n_examples
        real = torch.ones(n_examples, n_keys, dtype=torch.bool) if mask is None else as_tensor(mask).bool()
        needed = None if needs is None else as_tensor(needs).bool()
        check_shape("mask", real, (n_examples, n_keys))
        if needed is not None:
            check_shape("needs", needed, (n_examples, n_queries, n_keys))
        maps = cls(
            weights=whole,
            layers=tuple(range(n_layers)),
            heads=tuple(range(n_heads)),
            queries=torch.arange(n_keys).expand(n_examples, -1).masked_fill(~real, -1),
            labels=tuple(tuple(map(str, one)) for one in per_example),
            mask=real,
            needs=needed,
            causal=not bool(whole.triu(1).any()) and n_keys > 1 if causal is None else causal,
            source=dict(source or {}),
        )
        check_attention(maps)
        return maps

    def to_bertviz(self, example: int = 0) -> dict[str, Any]:
        """Arguments for BertViz: ``bertviz.head_view(**maps.to_bertviz())``, and ``model_view`` alike.

        ``attention`` is a list of one ``[1 head query key]`` a captured layer, ``tokens`` the labels; padding is left
        out. BertViz numbers what it gets from 0, whichever layers were captured.

        Raises:
            ConfigError: No such example, or not every query was captured.
        """
        weights, tokens = self._whole(example)
        return {"attention": [layer[None] for layer in weights], "tokens": tokens}

    def to_circuitsvis(self, layer: int | None = None, example: int = 0) -> dict[str, Any]:
        """Arguments for CircuitsVis: ``circuitsvis.attention.attention_heads(**maps.to_circuitsvis(3))``.

        ``attention`` is ``[head query key]`` of one captured layer, the first unless told, ``tokens`` the labels.

        Raises:
            ConfigError: No such layer or example, or not every query was captured.
        """
        layer = self.layers[0] if layer is None else layer
        if layer not in self.layers:
            raise ConfigError(f"layer {layer} was not captured: there are {', '.join(map(str, self.layers))}")
        weights, tokens = self._whole(example)
        return {"tokens": tokens, "attention": weights[self.layers.index(layer)]}

    def _whole(self, example: int) -> tuple[Float[Tensor, "layer head query key"], list[str]]:
        """The whole patterns of one example without its padding, and its labels."""
        n_examples = self.weights.shape[1]
        if not 0 <= example < n_examples:
            raise ConfigError(f"no example {example}: {n_examples} were captured, numbered from 0")
        real = self.mask[example]
        tokens = torch.arange(len(real))[real]
        queries = self.queries[example]
        if queries[queries >= 0].tolist() != tokens.tolist():
            raise ConfigError(
                f"{int((queries >= 0).sum())} of {len(tokens)} queries were captured, the other tool wants all: "
                "capture_attention(..., queries=None)"
            )
        weights = self.weights[:, example][:, :, queries >= 0][..., real]
        return weights, [self.labels[example][int(token)] for token in tokens]

    def check_comparable(self, other: AttentionMaps) -> None:
        """Raise unless ``other`` shows the same layers, heads, queries and examples, so that they can be compared.

        Raises:
            RecordError: They differ; the message says in what, with both values.
        """
        pairs = {
            "layers": (self.layers, other.layers),
            "heads": (self.heads, other.heads),
            "shape": (tuple(self.weights.shape), tuple(other.weights.shape)),
            "tokens": (self.labels, other.labels),
            "queries": (self.queries.tolist(), other.queries.tolist()),
            "examples": (self.source.get("inputs"), other.source.get("inputs")),
        }
        for what, (ours, theirs) in pairs.items():
            if ours != theirs:
                raise RecordError(
                    f"these maps show other {what}, so they cannot be compared: {_short(ours)} and {_short(theirs)}; "
                    "capture both with the same batch, layers, heads and queries"
                )

    def save(self, path: str | Path) -> None:
        """Write everything into one safetensors file, atomically; weights as they are held."""
        save_maps(self, Path(path))
        store.note(self, Path(path))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        examples: Sequence[int] | None = None,
    ) -> AttentionMaps:
        """The maps that :meth:`save` wrote; some layers, heads or examples alone where they are named.

        Without them, all of the file is checked, and its weights are mapped into memory, not read into it. With them,
        only the pieces of a MiB that they lie in are read and checked, however large the file is.

        Args:
            path: The file.
            layers: By their numbers in the model.
            heads: Likewise.
            examples: From 0.

        Raises:
            RecordError: The file is missing, damaged, or holds something else.
            ConfigError: It does not hold such a layer, head or example.
        """
        wanted = (layers, examples, heads)
        found = cls(**load_maps(Path(path), wanted))
        return store.note(found, Path(path)) if wanted == (None, None, None) else found


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

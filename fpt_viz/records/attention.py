"""Captured attention patterns of a few examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float, Int
import numpy as np
import torch
from torch import Tensor

from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.records import store
from fpt_viz.records.geometry import Geometry

KIND = "attention_maps"
ROW_TOLERANCE = 1e-3
"""How far from 1 a row of somebody else's attention may sum, which may be in half precision."""


@dataclass(frozen=True, kw_only=True)
class AttentionMaps:
    """Post-softmax attention of chosen layers, heads and query rows, with what is needed to read it."""

    weights: Float[Tensor, "layer batch head query key"]
    """Attention before dropout; each row sums to 1 over the real keys, and is 0 on padded ones."""
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
    """Where the maps come from: task, backbone, initialisation, run, step."""

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
        stacked = _stacked(weights)
        n_layers, n_examples, n_heads, n_queries, n_keys = stacked.shape
        if n_queries != n_keys:
            raise RecordError(
                f"attention of shape {tuple(stacked.shape)} has {n_queries} queries and {n_keys} keys: whole patterns "
                "are wanted, one query a key; build AttentionMaps itself for chosen rows, and say which they are"
            )
        shown = list(map(str, range(n_keys))) if labels is None else list(labels)
        per_example = shown if shown and not isinstance(shown[0], str) else [shown] * n_examples
        real = torch.ones(n_examples, n_keys, dtype=torch.bool) if mask is None else _tensor(mask).bool()
        needed = None if needs is None else _tensor(needs).bool()
        _check_shape("mask", real, (n_examples, n_keys))
        if needed is not None:
            _check_shape("needs", needed, (n_examples, n_queries, n_keys))
        maps = cls(
            weights=stacked,
            layers=tuple(range(n_layers)),
            heads=tuple(range(n_heads)),
            queries=torch.arange(n_keys).expand(n_examples, -1).masked_fill(~real, -1),
            labels=tuple(tuple(map(str, one)) for one in per_example),
            mask=real,
            needs=needed,
            causal=not bool(stacked.triu(1).any()) and n_keys > 1 if causal is None else causal,
            source=dict(source or {}),
        )
        _check_attention(maps)
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
        """Write everything into one safetensors file, atomically."""
        tensors = {"weights": self.weights, "queries": self.queries, "mask": self.mask}
        if self.needs is not None:
            tensors["needs"] = self.needs
        fields = {
            "layers": self.layers,
            "heads": self.heads,
            "labels": self.labels,
            "causal": self.causal,
            "geometry": self.geometry.to_json(),
            "source": self.source,
        }
        store.write_tensors(Path(path), tensors, KIND, fields)
        store.note(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> AttentionMaps:
        """The maps that :meth:`save` wrote."""
        tensors, fields = store.read_tensors(Path(path), KIND)
        try:
            found = cls(
                weights=tensors["weights"],
                queries=tensors["queries"],
                mask=tensors["mask"],
                needs=tensors.get("needs"),
                layers=tuple(fields["layers"]),
                heads=tuple(fields["heads"]),
                labels=tuple(tuple(row) for row in fields["labels"]),
                causal=fields["causal"],
                geometry=Geometry.from_json(fields["geometry"]),
                source=fields["source"],
            )
        except KeyError as error:
            raise RecordError(f"{path} lacks {error}: it is no whole {KIND} file") from error
        return store.note(found, Path(path))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _tensor(array: Any) -> Tensor:
    """``array`` of any library as a tensor on the CPU."""
    if isinstance(array, Tensor):
        return array.detach().cpu()
    try:
        return torch.as_tensor(np.asarray(array))
    except (TypeError, ValueError) as error:
        raise RecordError(f"{type(array).__name__} is no array of numbers: {error}") from error


def _stacked(weights: Any) -> Float[Tensor, "layer batch head query key"]:
    """``weights`` as one tensor; a sequence holds one tensor a layer."""
    if isinstance(weights, Sequence):
        if not weights or weights[0] is None:
            raise RecordError(
                "there is no attention in what was given: a fused kernel never forms it, so output_attentions returns "
                'nothing; use capture_attention, or set_attn_implementation("eager") before the forward pass'
            )
        layers = [_tensor(layer) for layer in weights]
        shapes = {tuple(layer.shape) for layer in layers}
        if len(shapes) > 1:
            raise RecordError(f"the layers' attention has several shapes, wanted one: {sorted(shapes)}")
        found = torch.stack(layers)
    else:
        found = _tensor(weights)
    if found.ndim != 5 or not found.numel():
        raise RecordError(
            f"attention of shape {tuple(found.shape)} was given, wanted [layer batch head query key], none of them 0"
        )
    return found if found.is_floating_point() else found.float()


def _check_shape(name: str, found: Tensor, wanted: tuple[int, ...]) -> None:
    if tuple(found.shape) != wanted:
        raise RecordError(f"{name} of shape {tuple(found.shape)} was given beside attention that wants {wanted}")


def _check_attention(maps: AttentionMaps) -> None:
    """Raise where rows of real queries do not sum to 1 or padding is attended to."""
    real = (maps.queries >= 0)[None, :, None]
    off = (maps.weights.float().sum(-1) - 1).abs().masked_fill(~real, 0.0).max()
    if not off <= ROW_TOLERANCE:  # also where it is NaN
        raise RecordError(
            f"rows of this attention sum to 1 only within {float(off):.2g}, wanted {ROW_TOLERANCE:g}: attention in "
            "training mode is after dropout, so call model.eval() first; scores before the softmax are no attention"
        )
    padding = ~maps.mask[None, :, None, None]
    on_padding = float(maps.weights.masked_fill(~(padding & real[..., None]), 0.0).max())
    if on_padding > ROW_TOLERANCE:
        raise RecordError(
            f"padding receives up to {on_padding:.2g} of a row's attention: pass the mask to the model that is captured"
        )

"""Captured attention patterns of a few examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from fpt_viz.errors import RecordError
from fpt_viz.records import store
from fpt_viz.records.geometry import Geometry

KIND = "attention_maps"


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

    @classmethod
    def load(cls, path: str | Path) -> AttentionMaps:
        """The maps that :meth:`save` wrote."""
        tensors, fields = store.read_tensors(Path(path), KIND)
        try:
            return cls(
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

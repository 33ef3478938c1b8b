"""Routing scores of every head in groups of queries: by class, by right and wrong answers, by position."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
import torch
from torch import Tensor

from fpt_viz.errors import RecordError
from fpt_viz.records import store

if TYPE_CHECKING:
    import pandas as pd

KIND = "routing_breakdown"


@dataclass(frozen=True, kw_only=True)
class RoutingBreakdown:
    """Routing scores of every head over groups of the scored queries of one split; NaN where a group holds none."""

    kinds: tuple[str, ...]
    """What each group divides by: ``"all"``, ``"class"``, ``"answer"`` or ``"position"``."""
    names: tuple[str, ...]
    """Which group of its kind: ``"1"``, ``"right"`` or ``"wrong"``, or the name of a token's place."""
    n_scored: tuple[int, ...]
    """Scored queries in each group."""
    score: Float[Tensor, "group layer head"]
    """Mean attention on the tokens that the query needs other than itself, 0 to 1."""
    interval: Float[Tensor, "group layer head 2"]
    """95 % bootstrap interval over examples: low, high."""
    uniform: Float[Tensor, " group"]
    """The score of a head that attends to every visible key alike."""
    permuted: Float[Tensor, "group layer head"]
    """The same attention scored against the needs of the example's other scored queries; NaN where there is none."""
    n_examples: int
    split: str
    seed: int
    source: dict[str, Any] = field(default_factory=dict)

    def group(self, kind: str, name: str = "") -> int:
        """The index of a group, such as ``group("answer", "wrong")``."""
        for index, found in enumerate(zip(self.kinds, self.names, strict=True)):
            if found == (kind, name):
                return index
        known = ", ".join(f"{k} {n}".strip() for k, n in zip(self.kinds, self.names, strict=True))
        raise RecordError(f"no group {kind} {name}: there are {known}")

    def to_pandas(self) -> pd.DataFrame:
        """One row a group and head: by, group, n_scored, layer, head, score, its interval, uniform, permuted."""
        import pandas as pd

        n_groups, n_layers, n_heads = self.score.shape
        index = torch.cartesian_prod(torch.arange(n_groups), torch.arange(n_layers), torch.arange(n_heads))
        groups = index[:, 0].tolist()
        low, high = self.interval.flatten(0, 2).T.tolist()
        table: dict[str, Any] = {
            "by": [self.kinds[g] for g in groups],
            "group": [self.names[g] for g in groups],
            "n_scored": [self.n_scored[g] for g in groups],
            "layer": index[:, 1].tolist(),
            "head": index[:, 2].tolist(),
            "score": self.score.flatten().tolist(),
            "interval_low": low,
            "interval_high": high,
            "uniform": self.uniform[index[:, 0]].tolist(),
            "permuted": self.permuted.flatten().tolist(),
        }
        return pd.DataFrame(table)

    def __repr__(self) -> str:
        n_groups, n_layers, n_heads = self.score.shape
        return (
            f"RoutingBreakdown({n_groups} groups, {n_layers} layers x {n_heads} heads, "
            f"{self.n_examples} {self.split} examples)"
        )

    def save(self, path: str | Path) -> None:
        """Write everything into one safetensors file, atomically."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        plain = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        store.write_tensors(Path(path), tensors, KIND, plain)

    @classmethod
    def load(cls, path: str | Path) -> RoutingBreakdown:
        """The breakdown that :meth:`save` wrote."""
        tensors, plain = store.read_tensors(Path(path), KIND)
        try:
            for name in ("kinds", "names", "n_scored"):
                plain[name] = tuple(plain[name])
            return cls(**(plain | tensors))
        except (KeyError, TypeError) as error:
            raise RecordError(f"{path} is no whole {KIND} file: {error}") from error

"""What is known of each head over a data set."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from fpt_viz.errors import RecordError
from fpt_viz.records import store
from fpt_viz.records.geometry import Geometry

if TYPE_CHECKING:
    import pandas as pd

KIND = "head_statistics"


@dataclass(frozen=True, kw_only=True)
class HeadStatistics:
    """Statistics of every head over ``n_examples`` examples of one split. Padding counts nowhere."""

    mean_pattern: Float[Tensor, "layer head query key"]
    """Mean post-softmax attention, over the examples in which both query and key are real tokens."""
    entropy: Float[Tensor, "layer head"]
    """Mean entropy of an attention row, in bits; 0 for one key, log2(n) for n keys alike."""
    distance: Float[Tensor, "layer head"]
    """Mean attention-weighted distance between query and key, in tokens."""
    sink_mass: Float[Tensor, "layer head"]
    """Mean attention on the first token, 0 to 1."""
    routing_score: Float[Tensor, "layer head"] | None = None
    """Mean attention on the tokens that the query needs other than itself, 0 to 1; None where the task has no needs."""
    routing_interval: Float[Tensor, "layer head 2"] | None = None
    """95 % bootstrap interval of ``routing_score`` over examples: low, high."""
    uniform: float | None = None
    """The score of a head that attends to every visible key alike."""
    permuted: Float[Tensor, "layer head"] | None = None
    """The same attention scored against the needs of the example's other scored queries; None for one scored query."""
    queries: tuple[int, ...]
    """The tokens whose rows were read: axis 2 of ``mean_pattern``."""
    labels: tuple[str, ...]
    """One name a token, of its place only (``"a0"``), since values differ between examples."""
    n_examples: int
    """Distinct examples used; fewer than asked for where the split holds fewer."""
    split: str
    seed: int
    causal: bool
    geometry: Geometry = field(default_factory=Geometry)
    source: dict[str, Any] = field(default_factory=dict)
    """Where the statistics come from: task, backbone, initialisation, run, step."""

    def ranking(self) -> list[tuple[int, int]]:
        """The heads as (layer, head), highest routing score first; an error for a task without needs."""
        if self.routing_score is None:
            raise RecordError(
                f"{self.source.get('task', 'this task')} has no needs, so its heads have no routing score"
            )
        n_heads = self.routing_score.shape[1]
        order = self.routing_score.flatten().argsort(descending=True, stable=True)
        return [divmod(int(i), n_heads) for i in order]

    def to_pandas(self) -> pd.DataFrame:
        """One row a head: layer, head, entropy, distance, sink_mass and, where there are any, the routing scores."""
        import pandas as pd

        n_layers, n_heads = self.entropy.shape
        table: dict[str, Any] = {
            "layer": [i for i in range(n_layers) for _ in range(n_heads)],
            "head": list(range(n_heads)) * n_layers,
            "entropy": self.entropy.flatten().tolist(),
            "distance": self.distance.flatten().tolist(),
            "sink_mass": self.sink_mass.flatten().tolist(),
        }
        if self.routing_score is not None and self.routing_interval is not None:
            table["routing_score"] = self.routing_score.flatten().tolist()
            table["interval_low"], table["interval_high"] = self.routing_interval.flatten(0, 1).T.tolist()
            table["uniform"] = self.uniform
        if self.permuted is not None:
            table["permuted"] = self.permuted.flatten().tolist()
        return pd.DataFrame(table)

    def __repr__(self) -> str:
        n_layers, n_heads = self.entropy.shape
        return f"HeadStatistics({n_layers} layers x {n_heads} heads, {self.n_examples} {self.split} examples)"

    def save(self, path: str | Path) -> None:
        """Write everything into one safetensors file, atomically."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        plain = {name: v for name, v in values.items() if not isinstance(v, Tensor)} | {
            "geometry": self.geometry.to_json()
        }
        store.write_tensors(Path(path), tensors, KIND, plain)
        store.note(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> HeadStatistics:
        """The statistics that :meth:`save` wrote."""
        tensors, plain = store.read_tensors(Path(path), KIND)
        try:
            plain["geometry"] = Geometry.from_json(plain["geometry"])
            plain["queries"], plain["labels"] = tuple(plain["queries"]), tuple(plain["labels"])
            return store.note(cls(**(plain | tensors)), Path(path))
        except (KeyError, TypeError) as error:
            raise RecordError(f"{path} is no whole {KIND} file: {error}") from error

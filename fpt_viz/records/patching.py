"""What patching changed: how far activations of one run, written into another, lead from it to the first."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from fpt_viz.errors import RecordError
from fpt_viz.records import store

if TYPE_CHECKING:
    import pandas as pd

KIND = "patching_effects"


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchingEffects:
    """The metric of patched runs on a scale where the corrupted run is 0 and the clean run is 1.

    A value is a ratio of means over examples: (patched - corrupted) / (clean - corrupted). Nothing holds it between 0
    and 1.
    """

    values: Float[Tensor, "*cell"]
    """NaN where there is nothing to patch: no example with that token, or no path."""
    intervals: Float[Tensor, "*cell 2"]
    """95 % bootstrap intervals over examples, both means of the ratio resampled together: low, high."""
    axes: tuple[str, ...]
    """What each axis of ``values`` is: layer, head, kv_head, position; or sender and receiver."""
    labels: tuple[tuple[str, ...], ...]
    """Of each axis, its entries' names: layers and heads by number, tokens (``"a0"``), ends of paths (``"L3H5"``)."""
    site: str
    """What was patched, such as ``"z"``; of paths what they lead into: ``"q"``, ``"q k"`` or ``"output"``."""
    metric: str
    corruption: str
    direction: str
    """``"denoise"``: clean activations in the corrupted run. ``"noise"``: the reverse. See :attr:`unpatched`."""
    clean: float
    """The metric on the clean run, its own unit."""
    corrupted: float
    """The metric on the corrupted run."""
    split: str
    n_examples: int
    """Examples used: those on which the two runs differ."""
    n_dropped: int
    """Examples left out since the metric is the same on both runs."""
    mlps: str = ""
    """Of paths: ``"frozen"`` or ``"recomputed"``."""
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if tuple(self.values.shape) != tuple(map(len, self.labels)) or len(self.axes) != len(self.labels):
            raise RecordError(
                f"patching effects of shape {tuple(self.values.shape)} want as many labels, got "
                f"{tuple(map(len, self.labels))} for the axes {', '.join(self.axes)}"
            )

    @property
    def unpatched(self) -> float:
        """The value of a patch without effect."""
        return 1.0 if self.direction == "noise" else 0.0

    @property
    def change(self) -> Float[Tensor, "*cell"]:
        """``values`` minus that of a patch without effect: signed, 0 for nothing, above 0 towards the clean run."""
        return self.values - self.unpatched

    def to_pandas(self) -> pd.DataFrame:
        """One row a cell: its place on each axis, value, low and high."""
        import pandas as pd

        places = list(product(*self.labels))
        table: dict[str, Any] = {}
        for i, axis in enumerate(self.axes):
            names = [place[i] for place in places]
            table[axis] = [int(name) for name in names] if axis in ("layer", "head", "kv_head") else names
        table["value"] = self.values.flatten().tolist()
        table["low"], table["high"] = self.intervals.reshape(-1, 2).T.tolist()
        return pd.DataFrame(table)

    def __repr__(self) -> str:
        shape = " x ".join(f"{n} {axis}s" for n, axis in zip(self.values.shape, self.axes, strict=True))
        return f"PatchingEffects({self.site}, {shape}, {self.direction}, {self.n_examples} {self.split} examples)"

    def save(self, path: str | Path) -> None:
        """Write everything into one safetensors file, atomically."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
        store.write_tensors(Path(path), tensors, KIND, {name: v for name, v in found.items() if name not in tensors})
        store.note(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> PatchingEffects:
        """The effects that :meth:`save` wrote."""
        tensors, plain = store.read_tensors(Path(path), KIND)
        try:
            plain["axes"], plain["labels"] = tuple(plain["axes"]), tuple(map(tuple, plain["labels"]))
            return store.note(cls(**(plain | tensors)), Path(path))
        except (KeyError, TypeError) as error:
            raise RecordError(f"{path} is no whole {KIND} file: {error}") from error

"""Records of tensors and plain fields that are saved as one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import Tensor

from fpt_viz.errors import RecordError
from fpt_viz.records import store

if TYPE_CHECKING:
    import pandas as pd

Record = TypeVar("Record", bound="Saved")  # not Self: run-time shape checks cannot read it on a method


class Saved:
    """A frozen dataclass whose fields are tensors and plain data."""

    KIND: ClassVar[str]

    def save(self, path: str | Path) -> None:
        """Write everything into one safetensors file, atomically."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]  # a dataclass
        tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
        plain = {name: value for name, value in found.items() if name not in tensors}
        store.write_tensors(Path(path), tensors, self.KIND, plain)
        store.note(self, Path(path))

    @classmethod
    def load(cls: type[Record], path: str | Path) -> Record:
        """What :meth:`save` wrote."""
        tensors, plain = store.read_tensors(Path(path), cls.KIND)
        try:
            found = cls(**{name: _tuples(value) for name, value in plain.items()}, **tensors)
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(f"{path} is no whole {cls.KIND} file: {error}") from error
        return store.note(found, Path(path))


def _tuples(value: Any) -> Any:
    """``value`` with each list as a tuple, since JSON knows no tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def by_cell(axes: Mapping[str, Sequence[Any]], columns: Mapping[str, Tensor]) -> pd.DataFrame:
    """One row for each combination of the labels of ``axes``, the last axis fastest.

    Args:
        axes: The labels of each axis, by name.
        columns: By name, tensors with these axes, or that can be expanded to them.
    """
    import pandas as pd

    sizes = [len(labels) for labels in axes.values()]
    labels = list(product(*axes.values()))
    table: dict[str, Any] = {name: [cell[i] for cell in labels] for i, name in enumerate(axes)}
    return pd.DataFrame(table | {name: values.expand(sizes).flatten().tolist() for name, values in columns.items()})

"""Records of tensors and plain fields that are saved as one safetensors file."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from fpt_viz.errors import RecordError
from fpt_viz.records import store

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

    @classmethod
    def load(cls: type[Record], path: str | Path) -> Record:
        """What :meth:`save` wrote."""
        tensors, plain = store.read_tensors(Path(path), cls.KIND)
        try:
            return cls(**{name: _tuples(value) for name, value in plain.items()}, **tensors)
        except (KeyError, TypeError) as error:
            raise RecordError(f"{path} is no whole {cls.KIND} file: {error}") from error


def _tuples(value: Any) -> Any:
    """``value`` with each list as a tuple, since JSON knows no tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value

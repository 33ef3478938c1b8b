"""Every tensor of a model, and the checksums that prove which of them did not move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpt_viz.errors import RecordError
from fpt_viz.records import store

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """One tensor of a model."""

    name: str
    group: str
    shape: tuple[int, ...]
    trained: bool
    sha256: str | None
    """Of the bytes of a frozen tensor; None for a trained one."""

    @property
    def n_values(self) -> int:
        """The number of values in the tensor."""
        n = 1
        for size in self.shape:
            n *= size
        return n


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Every tensor of a model: trained, or frozen with the checksum that proves it did not move."""

    rows: tuple[LedgerRow, ...]
    backbone: dict[str, Any]
    """Where the frozen weights come from: name, initialisation, id, revision, file checksum, licence, notes."""

    def counts(self) -> dict[str, int]:
        """The number of values by group, trained and frozen together."""
        counts: dict[str, int] = {}
        for row in self.rows:
            counts[row.group] = counts.get(row.group, 0) + row.n_values
        return counts

    @property
    def n_trained(self) -> int:
        """The number of trained values."""
        return sum(row.n_values for row in self.rows if row.trained)

    @property
    def n_total(self) -> int:
        """The number of values, trained and frozen."""
        return sum(row.n_values for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Plain data that :meth:`from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Ledger:
        """The ledger that :meth:`to_json` wrote."""
        rows = tuple(LedgerRow(**{**row, "shape": tuple(row["shape"])}) for row in data["rows"])
        return cls(rows=rows, backbone=data["backbone"])

    @classmethod
    def load(cls, path: Path) -> Ledger:
        """The ledger in the file ``path``.

        Raises:
            RecordError: It is missing, or no whole ledger.
        """
        data = store.read_json(path)
        try:
            return cls.from_json(data)
        except (KeyError, TypeError) as error:
            raise RecordError(
                f"{path} is no whole ledger ({type(error).__name__}: {error}); wanted rows of tensors, and a backbone"
            ) from error

    def to_pandas(self) -> pd.DataFrame:
        """One row a tensor."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.rows])

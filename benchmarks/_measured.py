"""One measured number, and the file of them that ``make bench`` writes and ``make bench-compare`` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
import json
from pathlib import Path
from typing import Any, Literal

SCHEMA = "fpt_viz.benchmarks.1"

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A number that a benchmark found."""

    name: str
    """What was measured; the same in every run of the benchmark, since it is compared by this."""
    value: float
    unit: str
    """As it is printed: ``s``, ``GB/s``, ``x a forward pass``."""
    better: Better = "lower"
    """``neither`` where it only says how large something is."""
    note: str = ""
    """What a reader should see beside it; not compared."""

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.name:<72} {digits(self.value):>10}{unit}{'   ' if self.note else ''}{self.note}"


def digits(value: float) -> str:
    """``value`` with three digits that count, and no exponent where it is of a common size."""
    if value == 0 or not 1e-4 <= abs(value) < 1e15:
        return f"{value:.3g}"
    n_decimals = max(0, 2 - len(f"{abs(value):.0f}") + 1) if abs(value) >= 1 else 2 - _exponent(value)
    return f"{value:,.{n_decimals}f}"


def _exponent(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


class BenchmarkFileError(ValueError):
    """A file that holds no results; the message is one line for the reader."""


def save(
    path: Path, machine: Mapping[str, Any], found: Mapping[str, Sequence[Measured]], failed: Mapping[str, str]
) -> None:
    """Write the numbers of each benchmark, and why those that failed did, as JSON."""
    results = [{"benchmark": name, **asdict(measured)} for name, many in found.items() for measured in many]
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"schema": SCHEMA, "machine": dict(machine), "failed": dict(failed), "results": results}
    path.write_text(json.dumps(told, indent=1) + "\n")


def load(path: Path) -> tuple[dict[str, Any], dict[tuple[str, str], Measured]]:
    """The machine of a file that :func:`save` wrote, and its numbers by benchmark and name.

    Raises:
        BenchmarkFileError: There is no such file, or it is another kind of file.
    """
    try:
        told = json.loads(path.read_text())
    except OSError as error:
        raise BenchmarkFileError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BenchmarkFileError(f"{path} is no JSON: {error}") from error
    schema = told.get("schema") if isinstance(told, dict) else None
    if schema != SCHEMA:
        raise BenchmarkFileError(f"{path} is not what `make bench` writes: wanted schema {SCHEMA!r}, got {schema!r}")
    try:
        results = {(row.pop("benchmark"), row["name"]): Measured(**row) for row in told["results"]}
        return dict(told["machine"]), {key: _checked(measured) for key, measured in results.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        kind = type(error).__name__
        raise BenchmarkFileError(f"{path} says schema {SCHEMA!r}, but a result is not whole: {kind} {error}") from error


def _checked(measured: Measured) -> Measured:
    if isinstance(measured.value, bool) or not isinstance(measured.value, int | float):
        raise TypeError(f"{measured.name}: value is {measured.value!r}, wanted a number")
    return measured

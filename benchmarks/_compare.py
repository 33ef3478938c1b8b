"""Two files of ``make bench`` side by side: ``python -m benchmarks._compare OLD.json NEW.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
import os
from pathlib import Path
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._measured import BenchmarkFileError, Measured, digits, load

SAME = ("device", "processor", "cores", "threads", "clock", "torch")
"""Where two machines differ in one of these, a ratio says little of the code between them."""
NOISE = 0.05
"""A ratio within this of 1 is called neither faster nor slower."""
BUSY = 0.5
"""Other programs' load a core from which on seconds are not to be trusted."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One number in both files."""

    benchmark: str
    before: Measured
    after: Measured

    @property
    def ratio(self) -> float | None:
        """After over before; None where that has no meaning."""
        return self.after.value / self.before.value if self.before.value else None

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or nothing where it is within the noise or only a size."""
        ratio, better = self.ratio, self.after.better
        if ratio is None or better == "neither" or abs(ratio - 1) <= NOISE:
            return ""
        return "better" if (ratio < 1) == (better == "lower") else "worse"


def compare(old: Path, new: Path) -> tuple[list[str], list[Change]]:
    """Warnings, and the numbers that both files hold, in the order of the newer.

    Raises:
        BenchmarkFileError: A file cannot be read, or they have no number in common.
    """
    (machine_a, before), (machine_b, after) = load(old), load(new)
    changes = [
        Change(benchmark=key[0], before=before[key], after=measured)
        for key, measured in after.items()
        if key in before and before[key].unit == measured.unit
    ]
    if not changes:
        raise BenchmarkFileError(
            f"{old} and {new} have no number in common: the first holds {_benchmarks(before)}, the second "
            f"{_benchmarks(after)}"
        )
    alone = len(before.keys() ^ after.keys()) + len(before.keys() & after.keys()) - len(changes)
    warned = [*_differences(machine_a, machine_b), *_loads({old: machine_a, new: machine_b})]
    if alone:
        warned.append(f"{alone} numbers are in one of the files only, or in another unit, and are left out")
    return warned, changes


def _benchmarks(results: Mapping[tuple[str, str], Measured]) -> str:
    return ", ".join(sorted({benchmark for benchmark, _ in results})) or "none"


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in SAME:
        if before.get(name) != after.get(name):
            yield f"{name} differs: {before.get(name)} before, {after.get(name)} after"


def _loads(machines: Mapping[Path, Mapping[str, Any]]) -> Iterator[str]:
    for path, machine in machines.items():
        load_average, cores = machine.get("load_average"), machine.get("cores")
        if load_average is not None and cores and load_average > BUSY * cores:
            yield f"{path} was begun beside other programs: a load of {load_average:.1f} on {cores} cores"


def table(changes: list[Change]) -> Table:
    """``changes`` as a table for the terminal."""
    found = Table("benchmark", "what", "before", "after", "after / before", "")
    for column in found.columns[2:5]:
        column.justify = "right"
    for change in changes:
        style = {"better": "green", "worse": "red"}.get(change.verdict, "")
        ratio = "" if change.ratio is None else f"{change.ratio:.2f} x"
        before, after = (f"{digits(one.value)} {one.unit}".strip() for one in (change.before, change.after))
        found.add_row(change.benchmark, change.after.name, before, after, ratio, change.verdict, style=style)
    return found


def main(arguments: list[str]) -> int:
    """Print the comparison; 2 and one line on stderr where it cannot be made."""
    if len(arguments) != 2 or not all(arguments):
        print("two files are compared: make bench-compare A=old.json B=new.json", file=sys.stderr)
        return 2
    try:
        warned, changes = compare(*map(Path, arguments))
    except BenchmarkFileError as error:
        print(error, file=sys.stderr)
        return 2
    piped = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140
    console = Console(width=piped, highlight=False)
    console.print(table(changes))
    for line in warned:
        console.print(f"warning: {line}", style="yellow", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

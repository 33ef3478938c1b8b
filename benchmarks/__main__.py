"""Run benchmarks by name, or all of them: ``python -m benchmarks [--json FILE] startup training``."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
import sys
import traceback

from benchmarks import _machine
from benchmarks._measured import Measured, save

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    """Print what was measured, one block a benchmark, and write its numbers as JSON after each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=str(__doc__).partition(":")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(NAMES)}")
    parser.add_argument("--json", type=Path, help="the file to write; by default one named by the time in results/")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.names) - set(NAMES))
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    path = given.json or RESULTS / f"{datetime.now(UTC):%Y-%m-%d_%H%M%S}.json"
    machine = _machine.describe()
    print(", ".join(f"{name} {value}" for name, value in machine.items() if value))
    found: dict[str, list[Measured]] = {}
    failed: dict[str, str] = {}
    for name in given.names or NAMES:
        found[name] = []
        try:
            _run(name, found[name])
        except Exception as error:  # the others' numbers are not lost for one that fails
            traceback.print_exc()
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        save(path, machine, found, failed)
    print(f"\nwritten to {path}; compare with another by make bench-compare A=old.json B=new.json")
    for name, words in failed.items():
        print(f"{name} failed: {words}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, found: list[Measured]) -> None:
    """Print what the benchmark ``name`` finds as it comes, and add its numbers to ``found``."""
    module = import_module(f"benchmarks.{name}")
    about = str(module.__doc__).partition("\n")[0]
    print(f"\n## {name}: {about}", flush=True)
    for line in module.measure():
        print(line, flush=True)
        if isinstance(line, Measured):
            found.append(line)


if __name__ == "__main__":
    sys.exit(main())

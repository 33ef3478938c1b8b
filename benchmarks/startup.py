"""Seconds until the command line answers and until the package is imported, whole processes.

Wanted: ``fpt-viz --help`` under 0.5 s, ``import fpt_viz`` under 0.3 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import subprocess
import sys

from benchmarks._timing import medians

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import fpt_viz": [sys.executable, "-c", "import fpt_viz"],
    "fpt-viz --help": [str(Path(sys.executable).with_name("fpt-viz")), "--help"],
    "fpt-viz list tasks": [str(Path(sys.executable).with_name("fpt-viz")), "list", "tasks"],
}


def measure() -> Iterator[str]:
    """One line a command; the bare interpreter is the floor."""

    def runner(command: list[str]) -> object:
        return subprocess.run(command, check=True, capture_output=True)

    found = medians({name: lambda command=command: runner(command) for name, command in COMMANDS.items()})  # type: ignore[misc]
    for name, seconds in found.items():
        yield f"{name:<20} {seconds:6.3f} s"

"""The whole demo as a process: seconds and peak memory.

Wanted: under 180 s and under 4 GiB on two cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import resource
import subprocess
import sys
import tempfile
from time import perf_counter

from benchmarks._measured import Measured


def measure() -> Iterator[Measured]:
    """One run, since it takes minutes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("fpt-viz")), "demo", "--out", folder, "--overwrite"]
        start = perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds = perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    yield Measured(name="fpt-viz demo", value=seconds, unit="s")
    yield Measured(name="fpt-viz demo, peak memory", value=peak, unit="GiB")

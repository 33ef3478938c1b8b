"""The demo's own part of ``make demo``: all that follows the making of the environment, its stages and peak memory.

One whole process on the machine's cores, from the start of Python to the report. Wanted: 60 s (aim: 30 s) and under
4 GiB on two cores with AMX. Stages exclude each other; what is none of them is "drawing" (figures and report).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
import json
from pathlib import Path
import resource
import subprocess
import sys
import tempfile
from time import perf_counter, process_time
from typing import Any
from unittest.mock import patch

from benchmarks._machine import clock_name
from benchmarks._measured import Measured

STAGES = {
    "run": "training",
    "_measure_heads": "reading heads",
    "load_model": "reading heads",
    "_cut_heads": "cutting heads",
}
"""Functions of ``fpt_viz.demo``, and the stage that each is part of."""
IMPORTS, DRAWING = "imports", "drawing"


def measure() -> Iterator[Measured]:
    """One run, since it takes minutes."""
    with tempfile.TemporaryDirectory() as folder:
        code = f"from benchmarks import demo; demo.report({folder!r})"
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    stages: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    yield Measured(name="fpt-viz demo", value=sum(stages.values()), unit="s")
    for stage, seconds in stages.items():
        yield Measured(name=f"fpt-viz demo, {stage}", value=seconds, unit="s")
    yield Measured(name="fpt-viz demo, peak memory", value=peak, unit="GiB")


def report(folder: str) -> None:
    """In a process of its own: run the demo into ``folder`` and print the seconds of each stage as JSON."""
    now = process_time if clock_name() == "processor" else perf_counter
    start = now()
    demo = import_module("fpt_viz.demo")
    seconds = Counter({IMPORTS: now() - start})

    def timed(function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            begun, told = now(), seconds.total()
            found = function(*given, **options)
            seconds[stage] += now() - begun - (seconds.total() - told)  # what it called may be a stage itself
            return found

        return call

    with patch.multiple(demo, **{name: timed(getattr(demo, name), stage) for name, stage in STAGES.items()}):
        demo.run_demo(Path(folder), overwrite=True, progress=False)
    seconds[DRAWING] = now() - start - seconds.total()
    print(json.dumps(seconds))

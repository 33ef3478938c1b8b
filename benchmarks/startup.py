"""Seconds until the command line answers, the package is imported, and a saved run is drawn; whole processes.

Wanted: ``fpt-viz --help`` under 0.5 s, ``import fpt_viz`` under 0.3 s, a record loaded and its head grid drawn, without
the backbone and without transformers, in at most 3 s. Beside each stand its seconds of the processor, which other
programs disturb less; ``import torch`` is the floor of whatever reads a record.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import resource
from statistics import median
import subprocess
import sys
import tempfile
from time import perf_counter

from benchmarks._measured import Measured

N_ROUNDS = 5
RUN = Path(__file__).parents[1] / "data/results/notebooks/xor-pretrained"
DRAW = f"""
import sys
import fpt_viz as fpt
figure = fpt.figures.head_grid(fpt.load_run({str(RUN)!r}).statistics())
{{draw}}
assert "transformers" not in sys.modules, "a record is drawn without the backbone"
"""


def measure() -> Iterator[Measured]:
    """One number a command: the bare interpreter is the floor of all."""
    program = str(Path(sys.executable).with_name("fpt-viz"))
    python = [sys.executable, "-c"]
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "grid.pdf")
        commands = {
            "python -c pass": [*python, "pass"],
            "import fpt_viz": [*python, "import fpt_viz"],
            "fpt-viz --help": [program, "--help"],
            "fpt-viz list tasks": [program, "list", "tasks"],
            "import torch": [*python, "import torch"],
            "a record loaded": [*python, f"import fpt_viz as fpt; fpt.load_run({str(RUN)!r}).statistics()"],
            "a record's head grid, for the screen": [*python, DRAW.format(draw="figure.to_plotly().to_json()")],
            "a record's head grid, as PDF": [*python, DRAW.format(draw=f"figure.save({path!r})")],
        }
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(N_ROUNDS + 1):
            for name, command in commands.items():
                seconds[name].append(_timed(command))
    for name, taken in seconds.items():
        wall, processor = (median(values) for values in zip(*taken[1:], strict=True))  # the first fills disk caches
        yield Measured(name=name, value=wall, unit="s", note=f"{processor:.2f} s of processor")


def _timed(command: list[str]) -> tuple[float, float]:
    """Seconds of a process by the clock and of the processor."""
    start, before = perf_counter(), _processor()
    subprocess.run(command, check=True, capture_output=True)
    return perf_counter() - start, _processor() - before


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

"""What a list of runs costs beside the runs: seconds between them, and the memory of the parent as they go by.

Wanted: scheduling under 5 % of the time of short runs, and a parent that does not grow with their number. One worker on
one thread; the seconds until its first run begins, most of them its imports, stand apart, since a list pays them once.
"""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import tempfile
from time import perf_counter

from benchmarks._measured import Measured
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.engines.base import Job
from fpt_viz.engines.local import Local

N_RUNS = 32
N_STEPS = 80
"""Of a run: about half a second on one core."""


def measure() -> Iterator[Measured | str]:
    """One list of short runs of a tiny network."""
    ends, runs, held = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        for outcome in Local(workers=1, threads=1, device="cpu").run(_jobs(Path(folder))):
            assert outcome.status == "finished", outcome.error
            ends.append(perf_counter())
            runs.append(outcome.seconds)
            held.append(_resident_bytes())
    between = ends[-1] - ends[0]
    within = sum(runs[1:])
    share, each = 100 * (between - within) / between, within / (N_RUNS - 1)
    note = f"{N_RUNS - 1} runs of {each:.2f} s after the first (wanted under 5 %)"
    yield Measured(name="scheduling, of the time of a list", value=share, unit="%", note=note)
    yield Measured(name="from the start until the first run begins", value=ends[0] - start - runs[0], unit="s")
    first, last = held[0], held[-1]
    yield Measured(name="the parent after the first run", value=first / 1e6, unit="MB")
    yield Measured(name="the parent's growth from the first run to the last", value=(last - first) / 1e6, unit="MB")


def _jobs(folder: Path) -> Iterator[Job]:
    for seed in range(N_RUNS):
        config = RunConfig(
            task=TaskConfig(name="bit_xor", options={"n_bits": 3}),
            backbone=BackboneConfig(name="bert-tiny-random", init="random"),
            train=TrainConfig(n_steps=N_STEPS, batch_size=16, seed=seed),
        )
        yield Job(config=config, folder=folder / str(seed))


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

"""What telemetry costs a run of MiniLM on bit XOR: seconds of the processor of a capture, beside those of a step.

Wanted: at most 10 % at a capture every 50 steps. The ratio of medians is told, since a whole run with and one without
differ by more than a capture costs on a machine that others use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time

from benchmarks._measured import Measured
import fpt_viz as fpt
from fpt_viz.telemetry import Probe

EVERY = 50
N_ROUNDS = 12


def measure() -> Iterator[Measured]:
    """A step, then captures that keep all heads and few."""
    model = fpt.FrozenPretrainedTransformer(fpt.load_backbone("minilm"), fpt.load_task("bit_xor"))
    steps = fpt.train(model, config=fpt.TrainConfig(n_steps=10_000, batch_size=64))
    some = [(0, head) for head in range(4)]
    probes = {"all heads": Probe(model, every=EVERY), "4 heads": Probe(model, every=EVERY, heads=some)}
    seconds: dict[str, list[float]] = {"step": [], **{name: [] for name in probes}}
    with TemporaryDirectory() as folder:
        for index in range(N_ROUNDS + 1):
            calls: dict[str, Callable[[], object]] = {"step": lambda: next(steps)}
            for name, probe in probes.items():
                path = Path(folder) / f"{name}.safetensors"
                calls[name] = lambda probe=probe, path=path: probe.frame().save(path)
            for name, call in calls.items():
                before = process_time()
                call()
                if index:  # the first round warms up
                    seconds[name].append(process_time() - before)
        sizes = {name: (Path(folder) / f"{name}.safetensors").stat().st_size for name in probes}
    step = median(seconds["step"])
    yield Measured(name="one step, batch 64, of the processor", value=step, unit="s")
    for name in probes:
        one = median(seconds[name])
        yield Measured(name=f"a capture of 32 examples, {name}, of the processor", value=one, unit="s")
        share = 100 * one / (EVERY * step)
        yield Measured(name=f"{name}, one every {EVERY} steps, of the run", value=share, unit="%")
        yield Measured(name=f"{name}, size of a capture", value=sizes[name] / 1e3, unit="kB")

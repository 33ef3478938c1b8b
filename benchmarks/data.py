"""Images supplied by the tasks on data sets: batches of 64 from memory, and what the first batch costs.

Uses CIFAR-10 where ``FPT_VIZ_DATA`` holds it, else noise of the same size in CIFAR's binary version.
"""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import subprocess
import sys
import tempfile
from unittest import mock

import numpy as np
import torch

from benchmarks._measured import Measured
from benchmarks._timing import medians
import fpt_viz as fpt

N_BATCHES = 50
TASKS = {
    "cifar10, augmented": {},
    "cifar10, as it is": {"augment": False},
    "CIFAR-10 LRA, augmented": {"gray": True, "patch_size": 1},
}
FIRST_BATCH = """
from time import perf_counter, process_time
import torch, fpt_viz as fpt
task, rng = fpt.load_task("cifar10"), torch.Generator()
start, worked = perf_counter(), process_time()
task.sample(64, rng)
print(perf_counter() - start, process_time() - worked)
"""


def measure() -> Iterator[Measured | str]:
    """Images a second, and seconds to the first batch without and with the cache of decoded images.

    The processor's time says what it costs where other programs take part of the machine.
    """
    with tempfile.TemporaryDirectory() as place, mock.patch.dict(os.environ):
        os.environ["XDG_CACHE_HOME"] = place
        if not (Path(os.environ.get("FPT_VIZ_DATA", "")) / "cifar10").is_dir():
            os.environ["FPT_VIZ_DATA"] = str(_noise(Path(place) / "data"))
        yield f"60,000 images from {fpt.load_task('cifar10').source()['layout']} files"
        for state in ("not cached", "cached"):
            command = [sys.executable, "-c", FIRST_BATCH]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            seconds, worked = map(float, told.split())
            yield Measured(name=f"first batch, {state}", value=seconds, unit="s")
            yield Measured(name=f"first batch, {state}, of the processor", value=worked, unit="s")
        for name, options in TASKS.items():
            found = _per_second(options)
            for size, rate in found.items():
                yield Measured(name=f"{name}, batches of {size}", value=rate, unit="images/s", better="higher")


def _per_second(options: dict[str, object]) -> dict[int, float]:
    task, rng = fpt.load_task("cifar10", **options), torch.Generator().manual_seed(0)

    def supply(size: int) -> None:
        for _ in range(N_BATCHES):
            task.sample(size, rng)

    task.distinct(60_000, "train")  # brings the images into memory
    seconds = medians({"64": lambda: supply(64), "4": lambda: supply(4)})
    return {size: size * N_BATCHES / seconds[str(size)] for size in (64, 4)}


def _noise(root: Path) -> Path:
    """60,000 records of noise; read faster than encoded images."""
    folder = root / "cifar10"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        records = rng.integers(0, 256, (10_000, 3073), np.uint8)
        records[:, 0] %= 10
        records.tofile(folder / name)
    return root

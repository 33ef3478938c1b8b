"""Examples of ListOps a second on one core, by length and batch size, and LRA's file format read back.

Wanted: 20,000 examples/s at up to 64 tokens and 500/s at 500 to 2,000 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import tempfile
from time import perf_counter

import torch

from benchmarks._measured import Measured
from benchmarks._timing import medians
import fpt_viz as fpt

LENGTHS = {"8 to 64": (8, 64), "16 to 64": (16, 64), "500 to 2,000": (500, 2000)}
N_LINES = 2000
"""Of the file that is written and read."""


def measure() -> Iterator[Measured]:
    """Examples a second in batches of 64 and 256, then of a file."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, (low, high) in LENGTHS.items():
            task = fpt.load_task("listops", min_tokens=low, max_tokens=high)
            rng = torch.Generator().manual_seed(0)
            sizes = (64, 256)
            found = medians({str(n): lambda n=n, task=task, rng=rng: task.sample(n, rng) for n in sizes})  # type: ignore[misc]
            for n in sizes:
                rate = n / found[str(n)]
                yield Measured(name=f"{name} tokens, batches of {n}", value=rate, unit="examples/s", better="higher")
        yield _file_read()
    finally:
        torch.set_num_threads(n_threads)


def _file_read() -> Measured:
    """How fast lines of LRA's lengths are read and checked."""
    task = fpt.load_task("listops", min_tokens=501, max_tokens=1999)
    before = os.environ.get("FPT_VIZ_DATA")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "listops"
        path.mkdir()
        for name, split in (("train", "train"), ("val", "validation"), ("test", "test")):
            batch = task.distinct(N_LINES, split)
            texts = [" ".join(task.labels(row[mask])) for row, mask in zip(batch.inputs, batch.mask, strict=True)]  # type: ignore[arg-type]
            lines = [f"{text}\t{answer}" for text, answer in zip(texts, batch.targets[:, 0].tolist(), strict=True)]
            (path / f"basic_{name}.tsv").write_text("\n".join(["Source\tTarget", *lines]))
        os.environ["FPT_VIZ_DATA"] = folder
        try:
            start = perf_counter()
            fpt.load_task("listops", data="lra", max_tokens=1999).n_examples("train")
            seconds = perf_counter() - start
        finally:
            os.environ.pop("FPT_VIZ_DATA") if before is None else os.environ.update(FPT_VIZ_DATA=before)
    name = "LRA's files of 501 to 1,999 tokens, read and checked"
    return Measured(name=name, value=3 * N_LINES / seconds, unit="lines/s", better="higher")

"""``train.compile``: a step of three layers, two of them compiled, beside a plain one, and what compiling takes.

Three layers, since all but the last of a network are compiled and share their graphs. Each size is compiled in a
process of its own, twice: with an empty cache, and with what the first left on the disk. Seconds are of the processor,
compilers included.
"""

from __future__ import annotations

from collections.abc import Iterator
import json
import os
import resource
import subprocess
import sys
import tempfile
from time import process_time
from typing import Any

from benchmarks import _machine
from benchmarks._measured import Measured
from benchmarks._timing import medians
import fpt_viz as fpt
from fpt_viz.training_pass import TrainingPass

PIXELS: dict[str, Any] = {"patch_size": 1}
SIZES: list[tuple[str, str, dict[str, Any], int]] = [
    ("minilm", "bit_xor", {}, 64),
    ("gpt2", "bit_xor", {}, 16),
    ("minilm", "digits", PIXELS, 16),
    ("gpt2", "digits", PIXELS, 16),
]
"""Backbone, task, its options, and examples in a step."""


def measure() -> Iterator[Measured]:
    """Times a compiled step, and its making from nothing and from the cache."""
    for index, (backbone, task, options, batch) in enumerate(SIZES):
        name = f"{backbone}, 2 layers of 3, {fpt.load_task(task, **options).n_tokens} tokens, batch {batch}"
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = (_in_process(index, cache) for _ in range(2))
        yield Measured(name=f"{name}: compiled", value=cold["seconds"], unit="s", note="empty cache")
        yield Measured(name=f"{name}: compiled from the cache", value=warm["seconds"], unit="s")
        ratio = warm["plain"] / warm["compiled"]
        yield Measured(
            name=f"{name}: a compiled step against a plain one", value=ratio, unit="x as fast", better="higher"
        )


def _in_process(index: int, cache: str) -> dict[str, float]:
    code = f"from benchmarks import compiling; compiling.report({index})"
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def report(index: int) -> None:
    """In a process of its own: print the seconds of compiling, and of a step with and without it."""
    backbone, task, options, batch = SIZES[index]
    steps = {}
    for name in ("plain", "compiled"):
        model = fpt.FrozenPretrainedTransformer(
            fpt.load_backbone(backbone, init="random", n_layers=3), fpt.load_task(task, **options)
        ).to(_machine.device())
        config = fpt.TrainConfig(n_steps=10_000, batch_size=batch, compile=name == "compiled")
        if config.compile:
            before = _spent()
            TrainingPass(model, config)
            seconds = _spent() - before
        run = fpt.train(model, config=config)
        steps[name] = _machine.done(lambda run=run: next(run))
    print(json.dumps({"seconds": seconds, **medians(steps, n_rounds=5)}))


def _spent() -> float:
    """Seconds of the processor of this process and of the compilers that it started and waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return process_time() + children.ru_utime + children.ru_stime

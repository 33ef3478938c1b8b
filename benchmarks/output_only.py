"""A step where the output layer alone learns: on kept features, beside a step and a forward pass through the backbone.

Batch 64; medians of calls taken in turn. The features are computed once, before the first step.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import torch

from benchmarks._measured import Measured
from benchmarks._timing import medians
import fpt_viz as fpt

BATCH = 64
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "MiniLM, bit XOR (10 tokens)": ("minilm", "bit_xor", {}),
    "MiniLM, digits (16 tokens)": ("minilm", "digits", {}),
    "GPT-2, digits (16 tokens)": ("gpt2", "digits", {}),
}


def measure() -> Iterator[Measured]:
    """Median seconds, and how many times a step on kept features goes into the others."""
    for name, (backbone, task, options) in CASES.items():
        kept, plain = _steps(backbone, task, options, cache=True), _steps(backbone, task, options, cache=False)
        start = perf_counter()
        next(kept)
        first = perf_counter() - start
        model = _model(backbone, task, options).eval()
        inputs = model.task.sample(BATCH, torch.Generator().manual_seed(1)).inputs

        def forward(model: Any = model, inputs: Any = inputs) -> None:
            with torch.no_grad():
                model(inputs)

        def kept_steps(steps: Iterator[object] = kept) -> None:
            for _ in range(50):  # one alone is too short to time
                next(steps)

        found = medians({"kept": kept_steps, "plain": lambda steps=plain: next(steps), "forward": forward}, n_rounds=5)
        step = found["kept"] / 50
        n_train = model.task.n_examples("train")
        yield Measured(name=f"{name}: a step on kept features", value=step * 1e3, unit="ms")
        yield Measured(name=f"{name}: before the first", value=first, unit="s", note=f"{n_train} examples")
        for what in ("plain", "forward"):
            words = "a step through the backbone" if what == "plain" else "a forward pass"
            yield Measured(name=f"{name}: {words}", value=found[what], unit="s")
            yield Measured(name=f"{name}: {words}, in kept steps", value=found[what] / step, unit="x", better="higher")


def _model(backbone: str, task: str, options: dict[str, Any]) -> fpt.FrozenPretrainedTransformer:
    init = "pretrained" if backbone == "minilm" else "random"
    return fpt.FrozenPretrainedTransformer(
        fpt.load_backbone(backbone, init), fpt.load_task(task, **options), ("output",)
    )


def _steps(backbone: str, task: str, options: dict[str, Any], *, cache: bool) -> Iterator[object]:
    config = fpt.TrainConfig(n_steps=10_000, batch_size=BATCH, cache_features=cache)
    return fpt.train(_model(backbone, task, options), config=config)

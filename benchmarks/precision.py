"""Whether training in bfloat16 ends where float32 does: accuracy on three tasks over seeds, and the ranking of heads.

Small on purpose, so that it runs anywhere: two layers of MiniLM, short runs. Each seed is trained twice, on the same
examples from the same start. The interval is of the mean difference of a pair, by Student's t.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean
from typing import Any

from scipy import stats

from benchmarks._measured import Measured
import fpt_viz as fpt
from fpt_viz.analysis.routing_score import routing_score

TASKS: dict[str, tuple[dict[str, Any], int]] = {
    "bit_xor": ({"n_bits": 3}, 150),
    "bit_memory": ({"n_bits": 8, "n_strings": 2, "patch_size": 4}, 100),
    "digits": ({}, 150),
}
"""Task -> its options, and gradient steps."""
SEEDS = range(5)
BATCH = 32
N_LAYERS = 2


def measure() -> Iterator[Measured]:
    """Mean accuracies, their difference with its interval, and rank correlations of head scores."""
    for task, (options, n_steps) in TASKS.items():
        pairs = [tuple(_trained(task, options, n_steps, seed, p) for p in ("float32", "bfloat16")) for seed in SEEDS]
        exact, low = ([run[0] for run in of_one] for of_one in zip(*pairs, strict=True))
        differences = [b - a for a, b in zip(exact, low, strict=True)]
        half = stats.sem(differences) * stats.t.ppf(0.975, len(differences) - 1)
        seeds = stats.sem(exact) * stats.t.ppf(0.975, len(exact) - 1)
        yield Measured(
            name=f"{task}: test accuracy in float32",
            value=100 * mean(exact),
            unit="%",
            better="higher",
            note=f"+- {100 * seeds:.1f} over {len(exact)} seeds",
        )
        yield Measured(name=f"{task}: in bfloat16", value=100 * mean(low), unit="%", better="higher")
        yield Measured(
            name=f"{task}: bfloat16 less float32",
            value=100 * mean(differences),
            unit="points",
            better="neither",
            note=f"+- {100 * half:.1f}",
        )
        if pairs[0][0][1]:
            ranks = [stats.spearmanr(a[1], b[1]).statistic for a, b in pairs]
            name = f"{task}: rank correlation of routing scores"
            yield Measured(name=name, value=mean(ranks), unit="", better="higher")


def _trained(task: str, options: dict[str, Any], n_steps: int, seed: int, precision: Any) -> tuple[float, list[float]]:
    """Test accuracy and the routing score of each head, after a training in ``precision``."""
    backbone = fpt.load_backbone("minilm", n_layers=N_LAYERS)
    model = fpt.FrozenPretrainedTransformer(backbone, fpt.load_task(task, **options), seed=seed)
    config = fpt.TrainConfig(n_steps=n_steps, batch_size=BATCH, seed=seed, precision=precision)
    for _step in fpt.train(model, config=config):
        pass
    accuracy = fpt.evaluate(model, split="test", n_examples=512, seed=seed).accuracy
    batch = model.task.distinct(64, "validation")
    needs = model.task.needs(batch.inputs)
    if needs is None:
        return accuracy, []
    maps = fpt.capture_attention(model, batch, queries=range(batch.inputs.shape[1]))
    scores = routing_score(maps.weights, needs, maps.queries).score.nanmean(1)
    return accuracy, scores.flatten().tolist()

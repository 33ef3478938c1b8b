"""Attention of MiniLM: read-out rows and whole patterns, in fewer bytes, in bfloat16, and on the disk.

Beside plain and eager forward passes, at 256 tokens, batch 4; eager with ``output_attentions`` is what a user has
without the tap. What fewer bytes and bfloat16 change is asked of MiniLM trained on bit XOR, over seeds: of each head's
routing score and entropy, and of the ranking of heads. Intervals are over seeds, by Student's t.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
import resource
from statistics import mean
import tempfile
from typing import Any

from scipy import stats
import torch
from torch import Tensor

from benchmarks._measured import Measured
from benchmarks._timing import medians
import fpt_viz as fpt
from fpt_viz.analysis.attention_entropy import attention_entropy
from fpt_viz.analysis.routing_score import routing_score
from fpt_viz.capture import capture_attention
from fpt_viz.records import AttentionMaps

SEEDS = range(5)
N_STEPS = 120
"""Gradient steps on bit XOR, batch 32."""
N_EXAMPLES = 128
TOP = 5
"""Heads of the rankings that are compared."""
WAYS: dict[str, dict[str, Any]] = {
    "float16": {"dtype": "float16"},
    "bfloat16": {"dtype": "bfloat16"},
    "uint8": {"dtype": "uint8"},
    "computed in bfloat16": {"precision": "bfloat16"},
}
LAYERS_ON_DISK = 6


def measure() -> Iterator[Measured]:
    """Seconds and sizes, then what is read of a file, then what fewer bytes and bfloat16 change."""
    yield from _costs()
    yield from _reading()
    yield from _changes()


def _costs() -> Iterator[Measured]:
    """Median seconds, the ratio to a plain forward pass, and the size of what is kept."""
    task = fpt.load_task("bit_xor", n_bits=128)
    model = fpt.FrozenPretrainedTransformer(fpt.load_backbone("minilm"), task).eval()
    batch = task.sample(4, torch.Generator().manual_seed(0))

    def plain() -> None:
        with torch.no_grad():
            model(batch.inputs)

    def eager() -> None:
        network = model.backbone.network
        network.set_attn_implementation("eager")
        with torch.no_grad():
            network(inputs_embeds=model.input(batch.inputs), output_attentions=True)
        network.set_attn_implementation("sdpa")

    calls = {
        "plain forward": plain,
        "eager, all kept": eager,
        "capture, last row": lambda: capture_attention(model, batch, queries=[-1]),
        "capture, all rows": lambda: capture_attention(model, batch, queries=None),
        "one layer, all": lambda: capture_attention(model, batch, layers=[0], queries=None),
        "capture, all rows, float16": lambda: capture_attention(model, batch, queries=None, dtype="float16"),
        "capture, all rows, uint8": lambda: capture_attention(model, batch, queries=None, dtype="uint8"),
        "capture, last row, bfloat16": lambda: capture_attention(model, batch, queries=[-1], precision="bfloat16"),
    }
    found = medians(calls)
    for name, seconds in found.items():
        yield Measured(name=name, value=seconds, unit="s")
        if name != "plain forward":
            yield Measured(name=f"{name}, beside plain", value=seconds / found["plain forward"], unit="x")
    for queries in ([-1], None):
        kept = capture_attention(model, batch, queries=queries).weights.nbytes
        yield Measured(name=f"kept with queries={queries}", value=kept / 1e6, unit="MB")
    for dtype in ("float16", "uint8"):
        kept = capture_attention(model, batch, queries=None, dtype=dtype).weights.nbytes
        yield Measured(name=f"kept with queries=None, {dtype}", value=kept / 1e6, unit="MB")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield Measured(name="peak memory of this process", value=peak, unit="GiB", note="of all benchmarks up to here")


def _reading() -> Iterator[Measured]:
    """A file of 302 MB: what loading all of it, or one head of one layer, makes resident, and how long it takes."""
    shape = (LAYERS_ON_DISK, 1, 12, 1024, 1024)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "maps.safetensors"
        AttentionMaps.from_arrays(torch.full(shape, 1 / shape[-1])).save(path)
        yield Measured(name="a file of 6 layers at 1,024 tokens", value=path.stat().st_size / 1e6, unit="MB")
        calls: dict[str, Callable[[], AttentionMaps]] = {
            "whole, checked": lambda: AttentionMaps.load(path),
            "one head of one layer": lambda: AttentionMaps.load(path, layers=[3], heads=[5]),
        }
        for name, call in calls.items():
            call()
            before = _resident()
            held = call()
            yield Measured(name=f"resident after loading it: {name}", value=(_resident() - before) / 1e6, unit="MB")
            del held
        for name, seconds in medians(calls, n_rounds=3).items():
            yield Measured(name=f"loading it: {name}", value=seconds, unit="s")


def _resident() -> int:
    """Bytes of this process in memory."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Rss:"))


def _changes() -> Iterator[Measured]:
    """Of each way to capture beside float32: the largest change of a head's scores, and how alike the rankings are."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for seed in SEEDS:
        model = fpt.FrozenPretrainedTransformer(fpt.load_backbone("minilm"), fpt.load_task("bit_xor"), seed=seed)
        for _step in fpt.train(model, config=fpt.TrainConfig(n_steps=N_STEPS, batch_size=32, seed=seed)):
            pass
        batch = model.task.distinct(N_EXAMPLES, "validation")
        exact = _scores(capture_attention(model, batch))
        for name, options in WAYS.items():
            found[name].append(_beside(exact, _scores(capture_attention(model, batch, **options))))
    for name, seeds in found.items():
        for what, unit in (("routing score", ""), ("entropy", "bits")):
            most = max(one[what] for one in seeds)
            yield Measured(name=f"{name}: largest change of a head's {what}", value=most, unit=unit)
        for what in ("rank correlation of routing scores", f"of the best {TOP} heads, the same"):
            values = [one[what] for one in seeds]
            yield Measured(name=f"{name}: {what}", value=mean(values), unit="", better="higher", note=_interval(values))


def _scores(maps: AttentionMaps) -> tuple[Tensor, Tensor]:
    """Of each head, the mean routing score and the mean entropy in bits."""
    assert maps.needs is not None  # bit XOR has them
    scores = routing_score(maps.weights.float(), maps.needs, maps.queries).score.mean(1).flatten()
    return scores, attention_entropy(maps.weights.float()).mean((1, 3)).flatten()


def _beside(exact: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> dict[str, float]:
    best, found = (set(scores.topk(TOP).indices.tolist()) for scores in (exact[0], other[0]))
    return {
        "routing score": float((exact[0] - other[0]).abs().max()),
        "entropy": float((exact[1] - other[1]).abs().max()),
        "rank correlation of routing scores": float(stats.spearmanr(exact[0], other[0]).statistic),
        f"of the best {TOP} heads, the same": len(best & found) / TOP,
    }


def _interval(values: Sequence[float]) -> str:
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return f"+- {half:.2g} over {len(values)} seeds, least {min(values):.4f}"

"""Rollout, attention flow, the routing graph and comparisons: seconds by the clock and of the processor, and memory.

Wanted: rollout of 12 layers of 12 heads at 1,024 tokens in at most 3 s and 200 MB beside the patterns; flow on 10-token
XOR, all read-out tokens of one example, in at most 2 s. Peaks are those of a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from multiprocessing import get_context
import resource
from time import perf_counter, process_time

import torch
from torch import Tensor

from benchmarks._measured import Measured
import fpt_viz as fpt
from fpt_viz import analysis
from fpt_viz.capture import capture_attention
from fpt_viz.records import AttentionMaps

LONG = (12, 1, 12, 1024)
"""Layers, examples, heads, tokens: 604 MB of patterns."""
READOUT = torch.arange(1014, 1024)[None]


def measure() -> Iterator[Measured]:
    """Seconds by the clock, of the processor, and the memory that each method took beside its patterns."""
    for name in LONG_CALLS:
        wall, processor, size = _apart(_long, name)
        yield from _seconds(name, wall, processor)
        yield Measured(name=f"{name}: memory", value=size, unit="MB")
    model, maps = _xor()
    readout = model.readout_tokens(maps.weights.shape[-1])
    one = maps.weights[:, :1]
    for name, short in {
        "flow, XOR 5 + 5, one example": lambda: analysis.attention_flow(one, readout),
        "routing graph, XOR 5 + 5, 64 examples": lambda: analysis.routing_graph(maps.weights, readout),
        "rollout, XOR 5 + 5, 64 examples": lambda: analysis.attention_rollout(maps.weights, readout),
        "similarity of 72 heads, 64 examples": lambda: analysis.head_similarity(maps),
        "CKA, 4,096 x 384": lambda: analysis.linear_cka(torch.randn(4096, 384), torch.randn(4096, 384)),
    }.items():
        yield from _seconds(name, *_timed(short))


def _seconds(name: str, wall: float, processor: float) -> Iterator[Measured]:
    yield Measured(name=name, value=wall, unit="s")
    yield Measured(name=f"{name}, of the processor", value=processor, unit="s")


LONG_CALLS: dict[str, Callable[[Tensor], object]] = {
    "rollout, 12 x 1,024, mean": lambda weights: analysis.attention_rollout(weights, READOUT),
    "rollout, 12 x 1,024, max, no sink": lambda weights: analysis.attention_rollout(
        weights, READOUT, heads="max", sink=0
    ),
}


def _long(name: str) -> tuple[float, float, float]:
    """Seconds, seconds of the processor and MB of a call on long patterns; to be run in a process of its own."""
    torch.set_num_threads(2)
    n_layers, n_examples, n_heads, n_tokens = LONG
    weights = torch.empty(n_layers, n_examples, n_heads, n_tokens, n_tokens)
    rng = torch.Generator().manual_seed(0)
    for layer, head in torch.cartesian_prod(torch.arange(n_layers), torch.arange(n_heads)).tolist():
        weights[layer, 0, head] = (2 * torch.randn(n_tokens, n_tokens, generator=rng)).softmax(-1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, processor = _timed(lambda: LONG_CALLS[name](weights))
    return wall, processor, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    wall, processor = perf_counter(), process_time()
    call()
    return perf_counter() - wall, process_time() - processor


def _apart(call: Callable[[str], tuple[float, float, float]], name: str) -> tuple[float, float, float]:
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(call, (name,))


def _xor() -> tuple[fpt.FrozenPretrainedTransformer, AttentionMaps]:
    """MiniLM before training on 64 inputs of bit XOR, all queries."""
    task = fpt.load_task("bit_xor", n_bits=5)
    model = fpt.FrozenPretrainedTransformer(fpt.load_backbone("minilm"), task).eval()
    batch = task.sample(64, torch.Generator().manual_seed(0))
    return model, capture_attention(model, batch, queries=None)

"""Attention of MiniLM at 256 tokens: read-out rows and whole patterns, beside plain and eager forward passes.

Eager with ``output_attentions`` is what a user has without the tap. Digits-like inputs of 256 tokens, batch 4.
"""

from __future__ import annotations

from collections.abc import Iterator
import resource

import torch

from benchmarks._measured import Measured
from benchmarks._timing import medians
import fpt_viz as fpt
from fpt_viz.capture import capture_attention


def measure() -> Iterator[Measured]:
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
    }
    found = medians(calls)
    for name, seconds in found.items():
        yield Measured(name=name, value=seconds, unit="s")
        if name != "plain forward":
            yield Measured(name=f"{name}, beside plain", value=seconds / found["plain forward"], unit="x")
    for queries in ([-1], None):
        kept = capture_attention(model, batch, queries=queries).weights.nbytes
        yield Measured(name=f"kept with queries={queries}", value=kept / 1e6, unit="MB")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield Measured(name="peak memory of this process", value=peak, unit="GiB", note="of all benchmarks up to here")

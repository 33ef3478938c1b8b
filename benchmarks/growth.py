"""Whether time grows faster than operations: tokens, layers, batch and examples, each doubled alone.

A training step (``fpt.train``, float32), a capture of read-out rows, statistics of heads and all heads ablated, at a
size and at twice that size in one dimension. Both are taken in turn, medians are compared, and the operations of matrix
products are counted, so a number above 1 says that something else grows faster than they do. Wanted: at most 1.1.
``FPT_BENCH_CASES=minilm`` keeps those whose name holds the word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
import os

from benchmarks import _machine
from benchmarks._counting import Counting
from benchmarks._measured import Measured
from benchmarks._timing import medians
import fpt_viz as fpt

N_ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is doubled, one at a time."""

    backbone: str
    tokens: int
    layers: int
    batch: int
    """Of a training step, and of a forward pass of whatever reads or cuts heads."""
    examples: int = 32
    """Of what reads or cuts heads."""

    def doubled(self, dimension: str) -> Size:
        """Twice as large in ``dimension`` alone; where fewer examples than a batch hold, that is no dimension."""
        return replace(self, **{dimension: 2 * getattr(self, dimension)})

    def model(self) -> fpt.FrozenPretrainedTransformer:
        """Random, since deeper networks than the published ones are among them; bit XOR, which has any length."""
        backbone = fpt.load_backbone(self.backbone, "random", self.layers)
        task = fpt.load_task("bit_xor", n_bits=self.tokens // 2)
        return fpt.FrozenPretrainedTransformer(backbone, task).to(_machine.device())


TRAINED = [
    Size(backbone="minilm", tokens=64, layers=6, batch=64),
    Size(backbone="gpt2", tokens=64, layers=12, batch=16),
]
READ = [replace(size, batch=16) for size in TRAINED]
"""Sizes of what reads or cuts heads: two forward passes, then four."""
DIMENSIONS = ("tokens", "layers", "batch")
READ_DIMENSIONS = ("tokens", "layers", "examples")


def measure() -> Iterator[Measured | str]:
    """Time's growth over that of operations, for each call and each dimension."""
    wanted = os.environ.get("FPT_BENCH_CASES", "")
    cases = [("training step", step, size, dimension) for size in TRAINED for dimension in DIMENSIONS]
    for what, call in (("capture", capture), ("statistics of heads", statistics), ("heads ablated", ablate)):
        cases += [(what, call, size, dimension) for size in READ for dimension in READ_DIMENSIONS]
    for what, make, size, dimension in cases:
        name = f"{size.backbone}, {what}: twice the {dimension}"
        if wanted in name:
            yield _growth(name, make(size), make(size.doubled(dimension)))


def _growth(name: str, small: Callable[[], object], large: Callable[[], object]) -> Measured:
    seconds = medians({"small": _machine.done(small), "large": _machine.done(large)}, n_rounds=N_ROUNDS)
    before, after = _operations(small), _operations(large)
    slower, more = seconds["large"] / seconds["small"], after / before
    note = f"{seconds['small']:.2f} to {seconds['large']:.2f} s is {slower:.2f} x, operations {more:.2f} x"
    return Measured(name=name, value=slower / more, unit="x the growth of operations", note=note)


def step(size: Size) -> Callable[[], object]:
    """A training step."""
    steps = fpt.train(size.model(), config=fpt.TrainConfig(n_steps=1_000_000, batch_size=size.batch))
    return lambda: next(steps)


def capture(size: Size) -> Callable[[], object]:
    """All heads' rows of the read-out tokens."""
    model = size.model().eval()
    batch = model.task.distinct(size.examples, "test").to(_machine.device())
    return lambda: fpt.capture_attention(model, batch, queries="readout")


def statistics(size: Size) -> Callable[[], object]:
    """Entropy, distance, routing and sink mass of every head."""
    model = size.model().eval()
    return lambda: fpt.head_statistics(model, n_examples=size.examples, batch_size=size.batch)


def ablate(size: Size) -> Callable[[], object]:
    """Each head of the middle layer cut alone."""
    model = size.model().eval()
    heads = [(size.layers // 2, head) for head in range(model.backbone.n_heads)]
    return lambda: fpt.ablate_heads(model, heads=heads, n_examples=size.examples, batch_size=size.batch)


def _operations(call: Callable[[], object]) -> int:
    """Of matrix products; those with a vector, in the statistics' intervals, have no formula and are few."""
    with Counting() as counting:
        call()
    unknown = counting.found.not_counted - {"mv"}
    if unknown:
        raise RuntimeError(f"no formula for {', '.join(sorted(unknown))}")
    return counting.found.n_operations

"""Training steps and captures against the machine: operations and bytes counted, ceilings measured, shares of both.

The same on a CPU and on a GPU, which is taken where there is one (``FPT_BENCH_DEVICE=cpu`` names another). Ceilings are
matrix products in each precision, one large one and those of the step at their own sizes, and a copy that no cache
holds. Operations are those of matrix products, two for each multiplication; bytes are what each operator reads and
writes, so caches and fusing may beat them. Parts exclude each other: the device's clock is read as modules and the
loop's own calls begin and end (``benchmarks/_parts.py``). The share of Python is the time in which no operator runs
(CPU) or no kernel (CUDA), by ``torch.profiler`` over one step, and runs through all parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
import os
from time import perf_counter
from typing import Any

import torch

from benchmarks import _machine
from benchmarks._counting import Counted, Counting
from benchmarks._measured import Measured
from benchmarks._parts import PARTS, Parts, seconds_by_part
import fpt_viz as fpt
from fpt_viz.config import Precision
from fpt_viz.memory import peak_bytes
from fpt_viz.training_pass import pick_precision

LONG_SECONDS = 5.0
"""Steps longer than this are timed three times, not five."""
N_CAPTURED = 16
"""Examples in a capture."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One size of a training step."""

    backbone: str
    n_tokens: int
    batch_size: int

    def __str__(self) -> str:
        return f"{self.backbone}, {self.n_tokens} tokens, batch {self.batch_size}"


CASES = [Case(backbone="minilm", n_tokens=n, batch_size=64) for n in (10, 64)] + [
    Case(backbone="gpt2", n_tokens=n, batch_size=size) for n in (10, 64) for size in (16, 64)
]
CUDA_CASES = [Case(backbone="gpt2", n_tokens=64, batch_size=size) for size in (256, 512)]


def measure() -> Iterator[Measured | str]:
    """Ceilings, then each case; ``FPT_BENCH_CASES=minilm`` keeps those whose name holds the word."""
    told = _machine.describe()
    yield f"{told['device']}; {', '.join(told['flags']) or 'flags unknown'}; load {told['load_average']}"
    yield from _ceilings()
    wanted = os.environ.get("FPT_BENCH_CASES", "")
    cases = CASES + (CUDA_CASES if _machine.device().type == "cuda" else [])
    for case in cases:
        if wanted in str(case):
            yield f"\n### {case}"
            for precision in _precisions():
                yield from _step(case, precision)
            yield from _capture(case)


def _ceilings() -> Iterator[Measured]:
    on_cpu = _machine.device().type == "cpu"
    for n_threads in sorted({1, os.cpu_count() or 1}) if on_cpu else [0]:
        with _machine.threads(n_threads or torch.get_num_threads()):
            suffix = f", {n_threads} threads" if on_cpu else ""
            note = "a core" if n_threads > 1 and _machine.clock_name() == "processor" else ""
            for dtype in _machine.DTYPES[_machine.device().type]:
                name = f"peak: one large product, {_name(dtype)}{suffix}"
                rate = _machine.peak_rate(dtype) / 1e9
                yield Measured(name=name, value=rate, unit="GFLOP/s", better="higher", note=note)
            rate = _machine.copy_rate() / 1e9
            yield Measured(name=f"peak: copy{suffix}", value=rate, unit="GB/s", better="higher", note=note)


def _precisions() -> list[Precision]:
    """Float32, and the package's own choice where that is another."""
    return list(dict.fromkeys(["float32", pick_precision("auto", _machine.device())]))


def _step(case: Case, precision: Precision) -> Iterator[Measured | str]:
    model = _model(case)
    config = fpt.TrainConfig(n_steps=1_000_000, batch_size=case.batch_size, precision=precision)
    steps = fpt.train(model, config=config)
    what = f"{case}, {precision}: step"
    next(steps)
    start = perf_counter()
    next(steps)
    n_timings = 5
    if perf_counter() - start > LONG_SECONDS:
        n_timings = 3
    else:
        next(steps)  # kernels are chosen, caches filled
    _reset_peak()
    seconds = _machine.seconds(lambda: next(steps), n_timings=n_timings, shortest=0.2)
    peak = _peak(lambda: next(steps))
    counted = _counted(model, lambda: next(steps))
    parts = seconds_by_part(model, lambda: next(steps))
    python = _idle_share(lambda: next(steps))
    yield Measured(name=what, value=seconds, unit="s", note=f"{case.batch_size / seconds:,.0f} examples/s")
    yield from _against_ceilings(what, counted, seconds)
    yield Measured(name=f"{what}, peak of tensors", value=peak / 1e6, unit="MB")
    yield _breakdown(parts, python, counted)


def _capture(case: Case) -> Iterator[Measured]:
    model = _model(case).eval()
    batch = model.task.sample(N_CAPTURED, torch.Generator().manual_seed(0)).to(_machine.device())

    def capture() -> object:
        return fpt.capture_attention(model, batch, queries="readout")

    seconds = _machine.seconds(capture)
    counted = _counted(model, capture)
    note = f"{N_CAPTURED} examples, read-out rows"
    yield Measured(name=f"{case}: capture", value=seconds, unit="s", note=note)
    yield from _against_ceilings(f"{case}: capture", counted, seconds)


def _against_ceilings(what: str, counted: Counted, seconds: float) -> Iterator[Measured]:
    """Operations and bytes a second, and their shares of what the machine can do."""
    n, moved = counted.n_operations, counted.n_bytes
    note = f"{n / 1e9:.1f} billion operations in {counted.n_operators:,} operators"
    if counted.not_counted:
        note += f", without {', '.join(sorted(counted.not_counted))}"
    yield Measured(name=f"{what}, achieved", value=n / seconds / 1e9, unit="GFLOP/s", better="higher", note=note)
    own = max(counted.products, key=lambda product: counted.products[product] * _machine.operations(product[0]))[1]
    for dtype in _machine.DTYPES[_machine.device().type]:
        name, is_own = _name(dtype), "; its own precision" if dtype == own else ""
        share = 100 * n / seconds / _peak_rate(dtype, torch.get_num_threads())
        yield Measured(name=f"{what}, of {name} peak", value=share, unit="%", better="higher")
        floor = _floor(counted, dtype)
        note = f"{floor:.3f} s for them alone{is_own}"
        name = f"{what}, of {name} at its sizes"
        yield Measured(name=name, value=100 * floor / seconds, unit="%", better="higher", note=note)
    share = 100 * moved / seconds / _copy_rate(torch.get_num_threads())
    note = f"{moved / 1e9:.2f} GB; {counted.n_reads_to_host} values read back"
    yield Measured(name=f"{what}, of copy peak", value=share, unit="%", better="higher", note=note)


def _floor(counted: Counted, dtype: torch.dtype) -> float:
    """Seconds of the matrix products alone, were all of ``dtype``, each measured at its own size.

    Products inside fused attention count at the rate of the large one, since they cannot be taken out of it.
    """
    alone = sum(n * _alone(shape, dtype, torch.get_num_threads()) for (shape, _), n in counted.products.items())
    return alone + sum(counted.fused.values()) / _peak_rate(dtype, torch.get_num_threads())


@cache
def _alone(shape: tuple[int, ...], dtype: torch.dtype, n_threads: int) -> float:
    return _machine.seconds(_machine.product(shape, dtype))


@cache
def _peak_rate(dtype: torch.dtype, n_threads: int) -> float:
    return _machine.peak_rate(dtype)


@cache
def _copy_rate(n_threads: int) -> float:
    return _machine.copy_rate()


def _breakdown(parts: dict[str, float], python: float, counted: Counted) -> str:
    """Shares of one step's time, beside those of its operations."""
    whole, n = sum(parts.values()), max(1, counted.n_operations)
    lines = ["| part | of the time | of the operations | GB moved |", "| --- | --- | --- | --- |"]
    for part in dict.fromkeys([*PARTS, *parts]):
        operations = f"{counted.operations[part] / n:.1%}" if counted.operations[part] else ""
        moved = counted.bytes[part] / 1e9
        lines.append(f"| {part} | {parts.get(part, 0.0) / whole:.1%} | {operations} | {moved:.3f} |")
    lines.append(f"| Python, through all parts: no operator runs | {python:.1%} | | |")
    return "\n".join(lines)


def _counted(model: fpt.FrozenPretrainedTransformer, call: Callable[[], object]) -> Counted:
    parts = Parts()
    with parts.watching(model), Counting(lambda: parts.now) as counting:
        call()
    found: Counted = counting.found
    return found


def _idle_share(call: Callable[[], object]) -> float:
    """The share of the time of ``call`` in which no operator runs; on CUDA, in which no kernel does."""
    on_cuda = _machine.device().type == "cuda"
    kinds = [torch.profiler.ProfilerActivity.CPU] + ([torch.profiler.ProfilerActivity.CUDA] if on_cuda else [])
    with torch.profiler.profile(activities=kinds) as profile:
        start = perf_counter()
        call()
        if on_cuda:
            torch.cuda.synchronize()
        whole = perf_counter() - start  # by the clock, as the profiler's own times are
    busy = sum(_busy_microseconds(event, on_cuda=on_cuda) for event in profile.events() or [])
    return max(0.0, 1 - busy / 1e6 / whole)


def _busy_microseconds(event: Any, *, on_cuda: bool) -> float:
    if event.is_user_annotation:
        return 0.0
    return float(event.self_device_time_total if on_cuda else event.self_cpu_time_total)


def _reset_peak() -> None:
    if _machine.device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _peak(call: Callable[[], object]) -> int:
    """Bytes: on CUDA of all that is allocated since :func:`_reset_peak`, on a CPU of what one call makes."""
    if _machine.device().type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return peak_bytes(call)


def _model(case: Case) -> fpt.FrozenPretrainedTransformer:
    init = "pretrained" if case.backbone == "minilm" else "random"
    task = fpt.load_task("bit_xor", n_bits=case.n_tokens // 2)
    return fpt.FrozenPretrainedTransformer(fpt.load_backbone(case.backbone, init), task).to(_machine.device())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

"""What this machine is, and its ceilings: matrix products of chosen shapes, and copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
from datetime import UTC, datetime
from importlib.metadata import version
import os
from pathlib import Path
import platform
import re
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor

SHORTEST_SECONDS = 0.02
"""Of one timing: shorter calls are repeated until they fill it."""
N_TIMINGS = 5
COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}
"""Of the tensor that is copied: far more than the caches hold."""
LARGE_SIDE = {"cpu": 2048, "cuda": 8192}
"""Of the square matrices of the one large product."""
DTYPES = {"cpu": (torch.float32, torch.bfloat16), "cuda": (torch.float32, torch.bfloat16, torch.float16)}
"""Whose products are measured."""
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")
"""Of a processor, those that matrix products depend on."""
VERSIONS = ("torch", "transformers", "numpy", "fpt_viz")


def device() -> torch.device:
    """CUDA where there is one, else the CPU; ``FPT_BENCH_DEVICE`` names another."""
    return torch.device(os.environ.get("FPT_BENCH_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))


def device_name() -> str:
    """The GPU's name where one computes, else the processor's."""
    return torch.cuda.get_device_name(device()) if device().type == "cuda" else processor()


def processor() -> str:
    """The processor's name, as the system tells it."""
    told = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return told[1] if told else platform.processor() or platform.machine()


def flags() -> list[str]:
    """Those of :data:`FLAGS` that the processor has; empty where the system does not tell."""
    told = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return [flag for flag in FLAGS if told and flag in told[1].split()]


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def describe() -> dict[str, Any]:
    """Where and with what something was measured; names no user and no host."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "device": device_name(),
        "processor": processor(),
        "flags": flags(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in VERSIONS},
        "cuda": torch.version.cuda or "",
        "clock": clock_name(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def clock_name() -> str:
    """``wall``, or ``processor`` where ``FPT_BENCH_CLOCK`` says so."""
    return "processor" if os.environ.get("FPT_BENCH_CLOCK") == "processor" else "wall"


class Clock:
    """Times marked on the device's own clock: events on CUDA, where calls return before the work is done.

    On a CPU that other programs use, ``FPT_BENCH_CLOCK=processor`` takes seconds of the processor instead of seconds
    passed. That is honest with one thread only: of several, it is the sum.
    """

    def __init__(self) -> None:
        self.on_cuda = device().type == "cuda"
        self.now = process_time if clock_name() == "processor" else perf_counter

    def mark(self) -> Any:
        """A point in time, to be given to :meth:`seconds`."""
        if not self.on_cuda:
            return self.now()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.on_cuda:
            torch.cuda.synchronize()

    def seconds(self, start: Any, end: Any) -> float:
        """Between two marks; on CUDA only after :meth:`wait`."""
        return float(start.elapsed_time(end)) / 1e3 if self.on_cuda else float(end - start)


def done(call: Callable[[], object]) -> Callable[[], None]:
    """``call``, over when the device is done with it."""
    clock = Clock()

    def whole() -> None:
        call()
        clock.wait()

    return whole


def seconds(call: Callable[[], object], *, n_timings: int = N_TIMINGS, shortest: float = SHORTEST_SECONDS) -> float:
    """Median seconds of ``call``; short calls are repeated, and the first is not counted."""
    clock = Clock()

    def timed(n: int) -> float:
        clock.wait()
        start = clock.mark()
        for _ in range(n):
            call()
        end = clock.mark()
        clock.wait()
        return clock.seconds(start, end) / n

    call()
    n = max(1, round(shortest / max(timed(1), 1e-7)))
    return median(timed(n) for _ in range(n_timings))


@contextlib.contextmanager
def threads(n_threads: int) -> Iterator[None]:
    """So many threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def product(shape: tuple[int, ...], dtype: torch.dtype) -> Callable[[], Tensor]:
    """A call that multiplies matrices: ``[m k] @ [k n]`` for (m, k, n), as many as b says for (b, m, k, n).

    The right matrix is a transposed view, as a linear layer's weight is.
    """
    *many, m, k, n = shape
    left = torch.randn(*many, m, k, device=device()).to(dtype)
    right = torch.randn(*many, n, k, device=device()).to(dtype).transpose(-1, -2)
    multiply = torch.bmm if many else torch.mm
    made = multiply(left, right)
    return lambda: multiply(left, right, out=made)


def operations(shape: tuple[int, ...]) -> int:
    """Multiplications and additions of a matrix product, two for each term."""
    n = 2
    for side in shape:
        n *= side
    return n


def peak_rate(dtype: torch.dtype) -> float:
    """Operations a second in one large matrix product."""
    side = LARGE_SIDE[device().type]
    return operations((side, side, side)) / seconds(product((side, side, side), dtype))


def copy_rate() -> float:
    """Bytes a second that a copy reads and writes, of a tensor that no cache holds."""
    n_bytes = COPY_BYTES[device().type]
    source = torch.ones(n_bytes // 4, device=device())
    target = torch.empty_like(source)
    return 2 * n_bytes / seconds(lambda: target.copy_(source))

"""The scripts of ``benchmarks/`` run on a CUDA device: of tiny networks, for what they print, not for their numbers."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks import _machine, growth, roofline, savings, training

pytestmark = pytest.mark.cuda

TINY = "gpt2-tiny-random"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A machine of which a moment is enough."""
    monkeypatch.setattr(_machine, "LARGE_SIDE", {"cuda": 16})
    monkeypatch.setattr(_machine, "COPY_BYTES", {"cuda": 2**10})
    seconds = _machine.seconds
    monkeypatch.setattr(_machine, "seconds", lambda call, **_options: seconds(call, n_timings=1, shortest=1e-6))
    assert _machine.device().type == "cuda"


def names(found) -> str:
    """What was measured, once it is a number."""
    measured = [each for each in found if not isinstance(each, str)]
    assert measured
    assert all(math.isfinite(each.value) for each in measured)
    return "\n".join(each.name for each in measured)


def test_the_roofline(monkeypatch):
    monkeypatch.setattr(roofline, "CASES", [roofline.Case(backbone=TINY, n_tokens=10, batch_size=4)])
    monkeypatch.setattr(roofline, "CUDA_CASES", [])
    if torch.version.cuda is None:  # the profiler of a pretended device looks up a name for each address
        monkeypatch.setattr(roofline, "_idle_share", lambda call: 0.0)
    told = names(roofline.measure())
    for part in ("peak: one large product, float16", "bfloat16: step, achieved", "capture, of copy peak"):
        assert part in told


def test_steps_beside_a_plain_loop(monkeypatch):
    monkeypatch.setattr(training, "SIZES", [])
    monkeypatch.setattr(training, "CUDA_SIZES", [training.Size("minilm", "bit_xor", (("n_bits", 2),), 2)])
    assert "bfloat16 against plain" in names(training.measure())


def test_what_each_measure_saves(monkeypatch):
    monkeypatch.setattr(savings, "SIZES", {"tiny": (TINY, ("bit_xor", {}), 4)})
    told = names(savings.measure())
    assert "without precision" in told
    assert "without parts" not in told  # the CPU's own


def test_growth(monkeypatch):
    size = growth.Size(backbone=TINY, tokens=4, layers=1, batch=2, examples=4)
    monkeypatch.setattr(growth, "TRAINED", [size])
    monkeypatch.setattr(growth, "READ", [size])
    assert "statistics of heads: twice the tokens" in names(growth.measure())

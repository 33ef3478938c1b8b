"""Attribution on real inputs: seconds of integrated gradients on digits, and the sanity check on digits and on bits.

Wanted: integrated gradients of 50 steps on 64 digits in at most 30 s. The tables are those of ``docs/attribution.md``:
MiniLM trained on the digits (300 steps, 3 minutes on one core, made where it is missing) and on bit XOR (the first run
of ``benchmarks/xor_heads.py``), three draws of random weights. 10 minutes of one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter, process_time

import torch

from benchmarks import language_roles, xor_heads
import fpt_viz as fpt
from fpt_viz.measures.attribute_inputs import attribute_inputs
from fpt_viz.measures.attribution_sanity import ON_INPUTS, attribution_sanity
from fpt_viz.records import AttributionSanity

DRAWS = (0, 1, 2)
N_SANITY = 16


def measure() -> Iterator[str]:
    """Seconds, then two tables."""
    digits = fpt.load_model(language_roles.digits_run(0))
    batch = digits.task.distinct(64, "test")
    wall, processor = perf_counter(), process_time()
    found = attribute_inputs(digits, batch, n_steps=50, max_steps=50)
    wall, processor = perf_counter() - wall, process_time() - processor
    yield (
        f"integrated gradients, 50 steps, 64 digits of 16 patches: {wall:.1f} s, {processor:.1f} s of processor on "
        f"{torch.get_num_threads()} threads; {int(found.complete.sum())} of 64 add up within 1 % by then"
    )
    for name, model, answers in (("digits", digits, None), ("bit XOR, answer 0", _xor(), [0])):
        start = process_time()
        sanity = attribution_sanity(model, methods=ON_INPUTS, answers=answers, n_examples=N_SANITY, seeds=DRAWS)
        yield f"\n### {name}: {N_SANITY} examples, {len(DRAWS)} draws, {process_time() - start:.0f} s of processor\n"
        yield from _table(sanity)


def _xor() -> fpt.FrozenPretrainedTransformer:
    return fpt.load_model(xor_heads._run(0))


def _table(sanity: AttributionSanity) -> Iterator[str]:
    yield f"| method | {' | '.join(sanity.stages)} | decides | verdict | with signs, last |"
    yield "| --- |" + " --- |" * (len(sanity.stages) + 3)
    for i, method in enumerate(sanity.methods):
        cells = " | ".join(f"{value:.2f}" for value in sanity.correlation[i].tolist())
        place = -2 + int(sanity.correlation[i, -2:].argmax())
        low, high = sanity.interval[i, place].tolist()
        verdict = "passes" if sanity.passes(method) else "fails"
        signed = f"{float(sanity.signed[i, -1]):.2f}"
        yield f"| `{method}` | {cells} | {sanity.decisive(method):.2f} [{low:.2f}, {high:.2f}] | {verdict} | {signed} |"

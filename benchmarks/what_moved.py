"""What moved the routing heads of the XOR run, and when: five seeds, as the Markdown tables of docs/what_moved.md.

Runs the demo's pretrained configuration with seeds 0 to 4 and telemetry every 10 steps (each a minute or so on 2 cores)
into ``data/runs/what_moved``, where finished runs are found again. Heads are ranked on validation and shares are
measured on test. Means over seeds have 95 % t intervals. 10 minutes in all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
import statistics
from time import process_time

from scipy import stats as scipy_stats
import torch

import fpt_viz as fpt
from fpt_viz.demo import demo_config
from fpt_viz.measures.what_moved import what_moved
from fpt_viz.records import PatternShift, Telemetry

SEEDS = range(5)
RUNS = Path("data/runs/what_moved")
N_TOP = 4
"""The best routing heads on validation."""


def measure() -> Iterator[str]:
    """Tables, one line at a time."""
    runs = [_run(seed) for seed in SEEDS]
    shifts, seconds = [], []
    for record in runs:
        model = fpt.load_model(record)
        before = process_time()
        shifts.append(what_moved(model, n_examples=256, split="test"))
        seconds.append(process_time() - before)
    tops = [fpt.head_statistics(fpt.load_model(record)).ranking()[:N_TOP] for record in runs]
    yield from _shares(shifts, tops)
    yield from _scores(shifts, tops)
    yield from _when(runs, tops)
    yield f"what_moved on 256 examples, 72 heads: {statistics.median(seconds):.1f} s of processor"


def _run(seed: int) -> fpt.RunRecord:
    folder = RUNS / f"seed-{seed}"
    if (folder / "result.json").exists():
        return fpt.load_run(folder)
    config = demo_config("pretrained", n_steps=300, seed=seed)
    config = replace(config, train=replace(config.train, telemetry_every=10))
    return fpt.run(config, folder, overwrite=True, progress=False)


def _shares(shifts: Sequence[PatternShift], tops: Sequence[list[tuple[int, int]]]) -> Iterator[str]:
    """Shares in the change of the pattern: of the best routing heads, and of all heads that are none of them."""
    groups = shifts[0].groups
    yield f"| heads | change | {' | '.join(groups)} |"
    yield "| --- |" + " --- |" * (1 + len(groups))
    for name, best in (("the best routing heads", True), ("all others", False)):
        shares, changes = [], []
        for shift, top in zip(shifts, tops, strict=True):
            chosen = [i for i, head in enumerate(shift.heads) if (head in top) == best]
            shares.append(shift.share[:, chosen].mean(1).tolist())
            changes.append(float(shift.change[chosen].mean()))
        yield f"| {name} | {_over_seeds(changes)} | {' | '.join(map(_over_seeds, zip(*shares, strict=True)))} |"
    yield ""


def _scores(shifts: Sequence[PatternShift], tops: Sequence[list[tuple[int, int]]]) -> Iterator[str]:
    """What each group added to the routing score of the best heads, seed by seed."""
    groups = shifts[0].groups
    yield f"| seed | heads | routing score | {' | '.join(groups)} |"
    yield "| --- | --- | --- |" + " --- |" * len(groups)
    for seed, shift, top in zip(SEEDS, shifts, tops, strict=True):
        assert shift.score_start is not None
        assert shift.score_end is not None
        assert shift.score_part is not None
        chosen = [shift.heads.index(head) for head in top]
        start, end = (float(score[chosen].mean()) for score in (shift.score_start, shift.score_end))
        parts = " | ".join(f"{part:+.3f}" for part in shift.score_part[:, chosen].mean(1).tolist())
        names = " ".join(f"L{layer}H{head}" for layer, head in top)
        yield f"| {seed} | {names} | {start:.3f} to {end:.3f} | {parts} |"
    yield ""


def _when(runs: Sequence[fpt.RunRecord], tops: Sequence[list[tuple[int, int]]]) -> Iterator[str]:
    """When in training the routing appeared, beside when the answers became right."""
    yield "| seed | half of the rise in routing score | half of the gains' change | 75 % of bits | solved |"
    yield "| --- | --- | --- | --- | --- |"
    for seed, record, top in zip(SEEDS, runs, tops, strict=True):
        telemetry = record.telemetry()
        assert telemetry is not None
        assert telemetry.routing_score is not None
        layers, heads = zip(*top, strict=True)
        score = telemetry.routing_score[:, list(layers), list(heads)].mean(1)
        gains = telemetry.gain_change.mean(1)
        checks = [step for step in record.steps if step.validation]
        right = [step.index + 1 for step in checks if step.validation and step.validation.accuracy >= 0.75]
        cells = (seed, _half_way(telemetry, score), _half_way(telemetry, gains), right[0], record.steps_to_solve)
        yield f"| {' | '.join(map(str, cells))} |"
    yield ""


def _half_way(telemetry: Telemetry, values: torch.Tensor) -> int:
    """The first capture at which ``values`` have done half of their way to the last capture."""
    passed = (values - values[0]) / (values[-1] - values[0]) >= 0.5
    return telemetry.steps[int(passed.int().argmax())]


def _over_seeds(values: Sequence[float]) -> str:
    """Mean with its 95 % t interval over seeds."""
    mean, spread = statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5
    reach = float(scipy_stats.t.ppf(0.975, len(values) - 1)) * spread
    return f"{mean:.2f} [{mean - reach:.2f}, {mean + reach:.2f}]"

"""From which layer on the answer of the XOR run can be read: probes and the lens over five seeds, as Markdown tables.

Of the runs of ``benchmarks/xor_heads.py``, which are made where they are missing. The tables of
``docs/reading_states.md``: held-out accuracy of linear probes at the read-out tokens, mean over the five answers,
beside shuffled labels, the same network before training, and one with random weights that was not trained either.
Intervals are 95 % t intervals over seeds, within 0 to 100 %. 6 minutes of one core.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

import torch

from benchmarks.xor_heads import SEEDS, _run
import fpt_viz as fpt
from fpt_viz.config import RunConfig
from fpt_viz.figures._seeds import t_interval
from fpt_viz.loading import build_model
from fpt_viz.measures.probe_states import probe_states
from fpt_viz.records import ProbeAccuracy

N_LAYERS = 6
N_TRAIN = (512, 64)
"""Examples that a probe is trained on."""
ABOVE = 0.9


def measure() -> Iterator[str]:
    """Tables, one line at a time."""
    rows: dict[str, list[list[float]]] = {}
    first: list[str] = []
    for seed in SEEDS:
        record = _run(seed)
        model = fpt.load_model(record)
        random = {**record.config, "backbone": {**record.config["backbone"], "init": "random"}}
        models = {
            "trained": model,
            "before training": build_model(RunConfig.from_dict(record.config)),
            "random weights, not trained": build_model(RunConfig.from_dict(random)),
        }
        for n_train in N_TRAIN:
            for name, probed in models.items():
                found = _probe(probed, n_train)
                before_any = _mean(_probe(probed, n_train, site="resid_pre", layers=[0]).accuracy)
                rows.setdefault(f"probe of {n_train} examples: {name}", []).append(before_any + _mean(found.accuracy))
                if name == "trained" and n_train == N_TRAIN[0]:
                    blank = [float("nan"), *_mean(found.control)]
                    rows.setdefault(f"probe of {n_train} examples: trained, labels shuffled", []).append(blank)
                    layers = sorted(found.readable_from(ABOVE).values(), key=str)
        lens = fpt.measures.logit_lens(model, n_examples=256)
        rows.setdefault("lens: trained", []).append(lens.overall.tolist())
        state = next(state for state, right in zip(lens.states, lens.overall.tolist(), strict=True) if right > ABOVE)
        first.append(f"| {seed} | {', '.join(sorted(set(map(str, layers))))} | {state} |")
    yield f"| state | input | {' | '.join(map(str, range(N_LAYERS)))} |"
    yield "| --- |" + " --- |" * (N_LAYERS + 1)
    for name, by_seed in rows.items():
        yield f"| {name} | {' | '.join(_cell(values) for values in zip(*by_seed, strict=True))} |"
    yield ""
    yield f"| seed | above {ABOVE:.0%}: each answer by a probe of {N_TRAIN[0]} from layer | all by the lens from |"
    yield "| --- | --- | --- |"
    yield from first


def _probe(model: fpt.FrozenPretrainedTransformer, n_train: int, **where: object) -> ProbeAccuracy:
    return probe_states(model, n_examples=n_train, n_test=256, seeds=(0,), **where)  # type: ignore[arg-type]


def _mean(accuracy: torch.Tensor) -> list[float]:
    """Over the answers, of each layer."""
    return [float(value) for value in accuracy.mean(1)]


def _cell(values: Sequence[float]) -> str:
    """Mean and interval over seeds, in percent; empty where it was not measured."""
    if values[0] != values[0]:
        return ""
    low, high = t_interval(values)
    return f"{100 * mean(values):.0f} [{100 * max(0.0, low):.0f}, {100 * min(1.0, high):.0f}]"

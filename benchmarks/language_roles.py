"""What the routing heads of the XOR run did with words before: five seeds, as the tables of docs/language_roles.md.

Of the runs of ``benchmarks/xor_heads.py`` and ``benchmarks/what_moved.py``, which are made where they are missing.
Beside them are trained, with three seeds each, the same configuration with random frozen weights (800 steps, 5 minutes
on one core) and MiniLM on the digits (300 steps, 3 minutes), into ``data/runs``, where finished runs are found again.
Half an hour in all, 4 minutes where all runs are there.

Heads are the units: intervals are over heads, p of permutations of heads that are alike in every seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from benchmarks import what_moved, xor_heads
import fpt_viz as fpt
from fpt_viz.analysis.rank_correlation import RankCorrelation, rank_correlation
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.demo import demo_config
from fpt_viz.figures._seeds import t_interval
from fpt_viz.measures.language_roles import language_roles
from fpt_viz.records import LanguageRoles

SEEDS = range(5)
FEWER_SEEDS = range(3)
"""Of the runs that are trained here."""
RUNS = Path("data/runs")
N_RANDOM_STEPS = 800
N_TOP = 8


def measure() -> Iterator[str]:
    """Tables, one line at a time."""
    found = [language_roles(fpt.load_model(xor_heads._run(seed))) for seed in SEEDS]
    first = found[0]  # roles are of the network before training: the same in every seed
    yield from _levels(first)
    yield from _routers(found)
    routing = _stacked(found)
    yield from _correlations(first, {"the routing score": routing}, "of the trained model")
    yield from _offsets(first, routing)
    yield from _parts(first)
    yield from _random()
    yield from _digits(first)


def _stacked(found: Sequence[LanguageRoles]) -> Tensor:
    """Routing scores, ``[seed head]``."""
    scores = [one.routing_score.flatten() for one in found if one.routing_score is not None]
    return torch.stack(scores)


def _levels(first: LanguageRoles) -> Iterator[str]:
    yield f"\n### The roles themselves ({first.n_pieces} pieces of {first.n_tokens} tokens)\n"
    yield "| role | even attention | all heads, mean | highest head | random weights: mean, highest |"
    yield "| --- | --- | --- | --- | --- |"
    for i, role in enumerate(first.roles):
        score, random = first.score[i], first.random[i]
        head = divmod(int(score.argmax()), score.shape[1])
        yield (
            f"| {role} | {first.uniform[i]:.3f} | {score.mean():.3f} | L{head[0]}H{head[1]} {score[head]:.2f} | "
            f"{random.mean():.3f}, {random.max():.3f} |"
        )


def _routers(found: Sequence[LanguageRoles]) -> Iterator[str]:
    """The best routers' roles beside those of other heads of the same layers."""
    yield f"\n### Roles of the {N_TOP} heads with the highest routing scores, and of other heads of the same layers\n"
    yield "| role | best routers, mean over seeds | others of their layers | difference |"
    yield "| --- | --- | --- | --- |"
    for role in found[0].roles:
        ours, others = [], []
        for one in found:
            assert one.routing_score is not None
            flat, score = one.routing_score.flatten(), one.of(role)
            top = {divmod(int(i), score.shape[1]) for i in flat.argsort(descending=True)[:N_TOP]}
            beside = [
                float(torch.stack([score[layer, h] for h in range(score.shape[1]) if (layer, h) not in top]).mean())
                for layer, _head in top
            ]
            ours.append(mean(float(score[head]) for head in top))
            others.append(mean(beside))
        differences = [a - b for a, b in zip(ours, others, strict=True)]
        low, high = t_interval(differences)
        yield f"| {role} | {mean(ours):.3f} | {mean(others):.3f} | {mean(differences):+.3f} [{low:+.3f}, {high:+.3f}] |"


def _correlations(first: LanguageRoles, numbers: Mapping[str, Tensor], of: str, *, skip: str = "") -> Iterator[str]:
    """Of each role but ``skip`` with numbers ``[seed head]``."""
    layer = _layers(first)
    for name, values in numbers.items():
        yield f"\n### Rank correlation of each role with {name}: {of}, mean over seeds\n"
        yield "| role | over all heads | p | seed by seed | within layers | p | seed by seed |"
        yield "| --- | --- | --- | --- | --- | --- | --- |"
        for role in (role for role in first.roles if role != skip):
            cells = []
            for strata in (None, layer):
                own = first.of(role).flatten()
                all_seeds = rank_correlation(own, values, strata=strata)
                each = [
                    rank_correlation(own, one, strata=strata, n_permutations=0, n_resamples=9).value for one in values
                ]
                cells += [_told(all_seeds), f"{all_seeds.p:.4f}", " ".join(f"{value:+.2f}" for value in each)]
            yield f"| {role} | {' | '.join(cells)} |"
        for words, strata in (("over all heads", None), ("within layers", layer)):
            pairs = [
                rank_correlation(values[i], values[j], strata=strata, n_permutations=0, n_resamples=9).value
                for i in range(len(values))
                for j in range(i)
            ]
            span = f"{mean(pairs):+.2f} ({min(pairs):+.2f} to {max(pairs):+.2f})"
            yield f"\n{name}, one seed with another, {words}: {span}."


def _layers(first: LanguageRoles) -> Tensor:
    n_layers, n_heads = first.score.shape[1:]
    return torch.arange(n_layers).repeat_interleave(n_heads)


def _told(found: RankCorrelation) -> str:
    return f"{found.value:+.2f} [{found.interval[0]:+.2f}, {found.interval[1]:+.2f}]"


def _offsets(first: LanguageRoles, routing: Tensor) -> Iterator[str]:
    """Whether it is the offset that the task needs, or any offset."""
    yield "\n### Rank correlation of the attention at each offset with the routing score, within layers\n"
    found = {
        offset: rank_correlation(first.by_offset[i].flatten(), routing, strata=_layers(first), n_permutations=0).value
        for i, offset in enumerate(first.offsets)
    }
    shown = [offset for offset in first.offsets if abs(offset) <= 10]
    yield f"| offset | {' | '.join(map(str, shown))} |"
    yield "| --- |" + " --- |" * len(shown)
    yield f"| correlation | {' | '.join(f'{found[offset]:+.2f}' for offset in shown)} |"


def _parts(first: LanguageRoles) -> Iterator[str]:
    """The score before training, after it, and what training added."""
    captures = [what_moved._run(seed).telemetry() for seed in SEEDS]
    scores = [one.routing_score for one in captures if one is not None and one.routing_score is not None]
    start, end = (torch.stack([score[i].flatten() for score in scores]) for i in (0, -1))
    numbers = {"the score before training": start, "what training added to the score": end - start}
    yield from _correlations(first, numbers, "of telemetry, 32 validation examples")


def _random() -> Iterator[str]:
    """The same configuration with random frozen weights, each seed with a network of its own."""
    found = []
    for seed in FEWER_SEEDS:
        folder = RUNS / "language_roles" / f"random-{seed}"
        config = demo_config("random", n_steps=N_RANDOM_STEPS, seed=seed)
        found.append(language_roles(fpt.load_model(_trained(folder, config))))
    yield f"\n### Random frozen weights, {N_RANDOM_STEPS} steps: roles of the network with its own routing score\n"
    yield "| role | over all heads, mean over seeds | within layers | highest routing scores |"
    yield "| --- | --- | --- | --- |"
    layer = _layers(found[0])
    for role in found[0].roles:
        cells = []
        for strata in (None, layer):
            each = []
            for one in found:
                assert one.routing_score is not None
                own, score = one.of(role).flatten(), one.routing_score.flatten()
                each.append(rank_correlation(own, score, strata=strata, n_permutations=0, n_resamples=9).value)
            low, high = t_interval(each)
            cells.append(f"{mean(each):+.2f} [{low:+.2f}, {high:+.2f}]")
        highest = ", ".join(f"{float(one.routing_score.max()):.2f}" for one in found if one.routing_score is not None)
        yield f"| {role} | {' | '.join(cells)} | {highest} |"
    for seed in FEWER_SEEDS:
        record = fpt.load_run(RUNS / "language_roles" / f"random-{seed}")
        right = 100 * record.evaluation.accuracy
        yield f"seed {seed}: {right:.1f} % of test bits right, solved at {record.steps_to_solve}"


def _digits(first: LanguageRoles) -> Iterator[str]:
    """Patches have no routing score: the logit drop without a head stands in its place."""
    drops, right = [], []
    for seed in FEWER_SEEDS:
        record = digits_run(seed)
        right.append(record.evaluation.accuracy)
        effects = fpt.ablate_heads(fpt.load_model(record), n_examples=256)
        drops.append(torch.tensor(effects.logit_drop))
    yield f"\nDigits, test accuracy: {', '.join(f'{100 * value:.1f} %' for value in right)}"
    numbers = {"what is lost without the head": torch.stack(drops)}
    yield from _correlations(first, numbers, "logit difference on digits", skip="needed_offset")


def digits_run(seed: int) -> fpt.RunRecord:
    """MiniLM on the digits, 300 steps."""
    config = RunConfig(
        task=TaskConfig(name="digits"),
        backbone=BackboneConfig(name="minilm"),
        train=TrainConfig(n_steps=300, batch_size=64, validate_every=50, seed=seed),
    )
    return _trained(RUNS / "digits" / f"seed-{seed}", config)


def _trained(folder: Path, config: RunConfig) -> fpt.RunRecord:
    if (folder / "result.json").exists():
        return fpt.load_run(folder)
    return fpt.run(config, folder, overwrite=True, progress=False)

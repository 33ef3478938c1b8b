"""Which heads of the XOR run route, and what breaks without them: five seeds, as Markdown tables.

Runs the demo's pretrained configuration with seeds 0 to 4 (each a minute or so on 2 cores) into
``data/runs/xor_heads``, where finished runs are found again, and prints the tables of ``docs/xor_heads.md``. Heads are
ranked on validation and everything is reported on test. Means over seeds have 95 % t intervals. 20 minutes in all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
import statistics

import pandas as pd
from scipy import stats as scipy_stats
import torch

import fpt_viz as fpt
from fpt_viz.demo import demo_config
from fpt_viz.records import AblationEffects, HeadStatistics, TopHeadsEffects
from fpt_viz.records.parts import words_of

SEEDS = range(5)
RUNS = Path("data/runs/xor_heads")
KS = (1, 2, 4, 8)
KINDS = ("zero", "mean", "resample")
OUTCOMES = (("accuracy_drop", 100), ("loss_rise", 1), ("logit_drop", 1))
"""What is told of an ablation, and by how much it is multiplied for the table."""


def measure() -> Iterator[str]:
    """Tables, one line at a time."""
    runs = [_run(seed) for seed in SEEDS]
    models = [fpt.load_model(record) for record in runs]
    validation = [fpt.head_statistics(model, split="validation") for model in models]
    test = [fpt.head_statistics(model, split="test") for model in models]
    yield from _routing(runs, validation, test)
    for kind in KINDS:
        yield from _ablation(models, validation, kind)
    yield from _single(models, validation)
    yield from _breakdown(models, validation)
    yield from _patching(models, validation)
    yield from _paths(models, validation)


def _run(seed: int) -> fpt.RunRecord:
    folder = RUNS / f"seed-{seed}"
    if (folder / "result.json").exists():
        return fpt.load_run(folder)
    return fpt.run(demo_config("pretrained", n_steps=300, seed=seed), folder, overwrite=True, progress=False)


def _over_seeds(values: Sequence[float], factor: float = 1, digits: int = 2) -> str:
    """Mean with its 95 % t interval over seeds."""
    mean = statistics.mean(values)
    spread = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    reach = float(scipy_stats.t.ppf(0.975, len(values) - 1)) * spread if spread else 0.0
    return f"{factor * mean:.{digits}f} [{factor * (mean - reach):.{digits}f}, {factor * (mean + reach):.{digits}f}]"


def _routing(
    runs: Sequence[fpt.RunRecord], validation: Sequence[HeadStatistics], test: Sequence[HeadStatistics]
) -> Iterator[str]:
    yield "\n### Routing scores (first eight heads by validation score, their scores on test)\n"
    yield "| seed | solved at step | test bits right | heads: score [95 % interval, examples] | uniform | permuted |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for seed, record, ranked, told in zip(SEEDS, runs, validation, test, strict=True):
        assert told.routing_score is not None
        assert told.routing_interval is not None
        assert told.permuted is not None
        heads = ranked.ranking()[:8]
        words = ", ".join(
            f"{words_of(head)} {told.routing_score[head]:.2f} "
            f"[{told.routing_interval[head][0]:.2f}, {told.routing_interval[head][1]:.2f}]"
            for head in heads
        )
        permuted = ", ".join(f"{told.permuted[head]:.2f}" for head in heads)
        accuracy = f"{100 * record.evaluation.accuracy:.2f} %" if record.evaluation else "-"
        yield f"| {seed} | {record.steps_to_solve} | {accuracy} | {words} | {told.uniform:.2f} | {permuted} |"
    in_top = [set(ranked.ranking()[:8]) for ranked in validation]
    often = sorted({head for heads in in_top for head in heads}, key=lambda h: -sum(h in heads for heads in in_top))
    shared = ", ".join(f"{words_of(h)} {sum(h in t for t in in_top)}" for h in often if sum(h in t for t in in_top) > 1)
    yield f"\nHeads among the first eight in more than one seed (in how many): {shared or 'none'}."


def _ablation(models: Sequence[object], validation: Sequence[HeadStatistics], kind: str) -> Iterator[str]:
    found: list[TopHeadsEffects] = [
        fpt.measures.ablate_top_heads(model, ranking=ranked.ranking(), ks=KS, n_random=20, kind=kind)
        for model, ranked in zip(models, validation, strict=True)
    ]
    yield f"\n### {kind.capitalize()} ablation of the first k routing heads together, beside 20 random sets of k\n"
    yield "| k | accuracy drop, points | random | loss rise, nats | random | logit difference drop | random |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for i, k in enumerate(KS):
        cells = []
        for name, factor in OUTCOMES:
            cells.append(_over_seeds([getattr(effects.top, name)[i] for effects in found], factor))
            cells.append(_over_seeds([statistics.mean(getattr(effects.random[i], name)) for effects in found], factor))
        yield f"| {k} | {' | '.join(cells)} |"
    yield f"\nSeed by seed, {kind}: accuracy drop in points [95 % interval over examples] (random: mean, worst)\n"
    yield "| seed | " + " | ".join(f"k = {k}" for k in KS) + " |"
    yield "| --- |" + " --- |" * len(KS)
    for seed, effects in zip(SEEDS, found, strict=True):
        cells = []
        for i in range(len(KS)):
            low, high = effects.top.accuracy_interval[i]
            random = effects.random[i].accuracy_drop
            cells.append(
                f"{100 * effects.top.accuracy_drop[i]:.1f} [{100 * low:.1f}, {100 * high:.1f}] "
                f"({100 * statistics.mean(random):.1f}, {100 * max(random):.1f})"
            )
        yield f"| {seed} | {' | '.join(cells)} |"


def _single(models: Sequence[object], validation: Sequence[HeadStatistics]) -> Iterator[str]:
    yield "\n### Does the routing score tell which head matters? (zero ablation of each head alone)\n"
    yield "| seed | rank correlation, score and logit drop | largest logit drops (routing rank) | MLPs: accuracy drop |"
    yield "| --- | --- | --- | --- |"
    for seed, model, ranked in zip(SEEDS, models, validation, strict=True):
        effects: AblationEffects = fpt.ablate_heads(model)
        assert ranked.routing_score is not None
        scores = [float(ranked.routing_score[cut[0][0], cut[0][1]]) for cut in effects.sets]
        rho = float(scipy_stats.spearmanr(scores, effects.logit_drop).statistic)
        ranking = ranked.ranking()
        order = sorted(range(len(effects.sets)), key=lambda i: -effects.logit_drop[i])[:5]
        most = ", ".join(
            f"{words_of(effects.sets[i][0])} {effects.logit_drop[i]:.2f} ({ranking.index(effects.sets[i][0]) + 1})"
            for i in order
        )
        mlps: AblationEffects = fpt.ablate_heads(model, heads=[("mlp", layer) for layer in range(6)])
        drops = ", ".join(f"{100 * drop:.0f}" for drop in mlps.accuracy_drop)
        yield f"| {seed} | {rho:.2f} | {most} | {drops} |"


def _breakdown(models: Sequence[object], validation: Sequence[HeadStatistics]) -> Iterator[str]:
    yield "\n### The first routing head by the answer's class and by position (score on test)\n"
    yield "| seed | head | all | answer 0 | answer 1 | by position |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for seed, model, ranked in zip(SEEDS, models, validation, strict=True):
        found = fpt.measures.routing_breakdown(model)
        head = ranked.ranking()[0]
        by_class = [float(found.score[found.group("class", str(bit))][head]) for bit in (0, 1)]
        places = [i for i, kind in enumerate(found.kinds) if kind == "position" and found.n_scored[i]]
        by_place = ", ".join(f"{found.names[i]} {float(found.score[i][head]):.2f}" for i in places)
        words = " | ".join(f"{value:.2f}" for value in (float(found.score[0][head]), *by_class))
        yield f"| {seed} | {words_of(head)} | {words} | {by_place} |"


def _patching(models: Sequence[object], validation: Sequence[HeadStatistics]) -> Iterator[str]:
    yield "\n### Activation patching (one bit of the first string flipped; the clean value into the corrupted run)\n"
    yield "| seed | largest z effects (routing rank) | sum over the 8 routing heads | over all heads |"
    yield "| --- | --- | --- | --- |"
    residuals = []
    for seed, model, ranked in zip(SEEDS, models, validation, strict=True):
        effects = fpt.measures.patch_activations(model, site="z")
        ranking = ranked.ranking()
        order = effects.values.flatten().argsort(descending=True)[:5]
        most = []
        for flat in order:
            head = divmod(int(flat), effects.values.shape[1])
            low, high = effects.intervals[head]
            rank = ranking.index(head) + 1
            most.append(f"{words_of(head)} {effects.values[head]:.2f} [{low:.2f}, {high:.2f}] ({rank})")
        of_top = sum(float(effects.values[head]) for head in ranking[:8])
        yield f"| {seed} | {', '.join(most)} | {of_top:.2f} | {float(effects.values.sum()):.2f} |"
        residuals.append(_by_role(model))
    yield "\nThe residual stream before each layer, flipped token against its partner (means over seeds): clean = 1\n"
    yield "| before layer | at the flipped token | at the token that is read out for it |"
    yield "| --- | --- | --- |"
    for layer in range(residuals[0].shape[1]):
        cells = [_over_seeds([float(found[place, layer]) for found in residuals]) for place in (0, 1)]
        yield f"| {layer} | {' | '.join(cells)} |"


def _by_role(model: fpt.FrozenPretrainedTransformer) -> torch.Tensor:
    """Effects ``[role layer]`` of the residual stream at the flipped bit and at its partner, mean over positions."""
    n_bits = model.task.n_readout
    found = []
    for position in range(n_bits):
        effects = fpt.measures.patch_activations(model, site="resid_pre", corrupt_position=position)
        found.append(torch.stack([effects.values[:, position], effects.values[:, n_bits + position]]))
    return torch.stack(found).mean(0)


def _paths(models: Sequence[object], validation: Sequence[HeadStatistics]) -> Iterator[str]:
    yield "\n### Path patching of the first eight routing heads: the direct path to the output, and into other heads\n"
    yield "| seed | direct to the output | strongest into another head's q, k and v |"
    yield "| --- | --- | --- |"
    for seed, model, ranked in zip(SEEDS, models, validation, strict=True):
        senders = ranked.ranking()[:8]
        direct = fpt.measures.patch_paths(model, senders=senders, into="output", n_examples=64)
        words = ", ".join(
            f"{words_of(head)} {float(value):.2f}" for head, value in zip(senders, direct.values.flatten(), strict=True)
        )
        into = fpt.measures.patch_paths(model, senders=senders, into=("q", "k", "v"), n_examples=64)
        table = pd.DataFrame(into.values.numpy(), index=into.labels[0], columns=into.labels[1]).stack().dropna()
        top = table.abs().sort_values(ascending=False).head(4).index
        yield f"| {seed} | {words} | {', '.join(f'{a} to {b} {table[a, b]:.2f}' for a, b in top)} |"

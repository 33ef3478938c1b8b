"""The main job: a frozen language transformer learns bit XOR, a random one does not in the same time, and here is why.

Trains both, ranks the heads by routing score, cuts them to see whether they matter, and writes a report, the figures
and the two runs.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from rich.console import Console
import torch

from fpt_viz.capture import capture_attention
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.errors import RunFolderError, UnknownNameError
from fpt_viz.export import Figure, Recipe
from fpt_viz.figures.ablation_effects import ablation_effects
from fpt_viz.figures.attention_heatmap import attention_heatmap
from fpt_viz.figures.head_grid import head_grid
from fpt_viz.figures.routing_table import routing_table
from fpt_viz.figures.run_comparison import run_comparison
from fpt_viz.figures.top_heads import top_heads
from fpt_viz.figures.training_curves import training_curves
from fpt_viz.loading import load_model
from fpt_viz.measures.ablate_heads import ablate_heads
from fpt_viz.measures.ablate_top_heads import ablate_top_heads
from fpt_viz.measures.head_statistics import head_statistics
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import AblationEffects, AttentionMaps, HeadStatistics, RunRecord, TopHeadsEffects
from fpt_viz.records.run import CONFIG
from fpt_viz.report import write_report
from fpt_viz.train import pick_device, run

SUFFIXES = ("pdf", "svg", "png")
WIDE = {"head_grid"}
"""Figures that want both columns of a page."""
INITS: tuple[Literal["pretrained", "random"], ...] = ("pretrained", "random")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much the demo does."""

    n_steps: int
    """At most; a run stops earlier when it has solved the task."""
    n_examples: int
    """Of statistics and ablation; all there are where a split holds fewer."""
    ks: tuple[int, ...]
    """Sizes of the sets of heads that are cut together."""
    n_random: int
    """Random sets of each size."""


SCALES = {
    "full": Scale(n_steps=300, n_examples=512, ks=(1, 2, 4, 8), n_random=20),
    "smoke": Scale(n_steps=20, n_examples=64, ks=(1, 2), n_random=2),
}


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo found, and where it lies."""

    runs: dict[str, RunRecord]
    """``pretrained`` and ``random``."""
    validation: HeadStatistics
    """Of the pretrained run's heads; ranks them."""
    test: HeadStatistics
    """The same heads on examples that the ranking has not seen."""
    single: AblationEffects
    """Each head of the pretrained run cut alone."""
    top: TopHeadsEffects
    """The best k heads cut together, beside random sets."""
    seconds: float
    out: Path

    @property
    def top_head(self) -> tuple[int, int]:
        """The head with the highest routing score on validation, as (layer, head)."""
        return self.validation.ranking()[0]

    def random_at_solved(self) -> float | None:
        """Validation accuracy of the random run at the step where the pretrained one was solved; None if it was not."""
        solved = self.runs["pretrained"].steps_to_solve
        checks = {s.index + 1: s.validation.accuracy for s in self.runs["random"].steps if s.validation is not None}
        return checks.get(solved) if solved is not None else None

    def to_json(self) -> dict[str, Any]:
        """The object that ``fpt-viz demo --json`` prints."""
        layer, head = self.top_head
        assert self.test.routing_score is not None and self.test.routing_interval is not None  # XOR has needs
        rows = self.top.rows()
        return {
            "accuracy": {init: run.evaluation.accuracy for init, run in self.runs.items()},
            "exact": {init: run.evaluation.exact for init, run in self.runs.items()},
            "steps_to_solve": {init: run.steps_to_solve for init, run in self.runs.items()},
            "random_accuracy_when_pretrained_solved": self.random_at_solved(),
            "frozen_intact": all(run.result["frozen_intact"] for run in self.runs.values()),
            "top_head": {
                "layer": layer,
                "head": head,
                "routing_score": float(self.test.routing_score[layer, head]),
                "interval": self.test.routing_interval[layer, head].tolist(),
            },
            "ablation": [
                {
                    "k": row["k"],
                    "accuracy_drop": row["accuracy_drop"],
                    "random_drop": row["random_accuracy_drop"],
                    "interval": row["accuracy_interval"],
                    "logit_drop": row["logit_drop"],
                    "random_logit_drop": row["random_logit_drop"],
                    "logit_interval": row["logit_interval"],
                }
                for row in rows
            ],
            "seconds": self.seconds,
            "paths": {
                "report": str(self.out / "report.html"),
                "figures": str(self.out / "figures"),
                "runs": {init: str(run.path) for init, run in self.runs.items()},
            },
        }

    def summary(self) -> list[str]:
        """What was found, in sentences; the same stand at the head of the report."""
        return [*_learning(self), *_routing(self), *_cutting(self)]


def run_demo(
    out: str | Path,
    *,
    scale: Literal["smoke", "full"] = "full",
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
) -> DemoResult:
    """Do the main job into the folder ``out``: ``report.html``, ``figures/`` and ``runs/{pretrained,random}/``.

    Args:
        out: A folder without the demo's runs, unless ``resume`` or ``overwrite`` says otherwise.
        scale: ``"full"`` takes 2 to 3 minutes on two CPU cores; ``"smoke"`` some 20 seconds, and solves nothing.
        seed: Of everything.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``; None takes CUDA where there is one.
        resume: Go on with runs that were cut off.
        overwrite: Remove the demo's runs that ``out`` holds.
        progress: Bars on stderr; None shows them on a terminal.

    Raises:
        RunFolderError: ``out`` holds the runs already.
        SourceError: MiniLM's weights are missing or altered.
    """
    if scale not in SCALES:
        raise UnknownNameError("scale", scale, SCALES)
    size, folder, start = SCALES[scale], Path(out), perf_counter()
    runs: dict[str, RunRecord] = {}
    chosen = pick_device(device)
    for where in (folder / "runs" / init for init in INITS):
        if (where / CONFIG).exists() and not (resume or overwrite):
            raise RunFolderError(
                f"{where} holds a run already: resume the demo, overwrite it, or choose another folder"
            )
    for init in INITS:
        config = demo_config(init, n_steps=size.n_steps, seed=seed)
        where = folder / "runs" / init
        runs[init] = run(config, where, device=device, resume=resume, overwrite=overwrite, progress=progress)
    with _stage("reading the heads", visible=progress):
        statistics = {init: _measure_heads(record, size, seed, chosen) for init, record in runs.items()}
        model = load_model(runs["pretrained"], device=chosen)
    with _stage("cutting heads", visible=progress):
        validation, test = statistics["pretrained"]
        single, top = _cut_heads(model, runs["pretrained"], validation, size, seed)
    result = DemoResult(
        runs=runs,
        validation=validation,
        test=test,
        single=single,
        top=top,
        seconds=perf_counter() - start,
        out=folder,
    )
    with _stage("drawing", visible=progress):
        for name, (figure, recipe) in _figures(result).items():
            for suffix in SUFFIXES:
                preset = "paper-wide" if name in WIDE else "paper"
                figure.save(folder / "figures" / f"{name}.{suffix}", preset=preset, recipe=recipe)
        pairs = {runs[init].name: pair for init, pair in statistics.items()}
        title = "A frozen language transformer learns bit XOR"
        write_report(
            folder / "report.html", list(runs.values()), title=title, summary=result.summary(), statistics=pairs
        )
    return replace(result, seconds=perf_counter() - start)


def demo_config(init: Literal["pretrained", "random"], *, n_steps: int, seed: int) -> RunConfig:
    """The run of the demo for MiniLM with pretrained or random weights, everything else alike."""
    train = TrainConfig(n_steps=n_steps, batch_size=64, validate_every=10, stop_when_solved=True, seed=seed)
    return RunConfig(task=TaskConfig(name="bit_xor"), backbone=BackboneConfig(name="minilm", init=init), train=train)


def _measure_heads(
    record: RunRecord, size: Scale, seed: int, device: torch.device
) -> tuple[HeadStatistics, HeadStatistics]:
    """Statistics on validation and on test, and a few captured patterns, all saved beside the run."""
    model = load_model(record, device=device)
    validation = head_statistics(model, n_examples=size.n_examples, split="validation", seed=seed)
    test = head_statistics(model, n_examples=size.n_examples, split="test", seed=seed)
    validation.save(record.path / "head_statistics.safetensors")
    test.save(record.path / "head_statistics_test.safetensors")
    _capture(model, seed).save(record.path / "attention_maps.safetensors")
    return validation, test


def _capture(model: FrozenPretrainedTransformer, seed: int) -> AttentionMaps:
    """All patterns of eight test examples."""
    return capture_attention(model, model.task.distinct(8, "test", seed), queries=None)


def _cut_heads(
    model: FrozenPretrainedTransformer, record: RunRecord, validation: HeadStatistics, size: Scale, seed: int
) -> tuple[AblationEffects, TopHeadsEffects]:
    """The effects of each head alone and of the best ones together, on test, saved beside the run."""
    single = ablate_heads(model, n_examples=size.n_examples, seed=seed)
    top = ablate_top_heads(
        model,
        ranking=validation.ranking(),
        ks=size.ks,
        n_random=size.n_random,
        n_examples=size.n_examples,
        seed=seed,
    )
    single.save(record.path / "ablate_heads.json")
    top.save(record.path / "ablate_top_heads.json")
    return single, top


def _figures(result: DemoResult) -> dict[str, tuple[Figure, Recipe]]:
    """Every figure of the demo by file name, and how the command line makes it."""
    layer, head = result.top_head
    maps = result.runs["pretrained"].maps()
    assert maps is not None  # saved above
    logit = ("outcome=logit",)
    both, one = tuple(result.runs.values()), (result.runs["pretrained"],)
    stats = result.validation
    drawn: dict[str, tuple[Figure, tuple[RunRecord, ...], tuple[str, ...]]] = {
        "training_curves": (training_curves(both), both, ()),
        "run_comparison": (run_comparison(both), both, ()),
        "head_grid": (
            head_grid(result.test, highlight=[result.top_head]),
            one,
            ("split=test", f"highlight=[[{layer}, {head}]]"),
        ),
        "attention_heatmap": (
            attention_heatmap(maps, layer=layer, head=head),
            one,
            (f"layer={layer}", f"head={head}"),
        ),
        "routing_table": (routing_table(stats, result.test), one, ()),
        "ablation_effects": (ablation_effects(result.single, stats=stats), one, ()),
        "ablation_effects_logit": (ablation_effects(result.single, stats=stats, outcome="logit"), one, logit),
        "top_heads": (top_heads(result.top), one, ()),
        "top_heads_logit": (top_heads(result.top, outcome="logit"), one, logit),
    }
    return {name: (figure, _recipe(name, runs, settings)) for name, (figure, runs, settings) in drawn.items()}


def _recipe(name: str, runs: tuple[RunRecord, ...], settings: tuple[str, ...]) -> Recipe:
    """How the command line makes the figure that is saved as ``name``, which may end in the outcome it shows."""
    figure = name.removesuffix("_logit")
    return Recipe(figure=figure, inputs=tuple(run.path for run in runs), settings=settings, records=runs)


def _learning(result: DemoResult) -> list[str]:
    """What both networks learned."""
    pretrained, random = result.runs["pretrained"], result.runs["random"]
    ledger = pretrained.ledger
    share = 100 * ledger.n_trained / ledger.n_total
    right = pretrained.evaluation
    lines = [
        f"MiniLM with its attention and feed-forward weights frozen ({ledger.n_trained:,} of {ledger.n_total:,} values "
        f"trained, {share:.2f} %) gets {100 * right.accuracy:.2f} % of the bits and {100 * right.exact:.2f} % of the "
        f"whole strings of {right.n_examples} unseen inputs right after {pretrained.result['n_steps']} steps"
        + (f"; solved at step {pretrained.steps_to_solve}." if pretrained.steps_to_solve is not None else ".")
    ]
    same = result.random_at_solved()
    at_same = (
        f" (at step {pretrained.steps_to_solve}: {100 * same:.2f} % of validation bits)" if same is not None else ""
    )
    lines.append(
        f"The same network with random frozen weights is at {100 * random.evaluation.accuracy:.2f} % after "
        f"{random.result['n_steps']} steps{at_same}; guessing gives {100 * right.chance:.0f} %. "
        "One seed each: other seeds and learning rates move these numbers."
    )
    intact = all(run.result["frozen_intact"] for run in result.runs.values())
    moved = [f"{name} ({init})" for init, run in result.runs.items() for name in run.result["moved"]]
    lines.append("No frozen weight moved." if intact else f"Frozen weights moved: {', '.join(moved[:3])}.")
    return lines


def _routing(result: DemoResult) -> list[str]:
    """Where the best head looks."""
    layer, head = result.top_head
    test = result.test
    assert test.routing_score is not None and test.routing_interval is not None  # XOR has needs ...
    assert test.permuted is not None  # ... of five read-out tokens
    low, high = test.routing_interval[layer, head].tolist()
    score, permuted = float(test.routing_score[layer, head]), float(test.permuted[layer, head])
    return [
        f"Head L{layer}H{head}, chosen on validation, puts {score:.2f} of its read-out attention on the partner bit on "
        f"test (95 % interval {low:.2f} to {high:.2f}); a head that looks everywhere alike would put "
        f"{test.uniform:.2f} there, and on the partners of other bits it puts {permuted:.2f}."
    ]


def _cutting(result: DemoResult) -> list[str]:
    """What the best heads are worth."""
    rows = result.top.rows()
    one, most = rows[0], rows[-1]
    n_sets = len(result.top.random[-1].sets)
    lines = [
        f"Cutting that head alone changes the accuracy by {_points(one['accuracy_drop'])} points, cutting the best "
        f"{most['k']} together by {_points(most['accuracy_drop'])}; {most['k']} random heads: "
        f"{_points(most['random_accuracy_drop'])} on average over {n_sets} sets.",
        f"The right answer leads the wrong one by {result.top.top.baseline_logit:.1f} logits; without that head the "
        f"lead falls by {one['logit_drop']:.2f}, without the best {most['k']} by {most['logit_drop']:.2f}, without "
        f"{most['k']} random heads by {most['random_logit_drop']:.2f}.",
    ]
    if abs(one["accuracy_drop"]) < 0.05:
        lines.append("One head alone costs little: others do the same work, or its attention was not what counted.")
    return lines


def _points(drop: float) -> str:
    """A drop as a change in percentage points, with its sign."""
    change = round(-100 * drop, 1)
    return f"{change:+.1f}" if change else "0.0"


@contextlib.contextmanager
def _stage(what: str, *, visible: bool | None) -> Iterator[None]:
    """A line on stderr that says what is being done; nothing where there is no terminal."""
    console = Console(stderr=True)
    if console.is_terminal if visible is None else visible:
        with console.status(what):
            yield
    else:
        yield

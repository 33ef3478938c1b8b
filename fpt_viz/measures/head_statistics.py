"""What is known of each head over a data set, in one pass whose memory does not grow with the number of examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from jaxtyping import Float, Int
import torch
from torch import Tensor
from torch.nn import functional

from fpt_viz.analysis._needs import needed_keys, others_share
from fpt_viz.analysis.attention_entropy import attention_entropy
from fpt_viz.analysis.uniform_routing_score import uniform_routing_score
from fpt_viz.capture import Queries, each_attention, query_rows, visible_keys
from fpt_viz.errors import CaptureError, ConfigError
from fpt_viz.measures.base import check_batch_size
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import HeadStatistics
from fpt_viz.tasks import Batch, Task

__all__ = ["head_statistics"]

N_RESAMPLES = 1000
DEFAULT_BUDGET_BYTES = 2 << 30


def head_statistics(
    model: FrozenPretrainedTransformer,
    task: Task | None = None,
    *,
    n_examples: int = 512,
    split: str = "validation",
    seed: int = 0,
    queries: Queries = None,
    batch_size: int = 64,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
) -> HeadStatistics:
    """Mean pattern, entropy, distance, sink mass and routing score of every head over distinct examples of a split.

    Args:
        model: Its mode, kernel and random state are as before afterwards.
        task: None for the model's own.
        n_examples: Asked for; where the split holds fewer, all of it is used once, and the true number is recorded.
        split: Rank heads on ``"validation"``, report them on ``"test"``.
        seed: Of the choice of examples and of the bootstrap.
        queries: Rows that are read: None for all, ``"readout"`` for the tokens that are read out, or token indices.
        batch_size: Examples in one forward pass.
        budget_bytes: The most memory that one batch's patterns and the mean pattern may take.

    Intervals are Poisson bootstrap intervals (Chamandy et al., 2012, "Estimating uncertainty for massive data
    streams"): each example counts Poisson(1) times in each of 1,000 resamples, so no example needs to be kept.

    Raises:
        CaptureError: The estimate of the memory is over the budget.
        ConfigError: The tokens that are read out differ between examples, and ``queries="readout"`` was asked for.
    """
    check_batch_size(batch_size)
    task = task or model.task
    batch = task.distinct(n_examples, split, seed)
    device = next(model.parameters()).device
    rows = query_rows(model, batch.to(device), queries).cpu()
    tokens = _common_rows(rows, queries, batch.inputs.shape[1])
    _check_budget(model, len(tokens), batch.inputs.shape[1], min(batch_size, len(batch)), budget_bytes)
    totals = _Totals(torch.Generator().manual_seed(seed))
    shape = (len(tokens), batch.inputs.shape[1])
    for start in range(0, len(batch), batch_size):
        part, part_rows = batch[start : start + batch_size].trimmed(), _without_end(rows[start : start + batch_size])
        _add(totals, model, task, part.to(device), part_rows.to(device), shape)
    return _statistics(totals, model, task, tokens, (len(batch), split, seed))


@dataclass
class _Totals:
    """Running sums over examples; each is weighted by what its mean is over."""

    rng: torch.Generator
    sums: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, total: Tensor, weight: Tensor) -> None:
        """Add to a mean: ``total`` in units of ``weight``."""
        self.sums[name] = self.sums.get(name, 0) + total.double()
        self.weights[name] = self.weights.get(name, 0) + weight.double()

    def mean(self, name: str) -> Tensor:
        """The mean so far; 0 where nothing counted."""
        return self.sums[name] / self.weights[name].clamp(min=1e-12)


class _Targets(NamedTuple):
    """What a row's attention is summed against, and how many rows of each example count."""

    values: Float[Tensor, "batch pair target"]
    """Over the pairs of a query and a key: on the first token, by distance, on what is needed, on what others need."""
    n_scored: Int[Tensor, " batch"] | None
    n_permuted: Int[Tensor, " batch"] | None
    uniform: Float[Tensor, " batch"] | None
    """Uniform scores, summed over the scored queries."""


def _targets(model: FrozenPretrainedTransformer, task: Task, part: Batch, rows: Int[Tensor, "batch query"]) -> _Targets:
    n_keys = part.inputs.shape[1]
    read = (rows >= 0)[..., None]
    keys = torch.arange(n_keys, device=rows.device)
    first = (read & (keys == 0)).float()
    far = (rows[..., None] - keys).abs().float() * read
    found = [first, far]
    needs = task.needs(part.inputs.cpu())
    if needs is None:
        return _Targets(torch.stack(found, -1).flatten(1, 2), None, None, None)
    needs = needs.to(rows.device).gather(1, rows.clamp(min=0)[..., None].expand(-1, -1, needs.shape[2]))
    visible = visible_keys(part, rows, causal=model.backbone.causal, reach=model.backbone.reach)
    needed = needed_keys(needs, rows)
    share, n_permuted = others_share(needs, rows, visible)
    share = share * (n_permuted > 0)[:, None, None]
    uniform, n_uniform = uniform_routing_score(needs, visible, rows)
    values = torch.stack([*found, needed.float(), share.float()], -1).flatten(1, 2)
    return _Targets(values, needed.any(-1).sum(-1), n_permuted, uniform.double() * n_uniform)


def _add(
    totals: _Totals,
    model: FrozenPretrainedTransformer,
    task: Task,
    part: Batch,
    rows: Int[Tensor, "batch query"],
    shape: tuple[int, int],
) -> None:
    """Add the attention on the examples ``part`` to ``totals``; ``shape`` is that of the mean pattern.

    Each layer is reduced as soon as it is read, in one product with all that it is summed against.
    """
    targets = _targets(model, task, part, rows)
    patterns: dict[int, Tensor] = {}
    entropies: dict[int, Tensor] = {}
    sums: dict[int, Tensor] = {}

    def reduce(layer: int, weights: Float[Tensor, "batch head query key"]) -> None:
        patterns[layer] = weights.sum(0).cpu()
        sums[layer] = (weights.flatten(2) @ targets.values).cpu()
        entropies[layer] = attention_entropy(weights[None])[0].sum((0, 2)).cpu()

    layers, heads = range(model.backbone.n_layers), range(model.backbone.n_heads)
    each_attention(model, part, layers, heads, rows, reduce)
    mean_pattern, entropy = (torch.stack([found[layer] for layer in layers]) for found in (patterns, entropies))
    summed = torch.stack([sums[layer] for layer in layers]).double()

    real = torch.ones(part.inputs.shape[:2]) if part.mask is None else part.mask.float().cpu()
    read = (rows >= 0).float().cpu()
    to_shape = (0, shape[1] - mean_pattern.shape[3], 0, shape[0] - mean_pattern.shape[2])  # what was trimmed
    seen = functional.pad(torch.einsum("bq,bk->qk", read, real), to_shape)
    totals.add("mean_pattern", functional.pad(mean_pattern, to_shape), seen)
    totals.add("entropy", entropy, read.sum())
    totals.add("sink_mass", summed[..., 0].sum(1), read.sum())
    totals.add("distance", summed[..., 1].sum(1), read.sum())
    if targets.n_scored is None or targets.n_permuted is None or targets.uniform is None:
        return
    n_scored, score = targets.n_scored.cpu().double(), summed[..., 2]
    totals.add("routing_score", score.sum(1), n_scored.sum())
    once = torch.ones(len(n_scored), N_RESAMPLES, dtype=torch.float64)  # drawn example by example, whatever the batches
    times = torch.poisson(once, generator=totals.rng).T
    totals.add("resampled", torch.einsum("rb,lbh->rlh", times, score), (times @ n_scored)[:, None, None])
    totals.add("permuted", summed[..., 3].sum(1), targets.n_permuted.cpu().sum())
    totals.add("uniform", targets.uniform.cpu().sum(), n_scored.sum())


def _statistics(
    totals: _Totals,
    model: FrozenPretrainedTransformer,
    task: Task,
    tokens: tuple[int, ...],
    sample: tuple[int, str, int],
) -> HeadStatistics:
    scored = "routing_score" in totals.sums and bool(totals.weights["routing_score"] > 0)
    interval = None
    if scored:
        bounds = torch.quantile(totals.mean("resampled"), torch.tensor([0.025, 0.975]).double(), dim=0)
        interval = bounds.permute(1, 2, 0).float()
    has_others = scored and bool(totals.weights["permuted"] > 0)
    return HeadStatistics(
        mean_pattern=totals.mean("mean_pattern").float(),
        entropy=totals.mean("entropy").float(),
        distance=totals.mean("distance").float(),
        sink_mass=totals.mean("sink_mass").float(),
        routing_score=totals.mean("routing_score").float() if scored else None,
        routing_interval=interval,
        uniform=float(totals.mean("uniform")) if scored else None,
        permuted=totals.mean("permuted").float() if has_others else None,
        queries=tokens,
        labels=task.token_names(),
        n_examples=sample[0],
        split=sample[1],
        seed=sample[2],
        causal=model.backbone.causal,
        geometry=task.geometry(),
        source=model.source,
    )


def _without_end(rows: Int[Tensor, "batch query"]) -> Int[Tensor, "batch used"]:
    """``rows`` without those at the end that no example has."""
    used = (rows >= 0).any(0).nonzero()
    return rows[:, : int(used.max()) + 1 if len(used) else 1]


def _common_rows(rows: Int[Tensor, "batch query"], queries: Queries, n_tokens: int) -> tuple[int, ...]:
    """The token of each row, which must be the same for every example that has it."""
    if queries != "readout":
        return tuple(range(n_tokens)) if queries is None else tuple(int(query) % n_tokens for query in queries)
    if bool((rows != rows[:1]).any()):
        raise ConfigError(
            "the tokens that are read out differ between examples, so their rows have no mean: queries=None"
        )
    return tuple(rows[0].tolist())


def _check_budget(model: FrozenPretrainedTransformer, n_rows: int, n_keys: int, batch_size: int, budget: int) -> None:
    backbone = model.backbone
    one_pattern = backbone.n_layers * backbone.n_heads * n_rows * n_keys
    size = one_pattern * (4 * batch_size * 2 + 8)
    if size > budget:
        raise CaptureError(
            f"statistics of {n_rows} x {n_keys} patterns in batches of {batch_size} take about {size / 1e6:,.1f} MB, "
            f'over the budget of {budget / 1e6:,.1f} MB: choose queries="readout" or a smaller batch_size'
        )

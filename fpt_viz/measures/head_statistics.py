"""What is known of each head over a data set, in one pass whose memory does not grow with the number of examples."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float, Int
import torch
from torch import Tensor
from torch.nn import functional

from fpt_viz.analysis.attention_distance import attention_distance
from fpt_viz.analysis.attention_entropy import attention_entropy
from fpt_viz.analysis.permuted_routing_score import permuted_routing_score
from fpt_viz.analysis.routing_score import routing_score
from fpt_viz.analysis.sink_mass import sink_mass
from fpt_viz.analysis.uniform_routing_score import uniform_routing_score
from fpt_viz.capture import Queries, attention_rows, query_rows, visible_keys
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
    for start in range(0, len(batch), batch_size):
        part, part_rows = batch[start : start + batch_size].trimmed(), _without_end(rows[start : start + batch_size])
        layers, heads = range(model.backbone.n_layers), range(model.backbone.n_heads)
        found = attention_rows(model, part.to(device), layers, heads, part_rows.to(device))
        weights = torch.stack([found[layer].cpu() for layer in layers])
        _add(totals, model, task, part, part_rows, weights, (len(tokens), batch.inputs.shape[1]))
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


def _add(
    totals: _Totals,
    model: FrozenPretrainedTransformer,
    task: Task,
    part: Batch,
    rows: Tensor,
    weights: Float[Tensor, "layer batch head query key"],
    shape: tuple[int, int],
) -> None:
    """Add the attention ``weights`` on the examples ``part`` to ``totals``; ``shape`` is that of the mean pattern."""
    real = torch.ones(part.inputs.shape[:2]) if part.mask is None else part.mask.float()
    read = (rows >= 0).float()
    seen = torch.einsum("bq,bk->qk", read, real)
    to_shape = (0, shape[1] - weights.shape[4], 0, shape[0] - weights.shape[3])  # what was trimmed
    totals.add("mean_pattern", functional.pad(weights.sum(1), to_shape), functional.pad(seen, to_shape))
    for name, values in (
        ("entropy", attention_entropy(weights)),
        ("distance", attention_distance(weights, rows)),
        ("sink_mass", sink_mass(weights)),
    ):
        totals.add(name, torch.einsum("lbhq,bq->lh", values.double(), read.double()), read.sum())
    needs = task.needs(part.inputs)
    if needs is None:
        return
    needs = needs.gather(1, rows.clamp(min=0)[..., None].expand(-1, -1, needs.shape[2]))
    visible = visible_keys(part, rows, causal=model.backbone.causal, reach=model.backbone.reach)
    score, n_scored = routing_score(weights, needs, rows)
    n_scored = n_scored.double()
    totals.add("routing_score", torch.einsum("lbh,b->lh", score.double(), n_scored), n_scored.sum())
    once = torch.ones(len(n_scored), N_RESAMPLES, dtype=torch.float64)  # drawn example by example, whatever the batches
    times = torch.poisson(once, generator=totals.rng).T * n_scored
    totals.add("resampled", torch.einsum("rb,lbh->rlh", times, score.double()), times.sum(1)[:, None, None])
    permuted, n_permuted = permuted_routing_score(weights, needs, rows, visible)
    totals.add("permuted", torch.einsum("lbh,b->lh", permuted.double(), n_permuted.double()), n_permuted.sum())
    uniform, n_uniform = uniform_routing_score(needs, visible, rows)
    totals.add("uniform", (uniform.double() * n_uniform).sum(), n_uniform.sum())


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

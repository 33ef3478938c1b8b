"""Does a head route alike for every class, every position, and for right and wrong answers?"""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
import torch
from torch import Tensor

from fpt_viz.analysis._needs import attention_on, needed_keys, others_share
from fpt_viz.capture import attention_rows, fingerprint, query_rows, visible_keys
from fpt_viz.errors import ConfigError
from fpt_viz.measures.base import check_batch_size
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records.routing import RoutingBreakdown
from fpt_viz.tap import inspecting
from fpt_viz.tasks import Batch, Task

__all__ = ["routing_breakdown"]

N_RESAMPLES = 1000
MAX_CLASSES = 32
"""A task with more classes is not divided by class."""
MAX_POSITIONS = 128
"""A task with more tokens is not divided by position."""


def routing_breakdown(
    model: FrozenPretrainedTransformer,
    task: Task | None = None,
    *,
    n_examples: int = 512,
    split: str = "test",
    seed: int = 0,
    batch_size: int = 64,
) -> RoutingBreakdown:
    """Routing scores of every head by the class that is asked for, by right and wrong answers, and by position.

    A scored query that is read out stands for its own answer: its class is that of its target, and it is right where
    its targets are. Another scored query, such as a closing bracket of ListOps, stands for its whole example.

    Args:
        model: Its mode, kernel and random state are as before afterwards.
        task: None for the model's own.
        n_examples: Asked for; where the split holds fewer, all of it is used once, and the true number is recorded.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        seed: Of the choice of examples and of the bootstrap.
        batch_size: Examples in one forward pass.

    Cost: two forward passes over the examples. Memory: one batch's patterns, and one number for each example, group
    and head.

    Raises:
        ConfigError: The task does not know what a query needs, so nothing can be scored.
    """
    check_batch_size(batch_size)
    task = task or model.task
    batch = task.distinct(n_examples, split, seed)
    if task.needs(batch.inputs[:1]) is None:
        raise ConfigError(f"{task.name} does not say which tokens a query needs, so its heads have no routing score")
    device = next(model.parameters()).device
    kinds, names = _group_names(task)
    parts = []
    for start in range(0, len(batch), batch_size):
        part = batch[start : start + batch_size].trimmed()
        rows = query_rows(model, part.to(device), None).cpu()
        groups = _groups(kinds, names, rows, *_class_and_answer(model, task, part, rows))
        parts.append(_scored(model, task, part, rows, groups))
    scores = _Scores(*(torch.cat(each, dim=-1) for each in zip(*parts, strict=True)))
    n_permuted = scores.n_permuted.sum(-1)
    return RoutingBreakdown(
        kinds=kinds,
        names=names,
        n_scored=tuple(int(n) for n in scores.n_scored.sum(-1)),
        score=(scores.score.sum(-1) / scores.n_scored.sum(-1)[:, None, None]).float(),
        interval=_intervals(scores, torch.Generator().manual_seed(seed)).float(),
        uniform=(scores.uniform.sum(-1) / scores.n_scored.sum(-1)).float(),
        permuted=(scores.permuted.sum(-1) / n_permuted[:, None, None]).float(),
        n_examples=len(batch),
        split=split,
        seed=seed,
        source={**model.source, "inputs": fingerprint(batch)},
    )


class _Scores(NamedTuple):
    """Of each group and example, sums over its scored queries."""

    score: Float[Tensor, "group layer head batch"]
    permuted: Float[Tensor, "group layer head batch"]
    uniform: Float[Tensor, "group batch"]
    n_scored: Float[Tensor, "group batch"]
    n_permuted: Float[Tensor, "group batch"]


def _group_names(task: Task) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The kind and the name of every group that the task can have."""
    groups = [("all", ""), ("answer", "right"), ("answer", "wrong")]
    groups += [("class", str(index)) for index in range(task.n_classes) if task.n_classes <= MAX_CLASSES]
    places = task.token_names()
    groups += [("position", name) for name in places if len(places) <= MAX_POSITIONS]
    kinds, names = zip(*groups, strict=True)
    return kinds, names


def _class_and_answer(
    model: FrozenPretrainedTransformer, task: Task, part: Batch, rows: Int[Tensor, "batch query"]
) -> tuple[Int[Tensor, "batch query"], Bool[Tensor, "batch query"]]:
    """Of each query, the class of its target, -1 where it has no single one, and whether its answer is right."""
    device = next(model.parameters()).device
    here = part.to(device)
    with inspecting(model):
        right = task.correct(model(here.inputs, here.mask), here.targets).cpu()
    n_examples, n_tokens = part.inputs.shape[:2]
    right, targets = right.reshape(n_examples, task.n_readout, -1), part.targets.reshape(n_examples, task.n_readout, -1)
    ends = torch.full((n_examples,), n_tokens) if part.mask is None else part.mask.sum(1)
    place = rows - (ends[:, None] - task.n_readout)  # which of the read-out tokens the query is; below 0 it is none
    read = place.clamp(0, task.n_readout - 1)
    is_right = torch.where(place >= 0, right.all(-1).gather(1, read), right.flatten(1).all(1, keepdim=True))
    if targets.shape[-1] > 1:
        return torch.full_like(rows, -1), is_right
    of_example = targets[:, 0] if task.n_readout == 1 else torch.full_like(rows[:, :1], -1)
    return torch.where(place >= 0, targets[..., 0].gather(1, read), of_example), is_right


def _groups(
    kinds: tuple[str, ...],
    names: tuple[str, ...],
    rows: Int[Tensor, "batch query"],
    label: Int[Tensor, "batch query"],
    is_right: Bool[Tensor, "batch query"],
) -> Bool[Tensor, "group batch query"]:
    """Which queries are in which group."""
    found: dict[str, list[Tensor]] = {
        "all": [torch.ones_like(is_right)],
        "answer": [is_right, ~is_right],
        "class": [label == int(name) for kind, name in zip(kinds, names, strict=True) if kind == "class"],
        "position": [rows == token for token in range(kinds.count("position"))],
    }
    return torch.stack([group for kind in dict.fromkeys(kinds) for group in found[kind]])


def _scored(
    model: FrozenPretrainedTransformer,
    task: Task,
    part: Batch,
    rows: Int[Tensor, "batch query"],
    groups: Bool[Tensor, "group batch query"],
) -> _Scores:
    """The sums over the queries of each group."""
    device = next(model.parameters()).device
    layers, heads = range(model.backbone.n_layers), range(model.backbone.n_heads)
    found = attention_rows(model, part.to(device), layers, heads, rows.to(device))
    weights = torch.stack([found[layer].cpu() for layer in layers])
    needs = task.needs(part.inputs)
    assert needs is not None  # checked before any forward pass
    needs = needs.gather(1, rows.clamp(min=0)[..., None].expand(-1, -1, needs.shape[2]))
    visible = visible_keys(part, rows, causal=model.backbone.causal, reach=model.backbone.reach)
    needed = needed_keys(needs, rows)
    share, n_scored = others_share(needs, rows, visible)
    uniform = (needed & visible).sum(-1) / visible.sum(-1).clamp(min=1)
    scored = (groups & needed.any(-1)).double()
    permutable = scored * (n_scored > 0)[:, None]
    return _Scores(
        torch.einsum("lbhq,gbq->glhb", attention_on(weights, needed.float()).double(), scored),
        torch.einsum("lbhq,gbq->glhb", attention_on(weights, share).double(), permutable),
        torch.einsum("bq,gbq->gb", uniform.double(), scored),
        scored.sum(-1),
        permutable.sum(-1),
    )


def _intervals(scores: _Scores, rng: torch.Generator) -> Float[Tensor, "group layer head 2"]:
    """Poisson bootstrap over examples; NaN in a group that holds no query."""
    n_examples = scores.n_scored.shape[1]
    times = torch.poisson(torch.ones(N_RESAMPLES, n_examples, dtype=torch.float64), generator=rng)
    bounds = torch.tensor([0.025, 0.975], dtype=torch.float64)
    found = []
    for total, n_scored in zip(scores.score, scores.n_scored, strict=True):
        means = torch.einsum("rb,lhb->rlh", times, total) / (times @ n_scored)[:, None, None]
        found.append(torch.nanquantile(means, bounds, dim=0).permute(1, 2, 0))
    return torch.stack(found)

"""Which trained part upstream moved a head's pattern, although its own weights are frozen?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxtyping import Float64, Int
import torch
from torch import Tensor

from fpt_viz.analysis.bootstrap_interval import bootstrap_interval
from fpt_viz.capture import Queries, fingerprint, query_rows
from fpt_viz.errors import ConfigError
from fpt_viz.measures._probe import chosen_heads, probed
from fpt_viz.measures._replicas import ratio_interval
from fpt_viz.measures._shapley import shapley
from fpt_viz.measures._start_and_end import StartAndEnd
from fpt_viz.measures.base import check_batch_size
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import PatternShift
from fpt_viz.tasks import Batch, Task

__all__ = ["what_moved"]

MAX_GROUPS = 6
"""Groups that moved: 64 combinations, each a pass over all examples."""


def what_moved(
    model: FrozenPretrainedTransformer,
    task: Task | None = None,
    *,
    heads: Sequence[Sequence[int] | str] | None = None,
    start: Mapping[str, Tensor] | None = None,
    batch: Batch | None = None,
    queries: Queries = "readout",
    n_examples: int = 64,
    split: str = "validation",
    seed: int = 0,
    batch_size: int = 64,
) -> PatternShift:
    r"""How much of each head's change since the start came from each trained group upstream.

    Frozen query and key weights cannot change, so a pattern moves only as its input does. Every combination of groups
    at their start and at their end is evaluated; a group's contribution $\phi_g$ to the change $\Delta$ of the pattern
    is its Shapley value, and its share is the signed projection
    $\langle \phi_g, \Delta \rangle / \langle \Delta, \Delta \rangle$ over all examples and rows. Shares add up to 1.

    Args:
        model: From :func:`fpt_viz.load_model`, or with its ``start``. Weights and mode are as before afterwards.
        task: None for the model's own.
        heads: Pairs of layer and head, or words such as ``"L3H5"``; None for all.
        start: The model's trained tensors as they were before training; None reads them from the folder of its run.
        batch: The probe batch; None takes ``n_examples`` distinct ones of ``split``.
        queries: The rows of the pattern: ``"readout"``, token numbers, or None for all. The routing score is over all
            of its queries either way.
        n_examples: Asked for; where the split holds fewer, all of it is used once.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        seed: Of the choice of examples and of the bootstrap.
        batch_size: Examples in one forward pass.

    Cost: two to the power of the number of groups that moved forward passes over the examples: 8 for the paper's three,
    64 at the most. Memory: three times one batch's rows of attention, and one number a combination, example and head.

    Raises:
        ConfigError: The start is not known or is another model's, nothing upstream of attention differs from it, more
            than 6 groups do, or there is no such head.
        RecordError: The run's start is missing.

    Reference:
        Shapley, 1953, "A value for n-person games"; defined here for patterns.
    """
    check_batch_size(batch_size)
    task = task or model.task
    both = StartAndEnd.of(model, start)
    if len(both.moved) > MAX_GROUPS:
        raise ConfigError(
            f"{len(both.moved)} groups moved ({', '.join(both.moved)}), which asks for {2 ** len(both.moved)} passes "
            f"over the examples; at most {MAX_GROUPS} groups ({2**MAX_GROUPS} passes) are shared out: explain a run "
            "that trains fewer"
        )
    pairs = chosen_heads(model, heads)
    examples = task.distinct(n_examples, split, seed) if batch is None else batch.to("cpu")
    if not len(examples):
        raise ConfigError(f"an empty batch of {task.name} was given: what_moved wants at least 1 example")
    rows = query_rows(model, examples.to(next(model.parameters()).device), queries).cpu()
    games = []
    for first in range(0, len(examples), batch_size):
        here = slice(first, first + batch_size)
        games.append(_played(both, task, examples[here], rows[here], pairs))
    return PatternShift(
        groups=both.groups,
        moved=tuple(group in both.moved for group in both.groups),
        heads=pairs,
        **_pattern_fields(both, games, seed=seed),
        **_score_fields(both, games, seed=seed),
        queries=_told(queries),
        n_examples=len(examples),
        split=split if batch is None else "given",
        seed=seed,
        source={**model.source, "inputs": fingerprint(examples)},
    )


class _Game(NamedTuple):
    """What every combination of groups gives on some examples; combinations as in :func:`shapley`."""

    projection: Float64[Tensor, "combination head batch"]
    """Of the pattern's change on the whole change."""
    distance: Float64[Tensor, "head batch"]
    """Half the summed absolute change, over the example's rows."""
    n_rows: Int[Tensor, " batch"]
    score: Float64[Tensor, "combination head batch"] | None
    n_scored: Int[Tensor, " batch"] | None


def _played(
    both: StartAndEnd, task: Task, part: Batch, rows: Int[Tensor, "batch query"], pairs: Sequence[tuple[int, int]]
) -> _Game:
    """Every combination of start and end on ``part``; what is not needed for the projections is not kept."""
    layers = sorted({layer for layer, _ in pairs})
    where = [layers.index(layer) for layer, _ in pairs]
    heads = [head for _, head in pairs]
    players = tuple(both.moved)
    n_combinations = 2 ** len(players)
    projection: dict[int, Tensor] = {}
    scores: dict[int, Tensor] = {}
    n_scored: Tensor | None = None
    with both.mixing() as put:

        def patterns(combination: int) -> Float64[Tensor, "head batch query key"]:
            nonlocal n_scored
            put([group for i, group in enumerate(players) if combination >> i & 1])
            found = probed(both.model, task, part, rows, layers)
            if found.score is not None:
                scores[combination] = found.score.score.transpose(1, 2)[where, heads].double()
                n_scored = found.score.n_scored
            return found.pattern.transpose(1, 2)[where, heads].double()

        last = n_combinations - 1
        ends = {0: patterns(0), last: patterns(last)}
        change = ends[last] - ends[0]
        for combination in range(n_combinations):
            now = ends[combination] if combination in ends else patterns(combination)
            projection[combination] = ((now - ends[0]) * change).sum((-2, -1))
    return _Game(
        _stacked(projection, n_combinations),
        change.abs().sum((-2, -1)) / 2,
        (rows >= 0).sum(1),
        _stacked(scores, n_combinations) if scores else None,
        n_scored,
    )


def _stacked(found: Mapping[int, Tensor], n: int) -> Tensor:
    return torch.stack([found[combination] for combination in range(n)])


def _pattern_fields(both: StartAndEnd, games: Sequence[_Game], *, seed: int) -> dict[str, Tensor]:
    """Shares and sizes with their intervals, of every group that is told of."""
    contribution = shapley(torch.cat([game.projection for game in games], dim=-1))
    whole = torch.cat([game.projection[-1] for game in games], dim=-1)
    n_players, n_heads, n_examples = contribution.shape
    interval = ratio_interval(
        contribution.permute(2, 0, 1).reshape(n_examples, -1),
        whole.T.repeat(1, n_players),
        seed=seed,
    )
    n_rows = torch.cat([game.n_rows for game in games])
    distance = torch.cat([game.distance for game in games], dim=-1) / n_rows.clamp(min=1)
    return {
        "share": _told_of(both, contribution.sum(-1) / whole.sum(-1)),
        "share_interval": _told_of(both, interval.reshape(n_players, n_heads, 2)),
        "change": (distance * n_rows).sum(-1) / n_rows.sum(),
        "change_interval": bootstrap_interval(distance.T, counts=n_rows, seed=seed),
    }


def _score_fields(both: StartAndEnd, games: Sequence[_Game], *, seed: int) -> dict[str, Any]:
    """The routing score before and after, and what each group added; nothing where the task has no needs."""
    scores = [game.score for game in games if game.score is not None]
    counts = [game.n_scored for game in games if game.n_scored is not None]
    if not counts or not int(torch.cat(counts).sum()):
        return {}
    score, n_scored = torch.cat(scores, dim=-1), torch.cat(counts).double()
    added = shapley(score)
    start, end = ((score[c] * n_scored).sum(-1) / n_scored.sum() for c in (0, -1))
    interval = bootstrap_interval(added.permute(2, 0, 1), counts=n_scored, seed=seed)
    return {
        "score_start": start,
        "score_end": end,
        "score_part": _told_of(both, (added * n_scored).sum(-1) / n_scored.sum()),
        "score_interval": _told_of(both, interval),
    }


def _told_of(both: StartAndEnd, of_moved: Float64[Tensor, " player *rest"]) -> Float64[Tensor, " group *rest"]:
    """Values of the groups that moved, in their places among all that are told of; 0 for the others."""
    found = torch.zeros(len(both.groups), *of_moved.shape[1:], dtype=of_moved.dtype)
    found[[both.groups.index(group) for group in both.moved]] = of_moved
    return found


def _told(queries: Queries) -> str:
    if queries is None:
        return "all"
    return queries if isinstance(queries, str) else " ".join(map(str, queries))

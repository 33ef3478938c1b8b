"""What a model loses without the heads that route best, beside random sets of as many heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fpt_viz.errors import ConfigError
from fpt_viz.measures.base import cut_and_compare
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import TopHeadsEffects
from fpt_viz.reference import Ablation
from fpt_viz.tasks import Task

__all__ = ["ablate_top_heads"]

Head = tuple[int, int]


def ablate_top_heads(
    model: FrozenPretrainedTransformer,
    task: Task | None = None,
    *,
    ranking: Sequence[Head],
    ks: Sequence[int] = (1, 2, 4, 8),
    n_random: int = 20,
    kind: Ablation = "zero",
    n_examples: int = 512,
    split: str = "test",
    seed: int = 0,
) -> TopHeadsEffects:
    """Effects of cutting the first k heads of ``ranking``, beside ``n_random`` random sets of k heads.

    Args:
        model: Its mode, kernel and random state are as before afterwards.
        task: None for the model's own.
        ranking: Heads as (layer, head), best first, such as ``statistics.ranking()``; ranked on another split than
            ``split``, so that the choice does not see the examples that judge it.
        ks: Sizes of the sets.
        n_random: Random sets for each size, drawn from all heads.
        kind: As of ``ablate_heads``.
        n_examples: As of ``ablate_heads``.
        split: As of ``ablate_heads``.
        seed: Of the examples, the bootstrap and the random sets.

    Cost: ``len(ks) * (n_random + 1)`` forward passes over the examples.

    Raises:
        ConfigError: A size is larger than the ranking, or below 1.
    """
    backbone = model.backbone
    n_heads = backbone.n_layers * backbone.n_heads
    for k in ks:
        if not 1 <= k <= min(len(ranking), n_heads):
            raise ConfigError(f"a set of {k} heads cannot be cut: {len(ranking)} are ranked")
    if n_random < 1:
        raise ConfigError(f"n_random must be at least 1, got {n_random}: without random sets nothing is compared")
    rng = torch.Generator().manual_seed(seed)
    random_sets = [
        [
            [divmod(int(i), backbone.n_heads) for i in torch.randperm(n_heads, generator=rng)[:k]]
            for _ in range(n_random)
        ]
        for k in ks
    ]
    every = [tuple(ranking[:k]) for k in ks] + [tuple(one) for sets in random_sets for one in sets]
    effects = cut_and_compare(model, task, every, kind=kind, n_examples=n_examples, split=split, seed=seed)
    return TopHeadsEffects(
        k=tuple(ks),
        top=effects[: len(ks)],
        random=tuple(effects[len(ks) + i * n_random : len(ks) + (i + 1) * n_random] for i in range(len(ks))),
        source=model.source,
    )

"""What a model loses without a head, or without a set of heads."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Literal

from fpt_viz.measures.base import cut_and_compare
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import AblationEffects
from fpt_viz.tasks import Task

__all__ = ["ablate_heads"]

Head = tuple[int, int]


def ablate_heads(
    model: FrozenPretrainedTransformer,
    task: Task | None = None,
    *,
    kind: Literal["zero"] = "zero",
    heads: Sequence[Head | Sequence[Head]] | None = None,
    n_examples: int = 512,
    split: str = "test",
    seed: int = 0,
    batch_size: int = 256,
) -> AblationEffects:
    """Accuracy, loss and logit difference lost without each head, or each set of heads, with paired intervals.

    One head alone may cost little where others do the same; see ``ablate_top_heads`` for sets.

    Args:
        model: Its mode, kernel and random state are as before afterwards.
        task: None for the model's own.
        kind: ``"zero"`` sets the heads' z to zero, which equals zeroing their slice of the output projection.
        heads: Entries of (layer, head), or sequences of them to be cut together; None for every head alone.
        n_examples: Asked for; where the split holds fewer, all of it is used once, and the true number is recorded.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        seed: Of the choice of examples and of the bootstrap.
        batch_size: Examples in one forward pass.

    Cost: one forward pass over the examples for each set, and one without intervention.

    Raises:
        ConfigError: No such head, or none named.
        UnknownNameError: No such kind of ablation or split.
    """
    backbone = model.backbone
    every = [(layer, head) for layer in range(backbone.n_layers) for head in range(backbone.n_heads)]
    sets = [_as_set(entry) for entry in (every if heads is None else heads)]
    return cut_and_compare(
        model, task, sets, kind=kind, n_examples=n_examples, split=split, seed=seed, batch_size=batch_size
    )


def _as_set(entry: Head | Sequence[Head]) -> tuple[Head, ...]:
    """One head or several, as a tuple of heads."""
    if len(entry) == 2 and all(isinstance(number, Integral) for number in entry):
        return ((int(entry[0]), int(entry[1])),)  # type: ignore[arg-type]
    return tuple((int(layer), int(head)) for layer, head in entry)  # type: ignore[misc]

"""What a model loses without a head, an attention edge or an MLP, or without a set of them."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
import re
from typing import Any

from fpt_viz.errors import ConfigError
from fpt_viz.measures.base import cut_and_compare
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import AblationEffects
from fpt_viz.records.parts import Part, part_of
from fpt_viz.reference import Ablation
from fpt_viz.tasks import Batch, Task

__all__ = ["ablate_heads"]

_LAYER = re.compile(r"L(\d+)", re.IGNORECASE)

Named = Part | str
"""A part as a tuple or in words, such as ``"L3H5"``."""


def ablate_heads(
    model: FrozenPretrainedTransformer,
    task: Task | None = None,
    *,
    kind: Ablation = "zero",
    heads: Sequence[Named | Sequence[Named]] | None = None,
    n_examples: int = 512,
    split: str = "test",
    seed: int = 0,
    batch_size: int = 256,
    reference: Batch | None = None,
) -> AblationEffects:
    """Accuracy, loss and logit difference lost without each part, or each set of parts, with paired intervals.

    One head alone may cost little where others do the same; see ``ablate_top_heads`` for sets.

    Args:
        model: Its mode, kernel and random state are as before afterwards.
        task: None for the model's own.
        kind: What stands in the place of what is cut: nothing (``"zero"``, which for a head equals zeroing its slice of
            the output projection), its mean over the reference set, token by token (``"mean"``), or its value on
            another example of the reference set (``"resample"``).
        heads: Heads as (layer, head) or ``"L3H5"``; also attention edges as (layer, head, query, key) or
            ``"L3H5:9<4"``, and feed-forward layers as ``("mlp", layer)`` or ``"MLP3"``; or sequences of them to be
            cut together. A whole layer is ``[(3, h) for h in range(n_heads)]``, or ``"L3"``. None for every head alone.
        n_examples: Asked for; where the split holds fewer, all of it is used once, and the true number is recorded.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        seed: Of the choice of examples and of the bootstrap.
        batch_size: Examples in one forward pass; sets that begin in one layer share it where there are fewer examples.
        reference: Of mean and resample; None takes 256 distinct examples of the training split.

    Cost: for each set a forward pass over the examples from the first layer that it changes, one without intervention,
    and for means and resampling one over the reference set.

    Raises:
        ConfigError: No such part, or none named; or an empty reference set.
        UnknownNameError: No such kind of ablation or split.
    """
    backbone = model.backbone
    every = [(layer, head) for layer in range(backbone.n_layers) for head in range(backbone.n_heads)]
    sets = [_as_set(entry, backbone.n_heads) for entry in (every if heads is None else heads)]
    return cut_and_compare(
        model,
        task,
        sets,
        kind=kind,
        n_examples=n_examples,
        split=split,
        seed=seed,
        batch_size=batch_size,
        reference=reference,
    )


def _as_set(entry: Any, n_heads: int) -> tuple[Part, ...]:
    """One part or several, as a tuple of parts."""
    if isinstance(entry, str):
        layer = _LAYER.fullmatch(entry.strip())
        return tuple((int(layer[1]), head) for head in range(n_heads)) if layer else (part_of(entry),)
    if entry and isinstance(entry[0], Integral):
        return (_plain(entry),)
    if len(entry) == 2 and entry[0] == "mlp":
        return (_plain(entry),)
    return tuple(part for one in entry for part in _as_set(one, n_heads))


def _plain(part: Sequence[object]) -> Part:
    """``part`` with plain whole numbers."""
    if len(part) == 2 and part[0] == "mlp" and isinstance(part[1], Integral):
        return ("mlp", int(part[1]))
    if len(part) in (2, 4) and all(isinstance(number, Integral) for number in part):
        return tuple(map(int, part))  # type: ignore[arg-type, return-value]
    raise ConfigError(
        f"{tuple(part)!r} names no part of a model: give (layer, head), (layer, head, query, key), ('mlp', layer), or "
        "words such as 'L3H5'"
    )

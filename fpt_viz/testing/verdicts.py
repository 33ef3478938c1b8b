"""What a planted circuit is: a model, its task, which heads do which job, and what each method must say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from jaxtyping import Int
from torch import Tensor

from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records.parts import Head, words_of
from fpt_viz.tasks import Task

OUTPUT = "output"
"""The end of a path that goes on to the logits."""
INPUTS = ("q", "k", "v")
"""The ends of a path into a head."""
Unit = tuple[Any, ...]
"""What a verdict is on. A head is (1, 2), a pair of heads ((0, 1), (1, 2)). An edge by which a head's query 7 reads key
3 is (1, 2, 7, 3), an MLP ("mlp", 2), the residual stream of token 4 before layer 1 ("resid_pre", 1, 4). A path leads
from a head into the queries, keys or values of a later one, ((0, 1), (1, 2), "v"), or to the logits, ((0, 1),
"output")."""
KeyOf = Callable[[Tensor], Int[Tensor, "batch query"]]
"""Inputs of the task -> of each query, the key that a head looks at; -1 where nothing is claimed."""


@dataclass(frozen=True)
class Verdict:
    """What a method must find in a circuit, and nothing else."""

    positive: frozenset[Unit]
    """Those of ``among`` that it must find."""
    among: tuple[Unit, ...]
    """All that it is asked about."""
    reason: str
    """Why, in a sentence."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Circuit:
    """A circuit that was built by hand."""

    name: str
    """``kind`` and ``family``: ``"decoy_gpt2"``."""
    kind: str
    family: str
    story: str
    """What was planted, in a sentence or two."""
    model: FrozenPretrainedTransformer
    task: Task
    heads: Mapping[str, Head]
    """What a head does -> the head. ``"control"`` is one that does nothing; so do all that are not named."""
    acting: frozenset[Head]
    """The heads on which the answers rest."""
    looks_at: Mapping[Head, KeyOf]
    """Of each planted head, the key that takes nearly all of a query's attention."""
    accuracy: float
    """The model reaches at least this, 0 to 1."""
    verdicts: Mapping[str, Verdict]
    """Method -> what it must find; see :data:`fpt_viz.testing.METHODS`."""
    corrupt_position: int | None = 0
    """Where inputs are corrupted to see by which tokens the answer goes; None for a corruption without a place."""
    n_examples: int = 64
    """Examples to measure on; the small tasks' test splits hold no more."""

    def __repr__(self) -> str:
        heads = ", ".join(f"{role} {words_of(head)}" for role, head in self.heads.items())
        return f"Circuit({self.name!r}: {heads})"


def every_head(model: FrozenPretrainedTransformer) -> tuple[Head, ...]:
    """All heads of ``model``, by layer."""
    backbone = model.backbone
    return tuple((layer, head) for layer in range(backbone.n_layers) for head in range(backbone.n_heads))


def every_pair(heads: Mapping[str, Head]) -> tuple[Unit, ...]:
    """All pairs of the named heads."""
    return tuple(combinations(sorted(heads.values()), 2))


def every_path(heads: Mapping[str, Head]) -> tuple[Unit, ...]:
    """From each named head into each in a higher layer, and to the output."""
    named = sorted(heads.values())
    between = [
        (sender, receiver, into) for sender in named for receiver in named for into in INPUTS if sender[0] < receiver[0]
    ]
    return (*between, *((sender, OUTPUT) for sender in named))


def every_edge(heads: Mapping[str, Head], n_tokens: int) -> tuple[Unit, ...]:
    """From the last two queries of each of ``heads`` to every key."""
    queries = (n_tokens - 2, n_tokens - 1)
    return tuple((*head, query, key) for head in heads.values() for query in queries for key in range(n_tokens))


def every_mlp(model: FrozenPretrainedTransformer) -> tuple[Unit, ...]:
    """The MLP of each layer."""
    return tuple(("mlp", layer) for layer in range(model.backbone.n_layers))


def every_place(model: FrozenPretrainedTransformer) -> tuple[Unit, ...]:
    """The residual stream before each layer, at each token."""
    n_layers, n_tokens = model.backbone.n_layers, model.task.n_tokens
    return tuple(("resid_pre", layer, token) for layer in range(n_layers) for token in range(n_tokens))


def unit_words(unit: Unit) -> str:
    """A unit as in a table: ``L1H2:7<3`` for an edge, ``L0H1 to v of L1H2`` for a path ..."""
    if unit[0] == "resid_pre":
        return f"token {unit[2]} before layer {unit[1]}"
    if unit[-1] == OUTPUT:
        return f"{words_of(unit[0])} to {OUTPUT}"
    if unit[-1] in INPUTS:
        return f"{words_of(unit[0])} to {unit[2]} of {words_of(unit[1])}"
    return " + ".join(map(words_of, unit)) if isinstance(unit[0], tuple) else words_of(unit)

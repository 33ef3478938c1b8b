"""A probe batch: chosen rows of attention for their pattern, and scored rows for the routing score, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float, Int
import torch
from torch import Tensor

from fpt_viz.analysis._needs import RoutingScore, needed_keys
from fpt_viz.analysis.routing_score import routing_score
from fpt_viz.capture import attention_rows
from fpt_viz.errors import ConfigError
from fpt_viz.intervene import checked_parts
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records.parts import Head, Part, is_head, part_of, words_of
from fpt_viz.tasks import Batch, Task


class Probed(NamedTuple):
    """What one forward pass over a probe batch shows, on the CPU."""

    pattern: Float[Tensor, "layer batch head query key"]
    """Of the rows asked for; 0 in a row of no token."""
    score: RoutingScore | None
    """Of all scored queries, not of the rows asked for alone; None where the task has no needs."""


def probed(
    model: FrozenPretrainedTransformer,
    task: Task,
    part: Batch,
    rows: Int[Tensor, "batch query"],
    layers: Sequence[int],
) -> Probed:
    """Patterns and routing scores of all heads of ``layers`` on ``part``; costs one forward pass.

    Args:
        model: Its mode and random state are as before afterwards.
        task: Says what each query needs.
        part: On the CPU.
        rows: The tokens whose pattern is wanted; -1 for none.
        layers: Zero-based.
    """
    device = next(model.parameters()).device
    needs, n_rows = task.needs(part.inputs), rows.shape[1]
    scored = None if needs is None else _scored_rows(needs, part)
    read = rows if scored is None else torch.cat([rows, scored], dim=1)
    found = attention_rows(model, part.to(device), layers, range(model.backbone.n_heads), read.to(device))
    weights = torch.stack([found[layer].cpu() for layer in layers])
    if needs is None or scored is None:
        return Probed(weights, None)
    of_scored = needs.gather(1, scored.clamp(min=0)[..., None].expand(-1, -1, needs.shape[2]))
    return Probed(weights[:, :, :, :n_rows], routing_score(weights[:, :, :, n_rows:], of_scored, scored))


def _scored_rows(needs: Tensor, part: Batch) -> Int[Tensor, "batch query"]:
    """Of each example, the queries that need another token, and -1 up to the most that an example has."""
    n_tokens = needs.shape[1]
    tokens = torch.arange(n_tokens).expand(len(needs), -1)
    counted = needed_keys(needs, tokens).any(-1)
    counted = counted if part.mask is None else counted & part.mask
    first = tokens.masked_fill(~counted, n_tokens).sort(dim=1).values[:, : max(1, int(counted.sum(1).max()))]
    return first.masked_fill(first == n_tokens, -1)


def chosen_heads(
    model: FrozenPretrainedTransformer, heads: Sequence[Sequence[int] | str] | None
) -> tuple[tuple[int, int], ...]:
    """``heads`` as pairs of layer and head, each once; None or none named is all of them.

    Raises:
        ConfigError: The model has no such head, or a word names another part of it.
    """
    backbone = model.backbone
    if not heads:
        return tuple((layer, head) for layer in range(backbone.n_layers) for head in range(backbone.n_heads))
    parts: list[Part] = []
    for entry in heads:
        part = part_of(entry) if isinstance(entry, str) else _pair(entry)
        if not is_head(part):
            raise ConfigError(f"{words_of(part)} is no head: write L3H5 or (3, 5)")
        parts.append(part)
    return tuple((int(part[0]), int(part[1])) for part in dict.fromkeys(checked_parts(model, parts)))


def _pair(entry: Sequence[int]) -> Head:
    if len(entry) != 2 or not all(isinstance(number, int) for number in entry):
        raise ConfigError(f"{list(entry)} is no head: write L3H5 or (3, 5), layer and head")
    return (entry[0], entry[1])

"""What did the heads do with words, before any of them routed bits?"""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Float, Int
import torch
from torch import Tensor

from fpt_viz.analysis.bootstrap_interval import bootstrap_interval
from fpt_viz.analysis.rank_correlation import rank_correlation
from fpt_viz.analysis.role_scores import RoleScores, role_scores
from fpt_viz.capture import each_attention
from fpt_viz.errors import ConfigError
from fpt_viz.measures._language import (
    TEXT_NAME,
    Pieces,
    Reader,
    batches_of,
    pieces_for,
    random_reader_of,
    reader_of,
    usual_text,
)
from fpt_viz.measures._probe import probed
from fpt_viz.measures.base import check_batch_size
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import LanguageRoles, load_run
from fpt_viz.tasks import Batch, Task

__all__ = ["language_roles"]


def language_roles(
    model: FrozenPretrainedTransformer,
    task: Task | None = None,
    *,
    text: str | None = None,
    n_tokens: int = 64,
    max_offset: int = 16,
    n_examples: int = 256,
    split: str = "test",
    seed: int = 0,
    network_seed: int | None = None,
    random_seed: int = 0,
    batch_size: int = 64,
) -> LanguageRoles:
    """Each head's role in language, in the frozen network as it came, beside its routing score in the trained model.

    The network is loaded again with what it had before any training of ours: its own token embeddings, positions and
    norms. It reads a text through its own tokenizer, in pieces. Beside its scores stand those of the same architecture
    with random weights and embeddings.

    Args:
        model: Trained. Only its frozen tensors and its routing scores are asked of it.
        task: None for the model's own.
        text: What is read; None for the beginning of *Alice's Adventures in Wonderland*, 949 words.
        n_tokens: In a piece, special tokens counted.
        max_offset: The farthest offset told of, to either side where the network sees both.
        n_examples: For the routing score; where the split holds fewer, all of it is used once.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        seed: Of the choice of examples, the bootstraps and the permutations.
        network_seed: What a random network of the model's was drawn with; None reads it from the run, else 0.
        random_seed: Of the random network beside.
        batch_size: Pieces or examples in one forward pass.

    Cost: two networks loaded, and three forward passes: one of each network over the text, one of the model over the
    examples. About 2 s for MiniLM, and 10 s more where the tokenizer lies in a GGUF file.

    Raises:
        ConfigError: The backbone never read language (a ViT, or an architecture without published weights), its frozen
            tensors are not those of the network that its name means, or the text is shorter than a piece.
        SourceError: Weights or tokenizer are missing.
    """
    check_batch_size(batch_size)
    task = task or model.task
    pieces = pieces_for(model, usual_text() if text is None else text, n_tokens)
    drawn_with = _network_seed(model) if network_seed is None else network_seed
    reader = reader_of(model, n_tokens, seed=drawn_with)
    random = random_reader_of(model, n_tokens, seed=random_seed)
    own, other = (_roles(network, pieces, max_offset, batch_size) for network in (reader, random))
    examples = task.distinct(n_examples, split, seed)
    needed = _needed_offset(task, examples)
    routing = _routing_scores(model, task, examples, batch_size)
    found = _Heads.of(own, needed, seed)
    beside = _Heads.of(other, needed, seed)
    return LanguageRoles(
        roles=found.roles,
        score=found.score,
        interval=found.interval,
        uniform=found.uniform,
        random=beside.score,
        offsets=own.offsets,
        by_offset=found.by_offset,
        needed_offset=needed,
        routing_score=routing,
        **({} if routing is None else _correlations(found.score, routing, seed)),
        text=TEXT_NAME if text is None else "a text that was given",
        n_pieces=len(pieces.tokens),
        n_tokens=n_tokens,
        causal=model.backbone.causal,
        n_examples=len(examples),
        split=split,
        seed=seed,
        note=task.note,
        source=model.source,
    )


class _Heads(NamedTuple):
    """Means over pieces, with the two roles that depend on an offset."""

    roles: tuple[str, ...]
    score: Float[Tensor, "role layer head"]
    interval: Float[Tensor, "role layer head 2"]
    uniform: Float[Tensor, " role"]
    by_offset: Float[Tensor, "offset layer head"]

    @classmethod
    def of(cls, found: RoleScores, needed: int | None, seed: int) -> _Heads:
        score = [_mean(values, n) for values, n in zip(found.score, found.n_scored, strict=True)]
        interval = [_interval(values, n, seed) for values, n in zip(found.score, found.n_scored, strict=True)]
        uniform = [_mean(values, n) for values, n in zip(found.uniform, found.n_scored, strict=True)]
        by_offset = torch.stack([_mean(values, n) for values, n in zip(found.by_offset, found.n_at, strict=True)])
        others = [i for i, offset in enumerate(found.offsets) if offset]
        best = torch.tensor(others)[by_offset[others].argmax(0)]
        at = [_interval(values, n, seed) for values, n in zip(found.by_offset, found.n_at, strict=True)]
        intervals = torch.stack(at)
        roles = [*found.roles, "offset"]
        score.append(by_offset.gather(0, best[None])[0])
        interval.append(intervals.gather(0, best[None, ..., None].expand(1, *best.shape, 2))[0])
        even = torch.stack([_mean(values, n) for values, n in zip(found.uniform_at, found.n_at, strict=True)])
        uniform.append(even[best].mean())
        if needed in found.offsets:
            place = found.offsets.index(needed)
            roles.append("needed_offset")
            score.append(by_offset[place])
            interval.append(intervals[place])
            uniform.append(even[place])
        return cls(tuple(roles), torch.stack(score), torch.stack(interval), torch.stack(uniform), by_offset)


def _mean(values: Tensor, counts: Int[Tensor, " batch"]) -> Tensor:
    """Over pieces, ``[batch]`` or ``[layer batch head]``, weighted by ``counts``; NaN where no piece has any."""
    weight = counts.double() / counts.sum().clamp(min=1)
    total = values.double() @ weight if values.ndim == 1 else torch.einsum("lbh,b->lh", values.double(), weight)
    return (total if int(counts.sum()) else total * torch.nan).float()


def _interval(values: Float[Tensor, "layer batch head"], counts: Int[Tensor, " batch"], seed: int) -> Tensor:
    if not int(counts.sum()):
        return torch.full((values.shape[0], values.shape[2], 2), torch.nan)
    return bootstrap_interval(values.transpose(0, 1), counts=counts, seed=seed).float()


def _roles(reader: Reader, pieces: Pieces, max_offset: int, batch_size: int) -> RoleScores:
    """Scores of every head of ``reader`` on every piece."""
    n_tokens = pieces.tokens.shape[1]
    backbone = reader.backbone
    batches: list[RoleScores] = []
    for batch, here in batches_of(pieces, batch_size):
        rows = torch.arange(n_tokens).expand(len(batch), -1)
        layers: dict[int, RoleScores] = {}

        def take(layer: int, weights: Tensor, here: slice = here, layers: dict[int, RoleScores] = layers) -> None:
            layers[layer] = role_scores(
                weights[None],
                pieces.tokens[here],
                special=pieces.special[here],
                punctuation=pieces.punctuation[here],
                causal=backbone.causal,
                max_offset=min(max_offset, n_tokens - 1),
            )

        each_attention(reader, batch, range(backbone.n_layers), range(backbone.n_heads), rows, take)
        batches.append(_joined([layers[layer] for layer in range(backbone.n_layers)], "layer"))
    return _joined(batches, "batch")


def _joined(parts: list[RoleScores], axis: str) -> RoleScores:
    """The scores of several layers or batches as one."""
    first = parts[0]

    def joined(name: str, dim: int) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts], dim)

    if axis == "layer":
        return first._replace(score=joined("score", 1), by_offset=joined("by_offset", 1))
    return first._replace(
        score=joined("score", 2),
        n_scored=joined("n_scored", 1),
        uniform=joined("uniform", 1),
        by_offset=joined("by_offset", 2),
        uniform_at=joined("uniform_at", 1),
        n_at=joined("n_at", 1),
    )


def _network_seed(model: FrozenPretrainedTransformer) -> int:
    """What the backbone was drawn with, as the run that it was loaded from tells."""
    return 0 if model.run_path is None else int(load_run(model.run_path).config["train"]["seed"])


def _needed_offset(task: Task, examples: Batch) -> int | None:
    """From a query to what it needs, where that is the same for every query of every example."""
    needs = task.needs(examples.inputs)
    if needs is None:
        return None
    _example, query, key = needs.nonzero(as_tuple=True)
    found = (key - query)[key != query].unique()
    return int(found[0]) if len(found) == 1 else None


def _routing_scores(
    model: FrozenPretrainedTransformer, task: Task, examples: Batch, batch_size: int
) -> Float[Tensor, "layer head"] | None:
    """Of every head, the mean over all scored queries; None where the task has no needs."""
    totals, n_scored = [], 0
    for start in range(0, len(examples), batch_size):
        part = examples[start : start + batch_size]
        nothing = torch.full((len(part), 1), -1)
        score = probed(model, task, part, nothing, range(model.backbone.n_layers)).score
        if score is None:
            return None
        totals.append(torch.einsum("lbh,b->lh", score.score.double(), score.n_scored.double()))
        n_scored += int(score.n_scored.sum())
    if not n_scored:
        return None
    return (torch.stack(totals).sum(0) / n_scored).float()


def _correlations(
    score: Float[Tensor, "role layer head"], routing: Float[Tensor, "layer head"], seed: int
) -> dict[str, Any]:
    """Of each role with the routing score, over all heads and within layers."""
    n_layers, n_heads = routing.shape
    if n_layers * n_heads < 3:
        raise ConfigError(f"{n_layers * n_heads} heads are too few for a rank correlation: wanted at least 3")
    layer = torch.arange(n_layers).repeat_interleave(n_heads)
    found: dict[str, Any] = {}
    for name, p, strata in (("correlation", "p", None), ("within", "within_p", layer)):
        each = [rank_correlation(role.flatten(), routing.flatten(), strata=strata, seed=seed) for role in score]
        found[name] = torch.tensor([one.value for one in each])
        found[f"{name}_interval"] = torch.tensor([one.interval for one in each])
        found[p] = torch.tensor([one.p for one in each])
    return found

"""The same tap, writing instead of reading: what a model does without some of its parts.

A head is cut at its z, before the output projection: that equals zeroing its slice of W_O and keeps the bias. Cutting
the block's output would not. An MLP is cut at its output, bias included. An attention edge is cut in the pattern, after
the softmax: what the query would have taken from the key is taken away, and no other weight of the row grows.

What stands in the place of what is cut is the kind of the ablation:

``"zero"``
    Nothing. Simple, but it takes away what the part says to every example alike, too.
``"mean"``
    The part's mean over a reference set, token by token: only what differs between examples is lost
    (Wang et al., 2022, https://arxiv.org/abs/2211.00593).
``"resample"``
    The part's value on another example, drawn from the reference set: as a mean, but each value is one that the model
    really makes (Chan et al., 2022, causal scrubbing).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
import contextlib
from dataclasses import dataclass, field

from jaxtyping import Int
import torch
from torch import Tensor

from fpt_viz.errors import ConfigError
from fpt_viz.kernel import Hook, HookPoint
from fpt_viz.records.parts import Part, is_head, layer_of, words_of
from fpt_viz.reference import ABLATIONS as ABLATIONS, Ablation as Ablation, StandIns as StandIns
from fpt_viz.tap import Tappable, hooked
from fpt_viz.tasks.base import Batch


@contextlib.contextmanager
def ablated(
    model: Tappable,
    heads: Collection[Part],
    kind: Ablation = "zero",
    *,
    reference: Batch | None = None,
    seed: int = 0,
    stand_ins: StandIns | None = None,
    donors: Int[Tensor, " batch"] | None = None,
) -> Iterator[None]:
    """The model without ``heads`` within the block; gradients flow, and all is undone on exit.

    Args:
        model: In any mode and under any kernel.
        heads: Each as (layer, head); also an attention edge as (layer, head, query, key), or ``("mlp", layer)``. See
            :mod:`fpt_viz.records.parts`.
        kind: ``"zero"``, or ``"mean"`` or ``"resample"`` over ``reference``.
        reference: Examples that stand for the task; None takes 256 distinct ones of the training split.
        seed: Of the reference set and of who stands for whom in resampling.
        stand_ins: Of ``kind``, from :func:`head_stand_ins`: for many blocks that share a reference set.
        donors: Of each example of every batch in the block, the reference example that stands in for it in resampling;
            None draws them by ``seed``.

    Cost: one forward pass over the reference set on entering, none for ``"zero"`` and with ``stand_ins``.

    Raises:
        CaptureError: The backbone has no attention.
        ConfigError: No such part, or an empty reference set.
        UnknownNameError: No such kind of ablation.
    """
    parts = checked_parts(model, heads)
    if stand_ins is None:
        stand_ins = StandIns.of(model, parts, kind, reference=reference, seed=seed)
    elif stand_ins.kind != kind or not all(map(stand_ins.of_part, parts)):
        raise ConfigError(
            f"the stand-ins given are of heads and of the {stand_ins.kind} ablation, a {kind} ablation of "
            f"{', '.join(map(words_of, parts))} was asked for: leave them out"
        )
    who = torch.Generator().manual_seed(seed) if donors is None else donors
    with hooked(model, cutting([parts], stand_ins, who)):
        yield


def head_stand_ins(model: Tappable, kind: Ablation, *, reference: Batch | None = None, seed: int = 0) -> StandIns:
    """What stands in for any head in ablations of ``kind``; arguments as of :func:`ablated`.

    Cost: one forward pass over the reference set, none for ``"zero"``. Memory: every layer's z, for ``"mean"`` of one
    example, for ``"resample"`` of the whole reference set.
    """
    every = checked_parts(model, [(layer, 0) for layer in range(model.backbone.n_layers)])
    return StandIns.of(model, every, kind, reference=reference, seed=seed)


def checked_parts(model: Tappable, parts: Collection[Part]) -> tuple[Part, ...]:
    """``parts``, each of which ``model`` has."""
    backbone = model.backbone
    if not backbone.has_attention:
        raise backbone.no_attention()
    n_tokens = model.task.n_tokens
    for part in parts:
        layer = layer_of(part)
        if part[0] == "mlp":
            if not 0 <= layer < backbone.n_layers:
                raise ConfigError(
                    f"no MLP {layer} in {backbone.provenance.name}: it has layers 0 to {backbone.n_layers - 1}"
                )
            continue
        if not (0 <= layer < backbone.n_layers and 0 <= part[1] < backbone.n_heads):
            raise ConfigError(
                f"no head L{layer}H{part[1]} in {backbone.provenance.name}: it has layers 0 to {backbone.n_layers - 1} "
                f"and heads 0 to {backbone.n_heads - 1}"
            )
        if len(part) == 4 and not (0 <= part[2] < n_tokens and 0 <= part[3] < n_tokens):
            raise ConfigError(
                f"no edge from query {part[2]} to key {part[3]} in {model.task.name}: its tokens are 0 to "
                f"{n_tokens - 1}"
            )
    return tuple(parts)


def cutting(
    sets: Sequence[Sequence[Part]], stand_ins: StandIns, donors: torch.Generator | Int[Tensor, " batch"] | None
) -> list[tuple[str, Hook]]:
    """Hooks that cut each of ``sets`` in its own replica of a batch.

    The batch holds its examples once for each set, the replicas one after the other: ``[set * batch, ...]``.

    Args:
        sets: Parts that are cut together, of each replica.
        stand_ins: Of every part in ``sets``.
        donors: Of each example, the reference example that stands in for it in resampling, or what draws it.
    """
    cut = _Cut(sets, stand_ins, donors)
    every = [part for parts in sets for part in parts]
    at: list[tuple[str, Hook, set[int]]] = [
        ("attn.hook_z", cut.heads, {layer_of(part) for part in every if is_head(part)}),
        ("hook_mlp_out", cut.mlp, {layer_of(part) for part in every if part[0] == "mlp"}),
        ("attn.hook_pattern", cut.edges, {layer_of(part) for part in every if len(part) == 4}),
    ]
    return [(f"blocks.{layer}.{name}", hook) for name, hook, layers in at for layer in sorted(layers)]


@dataclass
class _Cut:
    """The hooks of :func:`cutting`, one for each kind of part."""

    sets: Sequence[Sequence[Part]]
    stand_ins: StandIns
    donors: torch.Generator | Int[Tensor, " batch"] | None
    drawn: dict[int, Int[Tensor, " batch"] | None] = field(default_factory=dict)
    """By the number of examples, what :attr:`donors` drew: the same ones for every layer."""

    def heads(self, z: Tensor, hook: HookPoint) -> Tensor:
        layer = hook.layer()
        changed, who = self._in_replicas(z)
        kept = self.stand_ins.z.get(layer)
        new = None if kept is None else self.stand_ins.taken(kept, changed[0], who)
        for replica, parts in enumerate(self.sets):
            heads = [part[1] for part in parts if is_head(part) and part[0] == layer]
            changed[replica][:, :, heads] = 0 if new is None else new[:, :, heads]
        return changed.flatten(0, 1)

    def mlp(self, out: Tensor, hook: HookPoint) -> Tensor:
        layer = hook.layer()
        changed, who = self._in_replicas(out)
        kept = self.stand_ins.mlp.get(layer)
        new = None if kept is None else self.stand_ins.taken(kept, changed[0], who)
        for replica, parts in enumerate(self.sets):
            if ("mlp", layer) in parts:
                changed[replica] = 0 if new is None else new
        return changed.flatten(0, 1)

    def edges(self, pattern: Tensor, hook: HookPoint) -> Tensor:
        changed, who = self._in_replicas(pattern)
        for replica, parts in enumerate(self.sets):
            for edge in parts:
                if len(edge) != 4 or edge[0] != hook.layer() or max(edge[2], edge[3]) >= changed.shape[-1]:
                    continue
                new = self.stand_ins.pattern.get(edge)
                chosen = 0 if new is None else (new if who is None else new[who.to(new.device)]).to(changed)
                changed[replica][:, edge[1], edge[2], edge[3]] = chosen
        return changed.flatten(0, 1)

    def _in_replicas(self, activation: Tensor) -> tuple[Tensor, Int[Tensor, " batch"] | None]:
        """A copy ``[set batch ...]`` of ``activation``, and who stands in for each example."""
        changed = activation.clone().unflatten(0, (len(self.sets), -1))
        return changed, self._donors_of(changed.shape[1])

    def _donors_of(self, n_examples: int) -> Int[Tensor, " batch"] | None:
        if not isinstance(self.donors, torch.Generator):
            return self.donors
        if n_examples not in self.drawn:
            self.drawn[n_examples] = self.stand_ins.donors(n_examples, self.donors)
        return self.drawn[n_examples]

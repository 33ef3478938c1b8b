"""Which head hands on to which: the clean run's signal along the direct path between two heads, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Literal, get_args

import torch
from torch import Tensor

from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.kernel import Hook, HookPoint
from fpt_viz.measures._patching import Asked, Comparison, Direction, Metric, NamedMetric, compared
from fpt_viz.measures._replicas import Activations, Replicas, Tally, parts_of, written
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import PatchingEffects
from fpt_viz.records.parts import part_of, words_of
from fpt_viz.tap import inspecting
from fpt_viz.tasks import Batch, Task

__all__ = ["patch_paths"]

Head = tuple[int, int]
Mlps = Literal["frozen", "recomputed"]
INPUTS = ("q", "k", "v")
OUTPUT = "output"


def patch_paths(
    model: FrozenPretrainedTransformer,
    task: Task | None = None,
    *,
    senders: Sequence[str | Sequence[int]] | None = None,
    receivers: Sequence[str | Sequence[int]] | None = None,
    into: str | Sequence[str] = "q",
    mlps: Mlps = "frozen",
    batch: Batch | None = None,
    corrupted: Batch | None = None,
    corruption: str | None = None,
    corrupt_position: int | None = None,
    direction: Direction = "denoise",
    metric: Metric | NamedMetric | None = None,
    n_examples: int = 128,
    split: str = "test",
    seed: int = 0,
    batch_size: int = 256,
) -> PatchingEffects:
    """How far a head's clean output restores the answer by its direct path into another head, or to the logits.

    First the sender's z is patched, every other head keeps the z of the unpatched run, and what then reaches the
    receiver's queries, keys or values is kept; layer norms are computed afresh, whether before or after each half of a
    block. Then an otherwise free run takes those queries, keys or values in the receiver alone.

    Args:
        model: Its mode, kernel and random state are as before afterwards.
        task: None for the model's own.
        senders: Heads as (layer, head), or in words as ``"L3H5"``; None for every head.
        receivers: Heads too; None for every head in a layer above some sender's. None are given for paths to the
            logits. Where keys and values are grouped, the receiver's whole group takes its k or v.
        into: ``"q"``, ``"k"``, ``"v"``, several of them together, or ``"output"``, the logits: there one forward pass
            says all, and heads above the sender stay as they were.
        mlps: Of the first step. ``"frozen"`` keeps every MLP's output too: the path is the residual stream alone, and
            an effect can come by nothing else. ``"recomputed"`` lets MLPs between the two heads hand on what they read,
            as in Wang et al., so that a path through an MLP counts as direct.
        batch: As of ``patch_activations``, like all that follow.
        corrupted: See ``batch``.
        corruption: See ``batch``.
        corrupt_position: See ``batch``.
        direction: See ``batch``. Wang et al. use ``"noise"``.
        metric: See ``batch``.
        n_examples: See ``batch``.
        split: See ``batch``.
        seed: See ``batch``.
        batch_size: See ``batch``.

    Returns:
        Values ``[sender receiver]``, of one column to the output; NaN where a receiver's layer is not above the
        sender's, since no path leads there.

    Cost: one forward pass for each sender from its layer on, and one for each pair from the receiver's layer on.

    Raises:
        ConfigError: No such head, no receiver above a sender, or as of ``patch_activations``.
        UnknownNameError: ``into`` or ``mlps`` is none of those named.

    Reference:
        Wang et al., 2022, https://arxiv.org/abs/2211.00593, section 3.1; Goldowsky-Dill et al., 2023,
        https://arxiv.org/abs/2304.05969.
    """
    if mlps not in get_args(Mlps):
        raise UnknownNameError("way with MLPs", mlps, get_args(Mlps))
    asked = Asked(
        batch=batch, corrupted=corrupted, corruption=corruption, corrupt_position=corrupt_position,
        direction=direction, metric=metric, n_examples=n_examples, split=split, seed=seed, batch_size=batch_size,
    )  # fmt: skip
    ends = _ends(into)
    from_heads = _heads(model, "sender", senders)
    to_heads = _receivers(model, receivers, ends, from_heads)
    with inspecting(model):
        comparison = compared(model, task, asked)
        walk = _to_output if ends == (OUTPUT,) else _to_heads
        tally = walk(comparison, from_heads, to_heads, ends=ends, frozen=mlps == "frozen")
    return PatchingEffects(
        **tally.effects(direction, seed=seed),
        axes=("sender", "receiver"),
        labels=(tuple(map(words_of, from_heads)), tuple(map(words_of, to_heads)) or (OUTPUT,)),
        site=" ".join(ends),
        mlps=mlps,
        **comparison.told(),
    )


def _ends(into: str | Sequence[str]) -> tuple[str, ...]:
    """What the paths lead into, checked."""
    wanted = (into,) if isinstance(into, str) else tuple(into)
    for end in wanted:
        if end not in (*INPUTS, OUTPUT):
            raise UnknownNameError("end of a path", end, (*INPUTS, OUTPUT))
    if not wanted or (OUTPUT in wanted and len(wanted) > 1):
        raise ConfigError(f"into must be output, or one or more of {', '.join(INPUTS)}; got {list(wanted)}")
    return tuple(end for end in (*INPUTS, OUTPUT) if end in wanted)


def _heads(model: FrozenPretrainedTransformer, what: str, wanted: Sequence[str | Sequence[int]] | None) -> list[Head]:
    """``wanted`` as heads that are there; None for every head."""
    backbone = model.backbone
    if wanted is None:
        return [(layer, head) for layer in range(backbone.n_layers) for head in range(backbone.n_heads)]
    if not wanted:
        raise ConfigError(f"no {what} is named: give heads as (layer, head)")
    named = [part_of(entry) if isinstance(entry, str) else tuple(entry) for entry in wanted]
    heads: list[Head] = []
    for entry in named:
        if len(entry) != 2 or not all(isinstance(number, Integral) for number in entry):
            raise ConfigError(f"a {what} is a head as (layer, head), got {entry}")
        layer, head = (int(number) for number in entry)
        if not (0 <= layer < backbone.n_layers and 0 <= head < backbone.n_heads):
            raise ConfigError(
                f"no {what} {words_of((layer, head))} in {backbone.provenance.name}: it has layers 0 to "
                f"{backbone.n_layers - 1} and heads 0 to {backbone.n_heads - 1}"
            )
        heads.append((layer, head))
    return heads


def _receivers(
    model: FrozenPretrainedTransformer,
    wanted: Sequence[str | Sequence[int]] | None,
    ends: tuple[str, ...],
    senders: list[Head],
) -> list[Head]:
    """The receiving heads; none where the paths lead to the logits."""
    if ends == (OUTPUT,):
        if wanted is not None:
            raise ConfigError("paths into the output end at the logits: leave out the receivers")
        return []
    first = min(layer for layer, _ in senders)
    heads = _heads(model, "receiver", wanted)
    if wanted is None:
        heads = [(layer, head) for layer, head in heads if layer > first]
    if not any(layer > first for layer, _ in heads):
        raise ConfigError(
            f"no receiver lies above a sender: the lowest sender is in layer {first} of "
            f"{model.backbone.n_layers} (0 to {model.backbone.n_layers - 1}), and a path leads upwards"
        )
    return heads


# ---------------------------------------------------------------------------------------------------------------------
# Runs


def _unpatched(
    part: Replicas, senders: list[Head], layers: set[int], *, frozen: bool
) -> tuple[Activations, Activations]:
    """What the unpatched runs are needed for: residuals to start from, z and MLP outputs to keep, z to send."""
    n_layers, sending = part.comparison.model.backbone.n_layers, {layer for layer, _ in senders}
    kept = ["attn.hook_z", *(["hook_mlp_out"] if frozen else [])]
    base = [f"blocks.{layer}.{name}" for layer in range(min(sending), n_layers) for name in kept]
    base += [f"blocks.{layer}.hook_resid_pre" for layer in sorted(sending | layers)]
    return part.both_runs(base, [f"blocks.{layer}.attn.hook_z" for layer in sorted(sending)])


def _frozen_hooks(
    part: Replicas, layer: int, heads: list[Head], base: Activations, donor: Activations
) -> list[tuple[str, Hook]]:
    """Hooks of a run from ``layer`` on in which replica i's sender is patched, and all else that is kept stays."""
    where = torch.zeros(part.n, 1, part.comparison.model.backbone.n_heads, dtype=torch.bool)
    for replica, (_, head) in enumerate(heads):
        where[replica, :, head] = True
    own = f"blocks.{layer}.attn.hook_z"
    kept = [name for name in base if not name.endswith("hook_resid_pre") and _layer(name) >= layer and name != own]
    return [(own, written(donor[own], where)), *((name, _putting(base[name])) for name in kept)]


def _to_output(
    comparison: Comparison, senders: list[Head], _receivers: list[Head], *, ends: tuple[str, ...], frozen: bool
) -> Tally:
    """Direct paths from heads to the logits."""
    tally = Tally((len(senders), 1), len(comparison.clean))
    for part in parts_of(comparison, len(senders)):
        base, donor = _unpatched(part, senders, set(), frozen=frozen)
        for layer, numbers in _by_layer(senders).items():
            for chunk in part.chunks(numbers):
                hooks = _frozen_hooks(part, layer, [senders[i] for i in chunk], base, donor)
                change = part.patched(layer, base[f"blocks.{layer}.hook_resid_pre"], hooks)
                for replica, i in enumerate(chunk):
                    tally.add((i, 0), part.examples, change[replica], part.gap()[replica])
    return tally


def _to_heads(
    comparison: Comparison, senders: list[Head], receivers: list[Head], *, ends: tuple[str, ...], frozen: bool
) -> Tally:
    """Direct paths from heads into the queries, keys or values of heads."""
    tally = Tally((len(senders), len(receivers)), len(comparison.clean))
    above = _by_layer(receivers)
    for part in parts_of(comparison, len(senders) * len(receivers)):
        base, donor = _unpatched(part, senders, set(above), frozen=frozen)
        for layer, numbers in _by_layer(senders).items():
            reached = {to: cells for to, cells in above.items() if to > layer}
            for chunk in part.chunks(numbers) if reached else []:
                hooks = _frozen_hooks(part, layer, [senders[i] for i in chunk], base, donor)
                arrived: Activations = {}
                names = [f"blocks.{to}.attn.hook_{end}" for to in reached for end in ends]
                hooks += [(name, _keeping(arrived)) for name in names]
                part.patched(layer, base[f"blocks.{layer}.hook_resid_pre"], hooks)
                for to, columns in reached.items():
                    pairs = [(replica, i, j) for replica, i in enumerate(chunk) for j in columns]
                    for some in part.chunks(pairs):
                        received = [(replica, receivers[j][1]) for replica, _, j in some]
                        hooks = [_receiving(part, f"blocks.{to}.attn.hook_{end}", arrived, received) for end in ends]
                        change = part.patched(to, base[f"blocks.{to}.hook_resid_pre"], hooks)
                        for replica, (_, i, j) in enumerate(some):
                            tally.add((i, j), part.examples, change[replica], part.gap()[replica])
    return tally


def _receiving(part: Replicas, name: str, arrived: Activations, received: list[tuple[int, int]]) -> tuple[str, Hook]:
    """A hook that gives each replica's head what arrived in the replica of its sender; all of its key-value group."""
    parted = arrived[name].unflatten(0, (part.n, -1))
    senders = [replica for replica, _ in received]
    donor = parted[senders + [0] * (part.n - len(senders))].flatten(0, 1)
    n_heads, n_here = part.comparison.model.backbone.n_heads, arrived[name].shape[2]
    where = torch.zeros(part.n, 1, n_here, dtype=torch.bool)
    for i, (_, head) in enumerate(received):
        where[i, :, head * n_here // n_heads] = True
    return name, written(donor, where)


def _by_layer(heads: list[Head]) -> dict[int, list[int]]:
    """The indices of ``heads`` by their layer, lowest first."""
    found: dict[int, list[int]] = {}
    for i, (layer, _) in sorted(enumerate(heads), key=lambda entry: entry[1][0]):
        found.setdefault(layer, []).append(i)
    return found


def _layer(name: str) -> int:
    return HookPoint(name).layer()


def _putting(kept: Tensor) -> Hook:
    """A hook that puts ``kept`` in the place of what is there."""

    def put(activation: Tensor, hook: HookPoint) -> Tensor:
        return kept

    return put


def _keeping(found: Activations) -> Hook:
    """A hook that keeps what is there, by its name."""

    def keep(activation: Tensor, hook: HookPoint) -> None:
        found[hook.name] = activation

    return keep

"""Where the answer is decided: activations of a clean run, written one place at a time into a corrupted run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.measures._patching import Asked, Comparison, Direction, Metric, NamedMetric, compared
from fpt_viz.measures._replicas import Replicas, Tally, chosen, parts_of, written
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import PatchingEffects
from fpt_viz.tap import inspecting
from fpt_viz.tasks import Batch, Task

__all__ = ["patch_activations"]


class _Site(NamedTuple):
    hook: str
    axes: tuple[str, ...]
    """Those of the activation, after the batch, that a patch can choose from."""


RESIDUAL, HEADS = ("position",), ("position", "head")
SITES = {
    "resid_pre": _Site("hook_resid_pre", RESIDUAL),
    "resid_mid": _Site("hook_resid_mid", RESIDUAL),
    "resid_post": _Site("hook_resid_post", RESIDUAL),
    "attn_out": _Site("hook_attn_out", RESIDUAL),
    "mlp_out": _Site("hook_mlp_out", RESIDUAL),
    "z": _Site("attn.hook_z", HEADS),
    "q": _Site("attn.hook_q", HEADS),
    "k": _Site("attn.hook_k", HEADS),
    "v": _Site("attn.hook_v", HEADS),
    "pattern": _Site("attn.hook_pattern", ("head", "position")),
}


def patch_activations(
    model: FrozenPretrainedTransformer,
    task: Task | None = None,
    *,
    site: str = "resid_pre",
    by: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
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
    """How far each activation of the clean run leads the corrupted run back: 0 not at all, 1 the whole way.

    Args:
        model: Its mode, kernel and random state are as before afterwards.
        task: None for the model's own.
        site: ``"resid_pre"``, ``"resid_mid"``, ``"resid_post"``, ``"attn_out"``, ``"mlp_out"``, ``"z"``, ``"q"``,
            ``"k"``, ``"v"`` or ``"pattern"``. Where keys and values are grouped, k and v move a whole group, and
            their axis is ``kv_head``. A position of a pattern is its query's.
        by: Axes that are told apart, of ``"layer"`` (always one), ``"head"`` and ``"position"``; an axis left out is
            patched as a whole. None: layer and position of the residual stream, layer and head of the others.
        layers: Zero-based; None for all.
        heads: Those patched; None for all.
        positions: Those patched; None for all. Examples without such a token do not count there.
        batch: Clean examples of your own, instead of ``n_examples`` distinct ones of ``split``.
        corrupted: ``batch`` corrupted, example by example and as long; its targets are right for it. None: the task
            corrupts.
        corruption: A name in ``task.corruptions``; None is the first.
        corrupt_position: Corrupt only this position of the strings, or this patch; None draws one an example.
        direction: ``"denoise"`` writes clean activations into the corrupted run and shows what suffices;
            ``"noise"`` writes corrupted ones into the clean run and shows what is necessary: there a patch without
            effect is 1. The scale is the same.
        metric: None is the clean target's logit minus the corrupted target's, over targets that differ
            (``"target_contrast"``), and where none differs ``task.logit_difference``. Or a function of the logits of
            one example, ``[1 readout ...]``, and its clean example as a batch, that returns one number.
        n_examples: Asked for; examples on which both runs have the same metric are dropped and counted.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        seed: Of the choice of examples, the corruption and the bootstrap.
        batch_size: Rows in one forward pass. Few examples are repeated to fill it, each repeat with its own patch.

    Cost: one forward pass over the examples for each patch, from its layer on, and four without a patch. Memory: the
    residual stream and the site of every layer on ``batch_size`` rows, for one run and for both.

    Raises:
        ConfigError: No such layer, head or position; no example that both runs differ on; a metric that returns
            several numbers; batches that are no pair.
        UnknownNameError: No such site, axis, corruption, metric, direction or split.

    Reference:
        Vig et al., 2020, https://arxiv.org/abs/2004.12265; Meng et al., 2022, https://arxiv.org/abs/2202.05262; Zhang
        and Nanda, 2024, https://arxiv.org/abs/2309.16042, on metrics and directions.
    """
    if site not in SITES:
        raise UnknownNameError("site", site, SITES)
    asked = Asked(
        batch=batch, corrupted=corrupted, corruption=corruption, corrupt_position=corrupt_position,
        direction=direction, metric=metric, n_examples=n_examples, split=split, seed=seed, batch_size=batch_size,
    )  # fmt: skip
    axes = _axes(site, by)
    if heads is not None and "head" not in SITES[site].axes:
        raise ConfigError(f"{site} is not cut into heads: leave out heads, or patch z, q, k, v or pattern")
    grouped = site in ("k", "v")
    backbone = model.backbone
    told_layers = chosen("layer", layers, backbone.n_layers)
    told_heads: list[int] = []
    if "head" in SITES[site].axes:
        told_heads = chosen("head", heads, backbone.n_kv_heads if grouped else backbone.n_heads)
    with inspecting(model):
        comparison = compared(model, task, asked)
        n_tokens = comparison.clean.inputs.shape[1]
        entries = {"layer": told_layers, "head": told_heads, "position": chosen("position", positions, n_tokens)}
        tally = _patched(comparison, site, axes, entries)
    names = (task or model.task).token_names()
    labels = {"position": tuple(names[i] for i in entries["position"])}
    shared = grouped and backbone.n_kv_heads != backbone.n_heads
    return PatchingEffects(
        **tally.effects(direction, seed=seed),
        axes=tuple("kv_head" if axis == "head" and shared else axis for axis in axes),
        labels=tuple(labels.get(axis, tuple(map(str, entries[axis]))) for axis in axes),
        site=site,
        **comparison.told(),
    )


def _axes(site: str, by: Sequence[str] | None) -> tuple[str, ...]:
    """The axes of the result, in the order layer, head, position."""
    known = ("layer", "head", "position") if "head" in SITES[site].axes else ("layer", "position")
    wanted = known[:2] if by is None else ([by] if isinstance(by, str) else by)
    for axis in wanted:
        if axis not in known:
            raise UnknownNameError(f"axis of {site}", axis, known)
    return tuple(axis for axis in known if axis in ("layer", *wanted))


def _patched(comparison: Comparison, site: str, axes: tuple[str, ...], entries: dict[str, list[int]]) -> Tally:
    """Every patch on every example."""
    hook, site_axes = SITES[site]
    layers = entries["layer"]
    cells = list(product(*(range(len(entries[axis])) for axis in axes[1:])))
    tally = Tally((len(layers), *(len(entries[axis]) for axis in axes[1:])), len(comparison.clean))
    for part in parts_of(comparison, len(cells)):
        residual = {layer: f"blocks.{layer}.hook_resid_pre" for layer in layers}
        activation = {layer: f"blocks.{layer}.{hook}" for layer in layers}
        base, donor = part.both_runs([*residual.values()], [*activation.values()])
        sizes = _sizes(comparison, site_axes, donor[activation[layers[0]]])
        for i, layer in enumerate(layers):
            for chunk in part.chunks(cells):
                where = torch.zeros(part.n, *sizes, dtype=torch.bool)
                for replica, cell in enumerate(chunk):
                    where[replica] = _chosen_entries(site_axes, sizes, axes[1:], cell, entries)
                hooks = [(activation[layer], written(donor[activation[layer]], where))]
                change = part.patched(layer, base[residual[layer]], hooks)
                for replica, cell in enumerate(chunk):
                    _count(tally, part, (i, *cell), change[replica], replica, axes, entries)
    return tally


def _sizes(comparison: Comparison, site_axes: tuple[str, ...], activation: Tensor) -> list[int]:
    """The sizes of the activation's axes that a patch chooses from."""
    sizes = list(activation.shape[1 : 1 + len(site_axes)])
    n_tokens = comparison.clean.inputs.shape[1]
    assert sizes[site_axes.index("position")] == n_tokens  # a token is a position of the network
    return sizes


def _chosen_entries(
    site_axes: tuple[str, ...],
    sizes: list[int],
    axes: tuple[str, ...],
    cell: tuple[int, ...],
    entries: dict[str, list[int]],
) -> Tensor:
    """True on the entries of the activation that the patch of ``cell`` takes."""
    where = torch.ones(*sizes, dtype=torch.bool)
    for i, axis in enumerate(site_axes):
        taken = [entries[axis][cell[axes.index(axis)]]] if axis in axes else entries[axis]
        vector = torch.zeros(sizes[i], dtype=torch.bool)
        vector[taken] = True
        where &= vector.reshape([-1 if j == i else 1 for j in range(len(sizes))])
    return where


def _count(
    tally: Tally, part: Replicas, cell: tuple[int, ...], change: Tensor, replica: int,
    axes: tuple[str, ...], entries: dict[str, list[int]],
) -> None:  # fmt: skip
    """Add what a patch did to the examples that have the token patched."""
    examples, gap = part.examples, part.gap()[replica]
    if "position" in axes and part.n_real is not None:
        has_token = part.n_real > entries["position"][cell[axes.index("position")]]
        examples, change, gap = examples[has_token], change[has_token], gap[has_token]
    tally.add(cell, examples, change, gap)

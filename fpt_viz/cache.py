"""Any activation of a forward pass, by its name: the cache that TransformerLens's users know.

In eval mode and float32, whatever the model was trained in (see :mod:`fpt_viz.tap`, which does the reading).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fpt_viz.activations import ActivationName, NameFilter, full_name, matching, unknown
from fpt_viz.errors import CaptureError, ConfigError
from fpt_viz.kernel import HookPoint
from fpt_viz.tap import Tappable, hooked, inspecting

DEFAULT_BUDGET_BYTES = 2 << 30
PosSlice = int | slice | Sequence[int] | None


class ActivationCache(dict[str, Tensor]):
    """Activations by name, in full or short: ``cache["blocks.3.attn.hook_pattern"]``, ``cache["pattern", -1]``."""

    n_layers = 0
    """Of the model; what negative layers are counted from."""

    def __getitem__(self, name: ActivationName) -> Tensor:
        found = full_name(name, self.keys(), self.n_layers)
        if found is None:
            raise unknown("cached activation", name, self.keys())
        return super().__getitem__(found)

    def __repr__(self) -> str:
        return f"ActivationCache({len(self)} activations, {sum(t.nbytes for t in self.values()) / 1e6:.1f} MB)"


def run_with_cache(
    model: Tappable,
    inputs: Tensor,
    mask: Tensor | None = None,
    *,
    names_filter: NameFilter = None,
    device: str | torch.device | None = None,
    pos_slice: PosSlice = None,
    remove_batch_dim: bool = False,
    gradients: bool = False,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
) -> tuple[Tensor, ActivationCache]:
    """The logits of ``inputs``, and every activation that ``names_filter`` names (None: all).

    In eval mode, whatever mode the model is in. Cost: one forward pass, and the memory of what is kept.

    Args:
        model: Its mode, kernel and random state are as before afterwards.
        inputs: As of a batch, on any device.
        mask: True on real tokens; None where there is no padding.
        names_filter: A name, names, or a function of a name; see ``model.activation_names()``.
        device: Where the kept activations go; None leaves them on the model's.
        pos_slice: Tokens to keep: a token (whose axis goes), a slice or indices; of scores and patterns it chooses
            queries. None keeps all.
        remove_batch_dim: Leave out the batch axis of what is kept; for a single example.
        gradients: Keep the graph: the logits and the activations are not detached, and after ``backward()`` each
            activation's gradient is its ``.grad``.
        budget_bytes: The most memory that what is kept may take, 2 GiB unless said.

    Raises:
        CaptureError: The estimate is over the budget, or an activation was never reached.
        ConfigError: ``remove_batch_dim`` with several examples, or a token that is not there.
        UnknownNameError: No such activation.
    """
    if gradients and (pos_slice is not None or remove_batch_dim):
        raise ConfigError("gradients are of whole activations: leave out pos_slice and remove_batch_dim, and cut .grad")
    if remove_batch_dim and len(inputs) != 1:
        raise ConfigError(f"remove_batch_dim is for a single example, got {len(inputs)}")
    names = matching(model.backbone, names_filter)
    if _at_most(model, inputs, len(names)) > budget_bytes:
        size = estimate(model, inputs, mask, names_filter=names, pos_slice=pos_slice)
        if size > budget_bytes:
            raise CaptureError(
                f"{len(names)} activations of {len(inputs)} examples x {inputs.shape[1]} tokens take "
                f"{size / 1e6:,.1f} MB, over the budget of {budget_bytes / 1e6:,.1f} MB: choose fewer names, examples "
                "or tokens (names_filter, pos_slice), or raise budget_bytes"
            )
    there = next(iter(model.parameters())).device
    inputs, mask = inputs.to(there), None if mask is None else mask.to(there)
    cache = ActivationCache()
    cache.n_layers = model.backbone.n_layers

    def keep(activation: Tensor, hook: HookPoint) -> Tensor | None:
        if gradients and not activation.requires_grad:
            activation = activation.detach().requires_grad_()
        kept = _sliced(activation, hook.name, pos_slice)
        kept = kept if gradients else kept.detach().clone()
        kept = kept[0] if remove_batch_dim else kept
        cache[hook.name] = kept if gradients else kept.to(device or activation.device)
        if not gradients:
            return None
        kept.retain_grad()
        return activation

    with inspecting(model, gradients=gradients), hooked(model, [(names, keep)]):
        logits = model(inputs, mask)
    missing = [name for name in names if name not in cache]
    if missing:
        raise CaptureError(f"{missing[0]} was never reached in the forward pass: this model does not compute it")
    return logits, cache


def estimate(
    model: Tappable,
    inputs: Tensor,
    mask: Tensor | None = None,
    *,
    names_filter: NameFilter = None,
    pos_slice: PosSlice = None,
) -> int:
    """The bytes that :func:`run_with_cache` would keep; costs one forward pass of one example."""
    sizes: dict[str, int] = {}

    def measure(activation: Tensor, hook: HookPoint) -> None:
        kept = _sliced(activation, hook.name, pos_slice)
        sizes[hook.name] = kept.numel() * kept.element_size()

    one_mask = None if mask is None else mask[:1]
    with inspecting(model), hooked(model, [(matching(model.backbone, names_filter), measure)]):
        model(inputs[:1], one_mask)
    return len(inputs) * sum(sizes.values())


def _at_most(model: Tappable, inputs: Tensor, n_names: int) -> int:
    """A bound on what ``n_names`` activations of ``inputs`` take, in bytes, that needs no forward pass."""
    backbone, n_tokens = model.backbone, inputs.shape[1]
    widest = max(8 * backbone.d_model, model.task.output_shape[-1])
    if backbone.has_attention:  # scores, or a result of each head
        widest = max(widest, backbone.n_heads * max(n_tokens, backbone.d_model, 4 * backbone.d_head))
    return 4 * n_names * len(inputs) * n_tokens * widest


def _sliced(activation: Tensor, name: str, pos_slice: PosSlice) -> Tensor:
    """Of ``activation``, the tokens that are asked for: queries of scores and patterns, all of what is read out."""
    if pos_slice is None or name.startswith("readout."):
        return activation
    axis = 2 if name.endswith(("hook_pattern", "hook_attn_scores")) else 1
    n_tokens = activation.shape[axis]
    if isinstance(pos_slice, slice):
        chosen = range(n_tokens)[pos_slice]
        if not len(chosen):
            raise ConfigError(f"pos_slice {pos_slice} chooses none of {n_tokens} tokens")
        return activation[(slice(None),) * axis + (pos_slice,)]
    if isinstance(pos_slice, int):
        [index] = indices_of("token", [pos_slice], n_tokens)
        return activation.select(axis, index)
    index_tensor = torch.tensor(indices_of("token", list(pos_slice), n_tokens), device=activation.device)
    return activation.index_select(axis, index_tensor)


def indices_of(what: str, chosen: Sequence[int] | None, n: int) -> list[int]:
    """``chosen`` as indices from 0 to ``n`` - 1; None for all."""
    if chosen is None:
        return list(range(n))
    if not chosen:
        raise ConfigError(f"no {what} is chosen: there are {n}; None takes all")
    for index in chosen:
        if not -n <= index < n:
            raise ConfigError(f"no {what} {index}: there are {n}, numbered from 0")
    return [index % n for index in chosen]

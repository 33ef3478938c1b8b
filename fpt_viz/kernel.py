"""The attention kernel of the tap: one layer's attention in steps that hooks can read and change.

It is registered with ``transformers.AttentionInterface``. For the modules that are tapped it forms scores and pattern
itself, from the very queries and keys that the layer computed; every other module goes to SDPA. So it equals the eager
kernel, padding included, and never depends on ``output_attentions``, which is empty under SDPA.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from jaxtyping import Float, Int
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from fpt_viz.dropout import dropout
from fpt_viz.errors import CaptureError, ConfigError
from fpt_viz.plain_attention import plain_attention

KERNEL = "fpt_viz_tap"
QK, SCORES, PATTERN, Z = ("attn.hook_q", "attn.hook_k"), "attn.hook_attn_scores", "attn.hook_pattern", "attn.hook_z"
ROT_QK = ("attn.hook_rot_q", "attn.hook_rot_k")

PLAIN_TOKENS = 64
"""Up to so many tokens the plain product of softmax was the faster one in training, without dropout (CPU)."""

Hook = Callable[[Tensor, "HookPoint"], Tensor | None]


@dataclass(frozen=True)
class HookPoint:
    """What a hook function is told of the place where it runs."""

    name: str

    def layer(self) -> int:
        """The zero-based layer, as in ``blocks.3.attn.hook_z``."""
        prefix, _, rest = self.name.partition(".")
        if prefix != "blocks":
            raise ConfigError(f"{self.name} belongs to no layer")
        return int(rest.split(".")[0])


@dataclass
class KernelTap:
    """What is wanted of one attention module: functions by activation, and pattern rows that are only read."""

    hooks: dict[str, list[tuple[Hook, HookPoint]]] = field(default_factory=dict)
    rows: list[RowTap] = field(default_factory=list)


@dataclass
class RowTap:
    """Chosen rows of the pattern: cheap, since the rest of the pattern is never formed."""

    heads: Int[Tensor, " head"]
    queries: Int[Tensor, "batch query"]
    keep: Callable[[Float[Tensor, "batch head query key"]], None]
    whole: bool = False
    """Every row of every head is wanted: then the pattern that is read is also the one that is used."""


TAPS: WeakKeyDictionary[nn.Module, list[KernelTap]] = WeakKeyDictionary()
"""Of each attention module that is tapped now, its taps from the outermost block to the innermost."""


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """One layer's attention: SDPA where nothing is tapped, else the same in steps that hooks can read and change."""
    taps = TAPS.get(module)
    rate = options.get("dropout", 0.0) if module.training else 0.0
    if not taps and _plain_is_faster(query, key, rate) and not _learns(options.get("position_bias")):
        # Rotation leaves queries and keys in float32 where values are in low precision.
        query, keys, values = (_per_query_head(x.to(value.dtype), query) for x in (query, key, value))
        mask, bias = _visible(module, query, key, attention_mask, options), options.get("position_bias")
        if bias is not None and mask is not None and mask.dtype == torch.bool:
            mask = bias.masked_fill(~mask, torch.finfo(bias.dtype).min)  # a copy: all layers share the bias
        elif bias is not None:
            mask = bias if mask is None else bias + mask
        z = plain_attention(query, keys, values, mask, scaling=_scaling(query, options), rate=rate)
        return z.transpose(1, 2).contiguous(), None
    if not taps:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    names = {name for tap in taps for name in tap.hooks}
    for rotated in (QK, ROT_QK):  # a family has the one or the other here: what reaches the kernel
        query, key = (_apply(taps, name, x, transpose=True) for name, x in zip(rotated, (query, key), strict=True))
    value = _apply(taps, "attn.hook_v", value, transpose=True)
    rows = [wanted for tap in taps for wanted in tap.rows]
    if names & {SCORES, PATTERN} or any(wanted.whole for wanted in rows):
        scores = _scores(module, query, key, attention_mask, options, exact=not names & {SCORES, PATTERN})
        scores = _apply(taps, SCORES, scores)
        ours = SCORES not in names and scores.dtype == torch.float32 and not scores.requires_grad
        weights = torch.softmax(scores, -1, out=scores) if ours else scores.float().softmax(-1)
        # In low precision a pattern that nobody changes is read before it is rounded: then its rows still sum to 1.
        pattern = _apply(taps, PATTERN, weights.to(query.dtype)) if PATTERN in names else weights
        for wanted in rows:
            wanted.keep(pattern if wanted.whole else take_rows(pattern[:, wanted.heads], wanted.queries))
        dropped = dropout(pattern.to(query.dtype), rate, training=True)
        z = (dropped @ _per_query_head(value, query)).transpose(1, 2)
    else:
        for wanted in rows:
            wanted.keep(_pattern_rows(module, query, key, attention_mask, wanted, options))
        z, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return _apply(taps, Z, z).contiguous(), None


def _plain_is_faster(query: Tensor, key: Tensor, rate: float) -> bool:
    """Whether the plain product of softmax, forwards and backwards, takes less time here than torch's kernel.

    On the CPU with dropout, for which torch has no fused kernel either; and without on short sequences.
    """
    return query.device.type == "cpu" and query.requires_grad and (rate > 0 or key.shape[2] <= PLAIN_TOKENS)


def _learns(bias: Tensor | None) -> bool:
    return bias is not None and bias.requires_grad


def _apply(taps: list[KernelTap], name: str, tensor: Tensor, *, transpose: bool = False) -> Tensor:
    """``tensor`` after the hooks on ``name``; ``transpose`` shows them ``[batch pos head d_head]``."""
    for tap in taps:
        for hook, point in tap.hooks.get(name, ()):
            shown = tensor.transpose(1, 2) if transpose else tensor
            changed = checked(hook(shown, point), shown, point)
            if changed is not None:
                tensor = changed.transpose(1, 2) if transpose else changed
    return tensor


def checked(changed: object, shown: Tensor, point: HookPoint) -> Tensor | None:
    """What a hook returned, if it can take the place of what it was shown."""
    if changed is None:
        return None
    if not isinstance(changed, Tensor):
        raise CaptureError(
            f"the hook on {point.name} returned {type(changed).__name__}: return a tensor in the place of the "
            "activation, or None to leave it"
        )
    for what in ("shape", "dtype", "device"):
        found, wanted = getattr(changed, what), getattr(shown, what)
        if found != wanted:
            found, wanted = (tuple(size) if what == "shape" else size for size in (found, wanted))
            raise CaptureError(f"the hook on {point.name} returned {what} {found}, wanted {wanted}")
    return changed


def _per_query_head(keys: Tensor, query: Tensor) -> Tensor:
    """Keys or values repeated so that each query head has its own (grouped keys and values)."""
    n_queries = query.shape[1] // keys.shape[1]
    return keys if n_queries == 1 else keys.repeat_interleave(n_queries, dim=1)


def _visible(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, options: Mapping[str, Any]
) -> Tensor | None:
    """What is added to the scores, or True where a query sees a key; None where it sees every one."""
    if mask is not None:
        return mask
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if not causal or query.shape[2] == 1:
        return None
    return torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()[None, None]


def _masked(scores: Tensor, visible: Tensor | None) -> Tensor:
    if visible is None:
        return scores
    hidden = torch.finfo(scores.dtype).min
    if visible.dtype == torch.bool:
        return scores.masked_fill(~visible, hidden) if scores.requires_grad else scores.masked_fill_(~visible, hidden)
    return scores + visible


def _scaling(query: Tensor, options: Mapping[str, Any]) -> float:
    """What scores are multiplied by: 1 for T5, else one over the root of d_head."""
    scaling = options.get("scaling")
    return query.shape[-1] ** -0.5 if scaling is None else float(scaling)


def _scores(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, options: Mapping[str, Any], *, exact: bool
) -> Tensor:
    """Masked scores of every query, ``[batch head query key]``: a tensor that nothing else holds.

    ``exact``: of queries and keys in low precision too, sums are formed in float32 and not rounded.
    """
    keys = _per_query_head(key, query).transpose(2, 3)
    scaling = _scaling(query, options)
    scores = _product(query, keys) * scaling if exact and _is_low(query, key) else (query * scaling) @ keys
    if options.get("position_bias") is not None:
        scores = scores + options["position_bias"]
    return _masked(scores, _visible(module, query, key, mask, options))


def _pattern_rows(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, wanted: RowTap, options: Mapping[str, Any]
) -> Tensor:
    """The chosen rows of the pattern, with no other row formed."""
    visible = _visible(module, query, key, mask, options)
    if visible is not None:
        visible = visible.expand(query.shape[0], -1, query.shape[2], key.shape[2])
        visible = visible[:, wanted.heads] if visible.shape[1] > 1 else visible
        visible = take_rows(visible, wanted.queries)
    keys = _per_query_head(key, query)[:, wanted.heads]
    scores = _product(take_rows(query[:, wanted.heads], wanted.queries), keys.transpose(2, 3))
    scores = scores * _scaling(query, options)
    if options.get("position_bias") is not None:
        bias = options["position_bias"].expand(query.shape[0], query.shape[1], -1, -1)
        scores = scores + take_rows(bias[:, wanted.heads], wanted.queries)
    return _masked(scores, visible).float().softmax(-1)


def _is_low(query: Tensor, key: Tensor) -> bool:
    """Whether a plain product of the two would be in less than float32."""
    return query.dtype.itemsize < 4 or key.dtype.itemsize < 4 or torch.is_autocast_enabled(query.device.type)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right`` in float32 at the least, as fused kernels form scores of low precision; also in autocast."""
    wide = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
    with torch.autocast(left.device.type, enabled=False):
        return left.to(wide) @ right.to(wide)


def take_rows(tensor: Tensor, queries: Int[Tensor, "batch query"]) -> Tensor:
    """Of each example, the rows ``queries`` of axis 2; a row of -1 takes the first, to be blanked later."""
    index = queries.clamp(min=0)[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3])
    return tensor.gather(2, index)


AttentionInterface.register(KERNEL, attend)
AttentionMaskInterface.register(KERNEL, sdpa_mask)  # without it the kernel would get no mask, and attend to padding

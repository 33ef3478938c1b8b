"""The tap: reads or changes named activations of a model, under any attention kernel, and undoes everything on exit.

Attention is reached by a kernel of our own (``transformers.AttentionInterface``): for the layers that are tapped it
forms scores and pattern itself, from the very queries and keys that the layer computed, and every other layer goes to
SDPA. So it equals the eager kernel, padding included, and never depends on ``output_attentions``, which is empty under
SDPA. All other activations are reached by forward hooks at the places that the backbone's family declares.

Names and shapes are TransformerLens's (``blocks.0.attn.hook_pattern``, ``[batch head query key]``). With rotary
positions the kernel sees rotated queries and keys: ``hook_rot_q`` and ``hook_rot_k``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
import contextlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from jaxtyping import Float, Int
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from fpt_viz.backbones.base import Backbone, Place
from fpt_viz.errors import CaptureError, ConfigError, UnknownNameError
from fpt_viz.tasks.base import Task

KERNEL = "fpt_viz_tap"
QK, SCORES, PATTERN, Z = ("attn.hook_q", "attn.hook_k"), "attn.hook_attn_scores", "attn.hook_pattern", "attn.hook_z"
ROT_QK = ("attn.hook_rot_q", "attn.hook_rot_k")

Hook = Callable[[Tensor, "HookPoint"], Tensor | None]
NameFilter = str | Collection[str] | Callable[[str], bool] | None


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


@runtime_checkable
class Tappable(Protocol):
    """A model that the tap can enter: a module with a backbone, and a task that reads from it."""

    backbone: Backbone
    task: Task
    training: bool

    def __call__(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """The logits."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """As of ``nn.Module``."""
        ...

    def get_submodule(self, target: str) -> nn.Module:
        """As of ``nn.Module``."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """As of ``nn.Module``."""
        ...

    def readout_tokens(self, n_tokens: int, mask: Tensor | None = None) -> Tensor:
        """Of each example, the tokens that are read out."""
        ...

    @property
    def source(self) -> dict[str, Any]:
        """What a record says of where it comes from."""
        ...


# ---------------------------------------------------------------------------------------------------------------------
# The kernel


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


_TAPS: WeakKeyDictionary[nn.Module, list[KernelTap]] = WeakKeyDictionary()
"""Of each attention module that is tapped now, its taps from the outermost block to the innermost."""


def _kernel(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """One layer's attention: SDPA where nothing is tapped, else the same in steps that hooks can read and change."""
    taps = _TAPS.get(module)
    if not taps:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    names = {name for tap in taps for name in tap.hooks}
    query, key = (
        _apply(taps, name, part, transpose=True) for name, part in zip(_qk_names(names), (query, key), strict=True)
    )
    value = _apply(taps, "attn.hook_v", value, transpose=True)
    rows = [wanted for tap in taps for wanted in tap.rows]
    if names & {SCORES, PATTERN}:
        scores = _scores(module, query, key, attention_mask, options)
        scores = _apply(taps, SCORES, scores)
        pattern = _apply(taps, PATTERN, scores.float().softmax(-1).to(query.dtype))
        for wanted in rows:
            wanted.keep(take_rows(pattern[:, wanted.heads], wanted.queries))
        dropped = nn.functional.dropout(pattern, options.get("dropout", 0.0), module.training)
        z = (dropped @ _per_query_head(value, query)).transpose(1, 2)
    else:
        for wanted in rows:
            wanted.keep(_pattern_rows(module, query, key, attention_mask, wanted, options))
        z, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return _apply(taps, Z, z).contiguous(), None


def _qk_names(names: set[str]) -> tuple[str, str]:
    """How the queries and keys that reach the kernel are called: by their rotated names where those are tapped."""
    return ROT_QK if names & set(ROT_QK) else QK


def _apply(taps: list[KernelTap], name: str, tensor: Tensor, *, transpose: bool = False) -> Tensor:
    """``tensor`` after the hooks on ``name``; ``transpose`` shows them ``[batch pos head d_head]``."""
    for tap in taps:
        for hook, point in tap.hooks.get(name, ()):
            shown = tensor.transpose(1, 2) if transpose else tensor
            changed = _checked(hook(shown, point), shown, point)
            if changed is not None:
                tensor = changed.transpose(1, 2) if transpose else changed
    return tensor


def _checked(changed: Tensor | None, shown: Tensor, point: HookPoint) -> Tensor | None:
    """What a hook returned, if it can take the place of what it was shown."""
    if changed is not None and changed.shape != shown.shape:
        raise CaptureError(
            f"the hook on {point.name} returned shape {tuple(changed.shape)}, wanted {tuple(shown.shape)}"
        )
    return changed


def _per_query_head(keys: Tensor, query: Tensor) -> Tensor:
    """Keys or values repeated so that each query head has its own (grouped keys and values)."""
    return keys.repeat_interleave(query.shape[1] // keys.shape[1], dim=1)


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
    if visible.dtype == torch.bool:
        return scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    return scores + visible


def _scores(module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, options: Mapping[str, Any]) -> Tensor:
    """Masked scores of every query, ``[batch head query key]``."""
    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    scores = query @ _per_query_head(key, query).transpose(2, 3) * scaling
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
    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    keys = _per_query_head(key, query)[:, wanted.heads]
    scores = take_rows(query[:, wanted.heads], wanted.queries) @ keys.transpose(2, 3) * scaling
    if options.get("position_bias") is not None:
        bias = options["position_bias"].expand(query.shape[0], query.shape[1], -1, -1)
        scores = scores + take_rows(bias[:, wanted.heads], wanted.queries)
    return _masked(scores, visible).float().softmax(-1)


def take_rows(tensor: Tensor, queries: Int[Tensor, "batch query"]) -> Tensor:
    """Of each example, the rows ``queries`` of axis 2; a row of -1 takes the first, to be blanked later."""
    index = queries.clamp(min=0)[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3])
    return tensor.gather(2, index)


AttentionInterface.register(KERNEL, _kernel)
AttentionMaskInterface.register(KERNEL, sdpa_mask)  # without it the kernel would get no mask, and attend to padding


# ---------------------------------------------------------------------------------------------------------------------
# The tap


def activation_names(backbone: Backbone) -> list[str]:
    """Every activation of a model on ``backbone`` that can be tapped, layer by layer."""
    kernel = [*QK, "attn.hook_v", SCORES, PATTERN, Z, *(ROT_QK if backbone.rotary else ())]
    in_block = list(dict.fromkeys([*backbone.places, *kernel]))
    blocks = [f"blocks.{layer}.{name}" for layer in range(backbone.n_layers) for name in in_block]
    return ["hook_embed", *blocks, "readout.hook_out"]


def matching(backbone: Backbone, wanted: NameFilter) -> list[str]:
    """The activation names that ``wanted`` means: None for all, a name, names, or a function of a name.

    Raises:
        UnknownNameError: A name that this model does not have.
    """
    known = activation_names(backbone)
    if wanted is None:
        return known
    if callable(wanted):
        return [name for name in known if wanted(name)]
    asked = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in asked:
        if name not in known:
            raise UnknownNameError("activation", name, known)
    return asked


@contextlib.contextmanager
def hooked(model: Tappable, hooks: Iterable[tuple[NameFilter, Hook]]) -> Iterator[None]:
    """Run functions on named activations within the block; all are removed on exit, also after an exception.

    A function is given the activation and a :class:`HookPoint`, and returns a replacement of the same shape or None.
    Blocks may be nested: the outermost function runs first. Gradients flow, and nothing else of the model changes.
    """
    backbone = model.backbone
    taps: dict[nn.Module, KernelTap] = {}
    with ExitStack() as undo:
        for wanted, hook in hooks:
            for name in matching(backbone, wanted):
                point = HookPoint(name)
                place = _module_place(model, name)
                if place is None:
                    layer, _, activation = name.removeprefix("blocks.").partition(".")
                    tap = taps.setdefault(backbone.attentions[int(layer)], KernelTap())
                    tap.hooks.setdefault(activation, []).append((hook, point))
                else:
                    undo.callback(_register(*place, hook, point))
        enter_kernel(backbone, taps, undo)
        yield


def enter_kernel(backbone: Backbone, taps: Mapping[nn.Module, KernelTap], undo: ExitStack) -> None:
    """Let the attention modules in ``taps`` run under our kernel until ``undo`` closes."""
    if not taps:
        return
    config = backbone.network.config
    undo.callback(setattr, config, "_attn_implementation", config._attn_implementation)
    config._attn_implementation = KERNEL
    for module, tap in taps.items():
        active = _TAPS.setdefault(module, [])
        active.append(tap)
        undo.callback(_leave_kernel, module, tap)


def _leave_kernel(module: nn.Module, tap: KernelTap) -> None:
    remaining = [other for other in _TAPS[module] if other is not tap]
    if remaining:
        _TAPS[module] = remaining
    else:
        del _TAPS[module]


def _module_place(model: Tappable, name: str) -> tuple[nn.Module, Place, int] | None:
    """The module, side and head count where the activation ``name`` lies; None where it lies in the kernel."""
    if name == "hook_embed":
        return model.get_submodule("input"), Place("", "output"), 0
    if name == "readout.hook_out":
        return model.get_submodule("output"), Place("", "output"), 0
    backbone = model.backbone
    layer, _, activation = name.removeprefix("blocks.").partition(".")
    place = backbone.places.get(activation)
    if place is None:
        return None
    n_heads = getattr(backbone, place.n_heads) if place.n_heads else 0
    return backbone.blocks[int(layer)].get_submodule(place.module), place, n_heads


def _register(module: nn.Module, place: Place, n_heads: int, hook: Hook, point: HookPoint) -> Callable[[], None]:
    """Hook the input or output of ``module``; returns what removes the hook."""

    def changed(found: Tensor) -> Tensor | None:
        shown = found.unflatten(-1, (n_heads, -1)) if n_heads else found
        result = _checked(hook(shown, point), shown, point)
        return result.flatten(-2) if result is not None and n_heads else result

    def on_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = args[0] if args else kwargs["hidden_states"]
        result = changed(found)
        if result is None:
            return None
        return ((result, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": result})

    def on_output(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        result = changed(output[0] if isinstance(output, tuple) else output)
        return (result, *output[1:]) if result is not None and isinstance(output, tuple) else result

    if place.side == "input":
        return module.register_forward_pre_hook(on_input, with_kwargs=True).remove
    return module.register_forward_hook(on_output).remove


@contextlib.contextmanager
def inspecting(model: Tappable, *, gradients: bool = False) -> Iterator[None]:
    """Eval mode and float32 within the block; mode of every module and random state are as before afterwards.

    In training mode dropout would make rows of attention that do not sum to 1.
    """
    modes = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    try:
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            torch.autocast(device.type, enabled=False),
            torch.set_grad_enabled(gradients),
        ):
            for module in modes:
                module.training = False
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextlib.contextmanager
def starting_at(model: Tappable, layer: int, residual: Float[Tensor, "batch seq hidden"]) -> Iterator[None]:
    """Forward passes within the block begin at ``layer`` with ``residual`` as its input; earlier blocks do nothing.

    For interventions on one batch that differ only from ``layer`` on: what lies below is computed once, by whoever
    kept ``blocks.{layer}.hook_resid_pre``. The batch must be the one that ``residual`` was kept from.
    """
    blocks = model.backbone.blocks

    def skip(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return hidden_states

    def begin(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return ((residual, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": residual})

    with ExitStack() as undo:
        for block in blocks[:layer]:
            undo.callback(block.__dict__.pop, "forward")
            block.forward = skip
        undo.callback(blocks[layer].register_forward_pre_hook(begin, with_kwargs=True, prepend=True).remove)
        yield

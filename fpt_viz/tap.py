"""The tap: reads or changes named activations of a model, under any attention kernel, and undoes everything on exit.

Attention is reached by a kernel of our own (:mod:`fpt_viz.kernel`), all other activations by forward hooks at the
places that the backbone's family declares.

Names and shapes are TransformerLens's (``blocks.0.attn.hook_pattern``, ``[batch head query key]``). With rotary
positions the kernel sees rotated queries and keys: ``hook_rot_q`` and ``hook_rot_k``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
import contextlib
from contextlib import ExitStack
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
import torch
from torch import Tensor, nn

from fpt_viz.backbones.base import Backbone, Place
from fpt_viz.errors import UnknownNameError
from fpt_viz.kernel import KERNEL, PATTERN, QK, ROT_QK, SCORES, TAPS, Hook, HookPoint, KernelTap, Z, checked
from fpt_viz.tasks.base import Task

NameFilter = str | Collection[str] | Callable[[str], bool] | None


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
        active = TAPS.setdefault(module, [])
        active.append(tap)
        undo.callback(_leave_kernel, module, tap)


def _leave_kernel(module: nn.Module, tap: KernelTap) -> None:
    remaining = [other for other in TAPS[module] if other is not tap]
    if remaining:
        TAPS[module] = remaining
    else:
        del TAPS[module]


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
        result = checked(hook(shown, point), shown, point)
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

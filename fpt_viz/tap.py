"""The tap: reads or changes named activations of a model, under any attention kernel, and undoes everything on exit.

Attention is reached by a kernel of our own (:mod:`fpt_viz.kernel`), all other activations by forward hooks
(:mod:`fpt_viz.module_hooks`) at the places that the backbone's family declares.

Names are those of :mod:`fpt_viz.activations`. With rotary positions the kernel sees rotated queries and keys:
``hook_rot_q`` and ``hook_rot_k``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
import contextlib
from contextlib import ExitStack
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float
import torch
from torch import Tensor, nn

from fpt_viz.activations import NameFilter, matching
from fpt_viz.backbones._places import Place
from fpt_viz.backbones.base import Backbone
from fpt_viz.errors import CaptureError
from fpt_viz.kernel import KERNEL, TAPS, Hook, HookPoint, KernelTap
from fpt_viz.module_hooks import Located, ModuleHook, StepHook, enter_steps, leave, register
from fpt_viz.tasks.base import Task


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


@contextlib.contextmanager
def hooked(model: Tappable, hooks: Iterable[tuple[NameFilter, Hook]]) -> Iterator[None]:
    """Run functions on named activations within the block; all are removed on exit, also after an exception.

    A function is given the activation and a :class:`HookPoint`, and returns None or a replacement of the same shape,
    type and device. Blocks may be nested: the outermost function runs first. Gradients flow, and nothing else of the
    model changes.

    Raises:
        UnknownNameError: No such activation.
        CaptureError: On leaving: the model ran within the block and a function was never called. Or a function
            returned something that cannot take the activation's place.
    """
    backbone = model.backbone
    in_kernel: dict[nn.Module, KernelTap] = {}
    in_steps: dict[nn.Module, tuple[KernelTap, int]] = {}
    watch = _Watch()
    with ExitStack() as undo:
        for wanted, hook in hooks:
            for name in matching(backbone, wanted):
                found, seen = _located(model, name), (watch.seen(hook, name), HookPoint(name))
                side = found.place.side
                if side == "kernel":
                    hooks_there = in_kernel.setdefault(found.module, KernelTap()).hooks
                    hooks_there.setdefault(name.split(".", 2)[2], []).append(seen)
                elif side in ("scale", "normalized", "result"):
                    hooks_there = in_steps.setdefault(found.module, (KernelTap(), found.layer))[0].hooks
                    hooks_there.setdefault(side, []).append(seen)
                else:
                    undo.callback(register(backbone, found, *seen))
        enter_kernel(backbone, in_kernel, undo)
        enter_steps(backbone, in_steps, undo)
        undo.callback(model.get_submodule("").register_forward_hook(watch.count).remove)
        yield
    watch.check()


class _Watch:
    """Which functions of a block were called, and how often the model ran."""

    def __init__(self) -> None:
        self.waiting: dict[str, None] = {}
        self.n_passes = 0

    def seen(self, hook: Hook, name: str) -> Hook:
        """``hook``, which no longer waits once it was called."""
        self.waiting[name] = None

        def call(shown: Tensor, point: HookPoint) -> Tensor | None:
            self.waiting.pop(point.name, None)
            return hook(shown, point)

        return call

    def count(self, *_args: object) -> None:
        """A forward hook of the model."""
        self.n_passes += 1

    def check(self) -> None:
        """Raise where the model ran and a function was never called."""
        if self.n_passes and self.waiting:
            raise CaptureError(
                f"{next(iter(self.waiting))} was never reached in {self.n_passes} forward passes, so its hook did "
                "nothing: the pass skips its layer, or the module there was replaced"
            )


def leaked(model: Tappable) -> list[str]:
    """What the tap has in ``model`` now, by activation name; outside every block it must be empty.

    A block that was entered by hand and never left leaves its hooks; :func:`reset_hooks` takes them out.
    """
    found: dict[str, None] = {}
    for module in model.modules():
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            owner = getattr(hook, "__self__", None)
            if isinstance(owner, ModuleHook):
                found[owner.point.name] = None
            elif isinstance(owner, _Start):
                found[f"blocks.{owner.layer} (begins here)"] = None
        for tap in TAPS.get(module, ()):
            found |= {point.name: None for hooks in tap.hooks.values() for _hook, point in hooks}
            found |= {"attention rows": None} if tap.rows else {}
    skipped = [i for i, block in enumerate(model.backbone.blocks) if _is_skipped(block, model.backbone)]
    return [*found, *(f"blocks.{i} (skipped)" for i in skipped)]


def _is_skipped(block: nn.Module, backbone: Backbone) -> bool:
    return getattr(vars(block).get("forward"), "__self__", None) is backbone


def reset_hooks(model: Tappable) -> None:
    """Take everything of the tap out of ``model``, whatever block put it there; hooks of others stay."""
    ours = (ModuleHook, StepHook, _Start, _Watch)
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(getattr(hook, "__self__", None), ours)]:
                del hooks[key]
        TAPS.pop(module, None)
    for block in model.backbone.blocks:
        if _is_skipped(block, model.backbone):
            del vars(block)["forward"]
    config = model.backbone.network.config
    if config._attn_implementation == KERNEL:
        config._attn_implementation = model.backbone.attention_kernel


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
        undo.callback(leave, module, tap)


def _located(model: Tappable, name: str) -> Located:
    """Where the activation ``name`` lies in ``model``."""
    backbone = model.backbone
    if name in ("hook_embed", "readout.hook_out"):
        return Located(model.get_submodule("input" if name == "hook_embed" else "output"), Place("", "output"))
    if name in backbone.outer_places:
        place = backbone.outer_places[name]
        return Located(backbone.get_submodule(place.module), place)
    layer, _, activation = name.removeprefix("blocks.").partition(".")
    place = backbone.places[activation]
    return Located(backbone.blocks[int(layer)].get_submodule(place.module), place, int(layer))


@contextlib.contextmanager
def inspecting(
    model: Tappable, *, gradients: bool = False, precision: Literal["float32", "bfloat16"] = "float32"
) -> Iterator[None]:
    """Eval mode and float32 within the block; mode of every module and random state are as before afterwards.

    In training mode dropout would make rows of attention that do not sum to 1. With ``precision="bfloat16"``, products
    of matrices are in bfloat16, as in a training of that precision.
    """
    modes = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    try:
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"),
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
    blocks, start = model.backbone.blocks, _Start(layer, residual)
    with ExitStack() as undo:
        for block in blocks[:layer]:
            undo.callback(vars(block).pop, "forward", None)
            block.forward = model.backbone.skip_block
        undo.callback(blocks[layer].register_forward_pre_hook(start.begin, with_kwargs=True, prepend=True).remove)
        yield


class _Start:
    """Puts the input of the first block that runs in by hand."""

    def __init__(self, layer: int, residual: Tensor) -> None:
        self.layer, self.residual = layer, residual

    def begin(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before the block runs."""
        return ((self.residual, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": self.residual})

"""The tap outside the attention kernel: forward hooks at the modules where activations lie.

Most lie at a module's input or output. Three lie inside one, and are computed again from its input where they are
tapped: the scale and the normalized vector of a norm, and what each head adds in the output projection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fpt_viz.backbones._places import Place
from fpt_viz.backbones.base import Backbone
from fpt_viz.kernel import TAPS, Hook, HookPoint, KernelTap, checked


@dataclass(frozen=True)
class Located:
    """Where in a model an activation lies."""

    module: nn.Module
    place: Place
    layer: int = -1
    """-1 outside the blocks."""


class ModuleHook:
    """A function on the input or output of a module, as PyTorch calls it."""

    def __init__(self, hook: Hook, point: HookPoint, place: Place, n_heads: int) -> None:
        self.hook, self.point, self.place, self.n_heads = hook, point, place, n_heads
        self.n_examples = 1

    def count_examples(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        """Before the backbone runs: how many examples share an output that is computed once for all."""
        self.n_examples = len(args[0])

    def on_input(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before the module runs."""
        found = args[0] if args else kwargs["hidden_states"]
        changed = self._changed(found.clone() if self.place.stream else found)
        if changed is None:
            return None
        if self.place.stream:
            found.copy_(changed)  # the block adds this very tensor to the module's output later
            return None
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

    def on_output(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        """After the module ran."""
        found = output[0] if isinstance(output, tuple) else output
        changed = self._changed(found)
        return (changed, *output[1:]) if changed is not None and isinstance(output, tuple) else changed

    def _changed(self, found: Tensor) -> Tensor | None:
        shown = found.unflatten(-1, (self.n_heads, -1)) if self.n_heads else found
        if self.place.side == "rows":
            shown = found.expand(self.n_examples, *found.shape[-2:])
        changed = checked(self.hook(shown, self.point), shown, self.point)
        return changed.flatten(-2) if changed is not None and self.n_heads else changed


def register(backbone: Backbone, found: Located, hook: Hook, point: HookPoint) -> Callable[[], None]:
    """Hook the input or output of a module; returns what removes the hook."""
    place = found.place
    ours = ModuleHook(hook, point, place, getattr(backbone, place.n_heads) if place.n_heads else 0)
    if place.side == "input":
        return found.module.register_forward_pre_hook(ours.on_input, with_kwargs=True).remove
    undo = ExitStack()
    undo.callback(found.module.register_forward_hook(ours.on_output).remove)
    if place.side == "rows":
        undo.callback(backbone.register_forward_pre_hook(ours.count_examples).remove)
    return undo.close


Steps = Callable[[list[KernelTap], nn.Module, Tensor, Tensor], Tensor | None]


class StepHook:
    """The functions of all blocks on what lies inside a module; of nested blocks the innermost one's hook runs them."""

    def __init__(self, tap: KernelTap, steps: Steps) -> None:
        self.tap, self.steps = tap, steps

    def on_output(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """After the module ran: its output, computed again from what a function put in a step's place."""
        taps = TAPS[module]
        return self.steps(taps, module, args[0], output) if taps[-1] is self.tap else None


def enter_steps(backbone: Backbone, taps: Mapping[nn.Module, tuple[KernelTap, int]], undo: ExitStack) -> None:
    """Run the functions in ``taps`` inside their modules until ``undo`` closes; with each tap, its layer."""
    for module, (tap, layer) in taps.items():
        steps = partial(_head_results, backbone.projection(layer)) if "result" in tap.hooks else _norm_steps
        TAPS.setdefault(module, []).append(tap)
        undo.callback(leave, module, tap)
        undo.callback(module.register_forward_hook(StepHook(tap, steps).on_output, prepend=True).remove)


def leave(module: nn.Module, tap: KernelTap) -> None:
    """Take ``tap`` off ``module``."""
    remaining = [other for other in TAPS.get(module, ()) if other is not tap]
    if remaining:
        TAPS[module] = remaining
    else:
        TAPS.pop(module, None)


def _norm_steps(taps: list[KernelTap], norm: nn.Module, x: Tensor, output: Tensor) -> Tensor | None:
    """A layer norm or RMSNorm in steps: the divisor, the quotient, then gain and bias."""
    x = x if x.dtype == torch.float64 else x.float()
    centred = x - x.mean(-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else x
    epsilon: Any = norm.eps if isinstance(norm, nn.LayerNorm) else norm.variance_epsilon
    scale, scaled = _through(taps, "scale", (centred.pow(2).mean(-1, keepdim=True) + epsilon).sqrt())
    normalized, changed = _through(taps, "normalized", centred / scale)
    if not (scaled or changed):
        return None
    return _with_bias(normalized * norm.get_parameter("weight"), norm).to(output.dtype)


def _head_results(
    weight: Tensor, taps: list[KernelTap], projection: nn.Module, z: Tensor, output: Tensor
) -> Tensor | None:
    """The output projection in steps: what each head adds, their sum, then the bias."""
    per_head = z.unflatten(-1, weight.shape[:2])
    result, changed = _through(taps, "result", torch.einsum("bphd,hdm->bphm", per_head, weight))
    return _with_bias(result.sum(2), projection).to(output.dtype) if changed else None


def _with_bias(tensor: Tensor, module: nn.Module) -> Tensor:
    bias: Tensor | None = getattr(module, "bias", None)
    return tensor if bias is None else tensor + bias


def _through(taps: list[KernelTap], step: str, tensor: Tensor) -> tuple[Tensor, bool]:
    """``tensor`` after the functions on ``step``, and whether one gave something back."""
    given = False
    for tap in taps:
        for hook, point in tap.hooks.get(step, ()):
            changed = checked(hook(tensor, point), tensor, point)
            if changed is not None:
                tensor, given = changed, True
    return tensor, given

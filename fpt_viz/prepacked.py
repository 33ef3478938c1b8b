"""Matrix products with frozen weights that were laid out for the processor beforehand, in float32 on the CPU.

A product first lays its right matrix out as the processor wants it. Of a weight that never changes that can be done
once: with few rows it is a sixth of the product's time. Both ways are packed, for the forward pass and for the gradient
of what comes in, so a packed weight takes its own size twice more.

A weight that was written to, or replaced, is packed again before the next step. One way of writing goes unseen: in
place through ``.data``, which torch does not count. Write under ``torch.no_grad()`` instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import contextlib
from types import MethodType
from typing import Any

from jaxtyping import Float
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

MAX_ROWS = 256
"""Rows up to which packing was worth its memory: on 640 it saved 3 to 5 % of a step, on 160 more than 10 %."""
MIN_SIDE = 256
"""Of a weight; products with smaller ones are few operations."""


class _Product(torch.autograd.Function):
    """``values @ weight.T + bias`` of a frozen weight; keeps nothing."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Prepacked) -> Tensor:
        ctx.weight = weight
        return weight.onwards(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.weight.backwards(gradients[0]), None


class Seen:
    """Parameters as they were, to tell whether anything was written to them, or put in their place, since.

    Each is held, with its storage, so that nothing else can come to lie where it lay.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._then = [(parameter, parameter.detach(), parameter._version) for parameter in parameters]

    def are(self, parameters: Iterable[Tensor]) -> bool:
        """Whether ``parameters`` are still those; writing in place through ``.data`` goes unseen."""
        now = list(parameters)
        return len(now) == len(self._then) and all(
            a is b and a._version == version and a.data_ptr() == values.data_ptr()
            for a, (b, values, version) in zip(now, self._then, strict=True)
        )


class Prepacked:
    """One frozen layer's weight, laid out for ``n_rows`` rows at a time; any other number takes the plain weight."""

    def __init__(self, layer: nn.Module, n_rows: int) -> None:
        self.n_rows = n_rows
        self.seen = Seen(layer.parameters(recurse=False))
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor)  # a linear layer's, by `packable`
        self.bias = bias.detach() if isinstance(bias, Tensor) else None
        weight = weight.detach()
        self.weight = weight.T if isinstance(layer, Conv1D) else weight
        self._onwards, self._backwards = (_pack(w, n_rows) for w in (self.weight, self.weight.T))

    @property
    def size_bytes(self) -> int:
        """Of both layouts, without the few values that pad them."""
        return 2 * self.weight.numel() * self.weight.element_size()

    def onwards(self, values: Float[Tensor, "*row inner"]) -> Float[Tensor, "*row outer"]:
        """What the layer makes of ``values``."""
        return torch.as_tensor(_multiply(values, self._onwards, self.weight, self.bias, self.n_rows))

    def backwards(self, gradient: Float[Tensor, "*row outer"]) -> Float[Tensor, "*row inner"]:
        """The gradient of what came in, from that of what went out."""
        return torch.as_tensor(_multiply(gradient, self._backwards, self.weight.T, None, self.n_rows))


def _multiplied(weight: Prepacked, values: Tensor) -> Tensor:
    """The ``forward`` of a layer whose weight is packed."""
    found: Tensor = _Product.apply(values, weight)  # type: ignore[no-untyped-call]
    return found


class _Forward:
    """The ``forward`` of ``layer`` while its weight is packed; a copy of the layer has its class's own."""

    def __init__(self, layer: nn.Module, weight: Prepacked) -> None:
        self.layer, self.weight = layer, weight

    def __call__(self, values: Tensor) -> Tensor:
        return _multiplied(self.weight, values)

    def __reduce__(self) -> tuple[Any, ...]:  # packed weights cannot be copied, and would go stale in a copy
        return _plain_forward, (self.layer,)


def _plain_forward(layer: nn.Module) -> MethodType:
    return MethodType(type(layer).forward, layer)


def _pack(weight: Tensor, n_rows: int) -> Tensor:
    return torch.as_tensor(torch.ops.mkl._mkl_reorder_linear_weight(weight.contiguous(), n_rows))


def _multiply(values: Tensor, packed: Tensor, weight: Tensor, bias: Tensor | None, n_rows: int) -> Tensor:
    """As ``nn.functional.linear``; by the packed weight where there are ``n_rows`` rows."""
    return torch.as_tensor(torch.ops.mkl._mkl_linear(values, packed, weight, bias, n_rows))


def can_pack() -> bool:
    """Whether this build of torch has MKL and its packed products."""
    return torch.backends.mkl.is_available() and hasattr(torch.ops.mkl, "_mkl_linear")


def packable(network: nn.Module) -> Iterator[nn.Module]:
    """The frozen linear layers of ``network`` that are large enough, in float32 on the CPU."""
    for module in network.modules():
        if type(module) not in (nn.Linear, Conv1D) or any(p.requires_grad for p in module.parameters()):
            continue
        weight = module.weight
        assert isinstance(weight, Tensor)
        if min(weight.shape) >= MIN_SIDE and weight.dtype == torch.float32 and weight.device.type == "cpu":
            yield module


def bytes_to_pack(network: nn.Module, n_rows: int) -> int:
    """What packing ``network`` for ``n_rows`` tokens at a time takes; 0 where nothing would be packed."""
    if n_rows > MAX_ROWS or not can_pack():
        return 0
    weights = (torch.as_tensor(layer.weight) for layer in packable(network))
    return sum(2 * weight.numel() * weight.element_size() for weight in weights)


class PrepackedWeights:
    """The packed weights of a network, for steps that compute ``n_rows`` tokens at a time."""

    def __init__(self, network: nn.Module, n_rows: int) -> None:
        self.network, self.n_rows = network, n_rows
        self.packed: dict[nn.Module, Prepacked] = {}
        self._pack()

    def _pack(self) -> None:
        """Pack what is not, or was written to since."""
        if self.n_rows > MAX_ROWS or not can_pack():
            return
        found = set()
        for layer in packable(self.network):
            found.add(layer)
            if layer not in self.packed or not self.packed[layer].seen.are(layer.parameters(recurse=False)):
                self.packed[layer] = Prepacked(layer, self.n_rows)
        for layer in self.packed.keys() - found:  # trained by now, or moved
            del self.packed[layer]

    @property
    def size_bytes(self) -> int:
        """Of all layouts, beside the weights themselves."""
        return sum(packed.size_bytes for packed in self.packed.values())

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Let the layers multiply by their packed weights within the block; their hooks run as ever."""
        self._pack()
        changed = [layer for layer in self.packed if "forward" not in vars(layer)]
        for layer in changed:
            layer.forward = _Forward(layer, self.packed[layer])
        try:
            yield
        finally:
            for layer in changed:
                del layer.forward

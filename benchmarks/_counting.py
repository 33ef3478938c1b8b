"""Operations and bytes of a call, counted exactly as the operators of PyTorch are called; nothing is timed.

Operations are those of matrix products, by the formulas of ``torch.utils.flop_counter``. That knows no formula of the
CPU's fused attention, nor of oneDNN's linear layers on packed weights, and counts them as nothing, so theirs are here;
``tests/project/test_benchmarks.py`` holds them to the same attention in plain products.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

LOOKS_LIKE_A_PRODUCT = ("mm", "mv", "dot", "linear", "attention", "conv", "einsum", "lstm", "gru")
"""In the name of an operator that has no formula: then it is told that it was not counted."""
ONLY_WRITTEN = ("copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_")
"""These write to their first argument and do not read it."""


@dataclass
class Counted:
    """What :class:`Counting` saw."""

    operations: Counter[str] = field(default_factory=Counter)
    """Of matrix products, by the part of the step that :attr:`Counting.part_of` named."""
    bytes: Counter[str] = field(default_factory=Counter)
    """That operators read and wrote, each of its own, as if no cache kept anything between them; likewise by part."""
    products: Counter[tuple[tuple[int, ...], torch.dtype]] = field(default_factory=Counter)
    """How often matrices of such sizes, (m, k, n) or (b, m, k, n), were multiplied."""
    fused: Counter[torch.dtype] = field(default_factory=Counter)
    """Operations inside fused attention, whose products are in none of :attr:`products`."""
    n_operators: int = 0
    n_reads_to_host: int = 0
    """Values that Python asked the device for: each waits for all that was queued."""
    not_counted: set[str] = field(default_factory=set)
    """Operators that look like products and have no formula."""

    @property
    def n_operations(self) -> int:
        """Over all parts."""
        return sum(self.operations.values())

    @property
    def n_bytes(self) -> int:
        """Over all parts."""
        return sum(self.bytes.values())


class Counting(TorchDispatchMode):
    """Counts within its block what it runs, whether in the forward or the backward pass."""

    def __init__(self, part_of: Callable[[], str] = lambda: "all") -> None:
        """Start at nothing.

        Args:
            part_of: Tells, whenever an operator runs, which part of the step it belongs to.
        """
        super().__init__()
        self.part_of = part_of
        self.found = Counted()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As of the mode: run ``func``, and count it."""
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        part, found = self.part_of(), self.found
        found.bytes[part] += _moved(func, args, kwargs, made)
        found.n_operators += 1
        found.n_reads_to_host += func._overloadpacket.__name__ == "_local_scalar_dense"
        n = _operations(func, args, kwargs, made)
        if n is None:
            name = func._overloadpacket.__name__
            if any(word in name for word in LOOKS_LIKE_A_PRODUCT):
                found.not_counted.add(name)
            return made
        found.operations[part] += n
        shape = _product(func, args)
        if shape is not None:
            found.products[shape] += 1
        else:
            first = next(leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor))
            found.fused[first.dtype] += n
        return made


def _operations(func: Any, args: Any, kwargs: Any, made: Any) -> int | None:
    """Of one operator; None where nothing is known of it."""
    name = func._overloadpacket.__name__
    if name in OWN_FORMULAS:
        return OWN_FORMULAS[name](args)
    formula = flop_registry.get(func._overloadpacket)
    return None if formula is None else int(formula(*args, **kwargs, out_val=made))


def _attention(args: Any) -> int:
    query, key, value = args[:3]
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _attention_backward(args: Any) -> int:
    gradient, query, key, value = args[:4]
    return int(sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape))


def _linear(args: Any) -> int:
    """Of a linear layer: ``input [... k]`` and ``weight [n k]``."""
    return 2 * int(args[0].numel()) * int(args[1].shape[0])


OWN_FORMULAS: dict[str, Callable[[Any], int]] = {
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    "_linear_pointwise": _linear,  # oneDNN's, on a weight that is packed beforehand
    "mkldnn_linear": _linear,
    "linear": _linear,
    "_mkl_linear": lambda args: 2 * int(args[0].numel()) * int(args[2].shape[0]),  # args[1] is the packed weight
}


def _product(func: Any, args: Any) -> tuple[tuple[int, ...], torch.dtype] | None:
    """The sizes of a plain product of matrices; None for whatever else is counted."""
    name = func._overloadpacket.__name__
    if name in ("addmm", "baddbmm"):
        args = args[1:]
    if name in ("mm", "addmm", "bmm", "baddbmm"):
        left, right = args[:2]
        return (*map(int, left.shape), int(right.shape[-1])), left.dtype
    if name in ("_linear_pointwise", "mkldnn_linear", "linear", "_mkl_linear"):
        left, weight = args[0], args[2 if name == "_mkl_linear" else 1]
        return (prod(left.shape[:-1]), int(left.shape[-1]), int(weight.shape[0])), left.dtype
    return None


def _moved(func: Any, args: Any, kwargs: Any, made: Any) -> int:
    """Bytes that an operator reads and writes: nothing for views and for memory that is only set aside."""
    schema, name = func._schema, func._overloadpacket.__name__
    if name.startswith(("empty", "new_empty", "_record_function", "detach")):
        return 0
    if any(one.alias_info is not None and not one.alias_info.is_write for one in schema.returns):
        return 0
    total = 0
    for index, argument in enumerate(schema.arguments):
        given = args[index] if index < len(args) else kwargs.get(argument.name)
        size = sum(_read(leaf) for leaf in tree_leaves(given) if isinstance(leaf, Tensor))
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        total += size * (2 if is_written and name not in ONLY_WRITTEN else 1)
    fresh = all(one.alias_info is None for one in schema.returns)
    return total + (sum(_read(leaf) for leaf in tree_leaves(made) if isinstance(leaf, Tensor)) if fresh else 0)


def _read(tensor: Tensor) -> int:
    """Bytes that hold the values of ``tensor``: what is repeated by a stride of zero is held once."""
    if tensor.layout is not torch.strided or tensor.is_mkldnn:
        return tensor.numel() * tensor.element_size()
    sides = (side for side, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return prod(sides) * tensor.element_size()

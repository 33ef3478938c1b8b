"""Attention weights in one byte each: read as float32 tensors, with an error that is known.

Each row (one query of one head) keeps its largest weight exactly, as a float; every weight is a whole number of 255ths
of it. Weights are rounded to the nearest, and where the row's sum would drift by more than half a unit, those that were
nearest to being rounded the other way are. So

- no weight is further than 1 / 255 of its row's largest from what it was, most no further than 1 / 510;
- a row's sum is within 1 / 510 of its largest weight of what it was, however many keys there are, which rollout and
  flow multiply over layers;
- what was 0 (masked, or later than a causal query) is exactly 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any, NoReturn, cast

from jaxtyping import Float, UInt8
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from fpt_viz.errors import ConfigError, RecordError

N_UNITS = 255
"""The code of a row's largest weight."""
SMALLEST = 1e-36
"""Rows of no larger weight are taken as 0: 255 over it is beyond float32."""
STEP_VALUES = 1 << 17
"""Weights that are packed at a time: what packing needs beside its result fits into a cache."""

WEIGHT_ERRORS = {
    torch.float64: 0.0,
    torch.float32: 0.0,
    torch.float16: 2.0**-11,
    torch.bfloat16: 2.0**-8,
    torch.uint8: 1 / N_UNITS,
}
"""By what weights are stored as, how far a weight may be from what it was, in parts of its row's largest.

A row's sum is no further off than that from 1. Of float16, rows of at most 16,384 keys: beyond, it loses numbers.
"""


def stored_dtype(name: torch.dtype | str) -> torch.dtype:
    """What weights can be stored as, by its type or its name.

    Raises:
        ConfigError: They cannot be stored so.
    """
    found = {str(dtype).removeprefix("torch."): dtype for dtype in WEIGHT_ERRORS}
    dtype = found.get(str(name).removeprefix("torch."))
    if dtype is None:
        raise ConfigError(f"attention cannot be stored as {name or 'nothing'}; it can as {', '.join(found)}")
    return dtype


def stored_note(dtype: torch.dtype, weight_error: float) -> dict[str, Any]:
    """What the source of a record says of its weights; nothing of those that are as they were computed."""
    return {"stored_as": str(dtype).removeprefix("torch."), "weight_error": weight_error} if weight_error else {}


def converted(weights: Float[Tensor, "*row key"], dtype: torch.dtype) -> Float[Tensor, "*row key"]:
    """``weights`` as they are stored in ``dtype``."""
    return PackedWeights(*pack(weights)) if dtype == torch.uint8 else weights.to(dtype)


def pack(
    weights: Float[Tensor, "*row key"],
) -> tuple[UInt8[Tensor, "*row key"], Float[Tensor, "*row"]]:
    """The codes of ``weights`` and each row's largest; see the module.

    Args:
        weights: At least 0, and finite.

    Raises:
        RecordError: They are not: what is negative, infinite or no number is no attention.
    """
    if weights.numel():
        low, high = map(float, weights.aminmax())
        if not 0 <= low <= high <= torch.finfo(torch.float32).max:  # also where one is NaN
            raise RecordError(
                f"weights from {low:.2g} to {high:.2g} were to be packed: attention is 0 or more, and finite"
            )
    codes = torch.empty(weights.shape, dtype=torch.uint8, device=weights.device)
    largest = torch.zeros(weights.shape[:-1], dtype=torch.float32, device=weights.device)
    n_keys = weights.shape[-1]
    if not weights.numel():
        return codes, largest
    rows, flat, most = weights.reshape(-1, n_keys), codes.view(-1, n_keys), largest.view(-1)
    n_rows = max(1, STEP_VALUES // n_keys)
    for first in range(0, len(rows), n_rows):
        part = slice(first, first + n_rows)
        flat[part], most[part] = _packed_rows(rows[part].float())
    return codes, largest


def _packed_rows(weights: Float[Tensor, "row key"]) -> tuple[Float[Tensor, "row key"], Float[Tensor, " row"]]:
    """Codes as floats, and the largest weight of each row."""
    largest = weights.amax(-1)
    largest = largest * (largest > SMALLEST)
    units = weights * torch.where(largest > 0, N_UNITS / largest, 0.0)[:, None]
    codes = units.round()
    missing = units.sum(-1, dtype=torch.float64).round() - codes.sum(-1, dtype=torch.float64)
    n_moved = int(missing.abs().max())
    if n_moved:
        # Rounded to the nearest, the sum is `missing` units off: at least as many weights were rounded that way, so
        # those that are moved were, and neither a zero nor the largest, which are whole, is among them.
        way = missing.sign().float()[:, None]
        found = ((units - codes) * way).topk(n_moved, -1)
        counted = torch.arange(n_moved, device=weights.device) < missing.abs()[:, None]
        codes.scatter_add_(-1, found.indices, counted * (found.values > 0) * way)
    return codes, largest


def unpack(codes: UInt8[Tensor, "*row key"], largest: Float[Tensor, "*row"]) -> Float[Tensor, "*row key"]:
    """What :func:`pack` was given, up to its error, in float32."""
    return codes * (largest / N_UNITS)[..., None]


CURE = "take weights.clone() first"


class PackedWeights(Tensor):
    """Packed weights that every function of PyTorch and NumPy sees as the float32 tensor that they stand for.

    One byte a weight is held, and four a row; floats are made when somebody asks for them, by plain indices and slices
    for those alone. They cannot be written to: an index, a view or ``detach`` gives a copy, and what is written there
    does not come back here. Nor have they a storage or a pointer: ``clone`` gives a tensor that has. Copies and pickles
    are packed too.
    """

    codes: Tensor
    largest: Tensor

    @staticmethod
    def __new__(cls, codes: Tensor, largest: Tensor) -> PackedWeights:
        """Of the result of :func:`pack`, which is kept, not copied."""
        made: PackedWeights = Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.float32, device=codes.device)
        made.codes, made.largest = codes, largest
        return made

    def unpacked(self) -> Float[Tensor, "*row key"]:
        """All of them as a plain tensor."""
        return unpack(self.codes, self.largest)

    def taken(self, index: Any) -> PackedWeights:
        """Those at ``index``, which names no single key, still packed."""
        return PackedWeights(self.codes[index], self.largest[index])

    def on_cpu(self) -> PackedWeights:
        """The same there, still packed."""
        return PackedWeights(self.codes.cpu(), self.largest.cpu())

    def __reduce_ex__(self, protocol: Any) -> tuple[type[PackedWeights], tuple[Tensor, Tensor]]:
        """As they are held."""
        return PackedWeights, (self.codes, self.largest)

    def __deepcopy__(self, memo: dict[Any, Any]) -> PackedWeights:
        """Likewise."""
        found = memo.get(id(self))
        if found is None:
            found = memo[id(self)] = PackedWeights(deepcopy(self.codes, memo), deepcopy(self.largest, memo))
        return cast("PackedWeights", found)

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        """What is held."""
        return self.codes.nbytes + self.largest.nbytes

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What ``func`` says of the floats."""
        kwargs = dict(kwargs or {})
        if func in _ABOUT:
            return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        first = args[0] if args else kwargs.get("input")
        if func is Tensor.__getitem__ and type(first) is PackedWeights and _of_rows(args[1], first.ndim):
            return first.taken(args[1]).unpacked()
        name = getattr(func, "__name__", "")
        if func in _RAW:
            raise RecordError(f"{name} was asked of packed attention weights, which are no floats in memory: {CURE}")
        written = name in ("__setitem__", "__set__") or (name.endswith("_") and not name.endswith("__"))
        if (written and isinstance(first, PackedWeights)) or any(
            isinstance(one, PackedWeights) for one in tree_leaves(kwargs.get("out"))
        ):
            _refuse(name)
        args, kwargs = tree_map_only(PackedWeights, PackedWeights.unpacked, (args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # PyTorch's stub leaves out that it is a class method
        cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Where PyTorch's own code asks, past :meth:`__torch_function__`."""
        if func._schema.is_mutable:
            _refuse(str(func))
        args, kwargs = tree_map_only(PackedWeights, PackedWeights.unpacked, (args, dict(kwargs or {})))
        return func(*args, **kwargs)


def _of_rows(index: Any, n_axes: int) -> bool:
    """Whether ``index`` is made of numbers and slices, and leaves keys alone."""
    each = index if isinstance(index, tuple) else (index,)
    return len(each) < n_axes and all(isinstance(one, int | slice) and not isinstance(one, bool) for one in each)


def _refuse(name: str) -> NoReturn:
    raise RecordError(f"{name} would change packed attention weights, which are read-only: {CURE}")


_PROPERTIES = (
    "shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_leaf", "grad", "is_cpu", "is_cuda", "_version",
)  # fmt: skip
_METHODS = ("size", "dim", "numel", "element_size", "is_floating_point", "is_inference", "__len__", "__hash__")
_RAW_METHODS = ("data_ptr", "const_data_ptr", "mutable_data_ptr", "untyped_storage", "storage", "_typed_storage")
_RAW = {getattr(Tensor, name) for name in _RAW_METHODS if hasattr(Tensor, name)}
_RAW |= {Tensor.__cuda_array_interface__.__get__}
"""They tell where the values lie: those of floats that are made to be asked are gone when somebody looks there."""
_ABOUT = {getattr(Tensor, name).__get__ for name in _PROPERTIES} | {getattr(Tensor, name) for name in _METHODS}
"""Asked without any weight being made."""

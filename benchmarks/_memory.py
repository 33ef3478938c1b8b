"""How many bytes of tensors a call holds at its peak, counted exactly, whatever the allocator keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
import weakref

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Live(TorchDispatchMode):
    """Counts the storages that are made within the block and still held."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As of the mode: run ``func``, then count what is new among its results."""
        kwargs = kwargs or {}
        for given in tree_leaves((args, kwargs)):
            if isinstance(given, Tensor):
                self._count(given, new=False)
        found = func(*args, **kwargs)
        for made in tree_leaves(found):
            if isinstance(made, Tensor):
                self._count(made, new=True)
        return found

    def _count(self, tensor: Tensor, *, new: bool) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self.known:
            return
        self.known.add(storage._cdata)
        size = storage.nbytes() if new else 0
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, storage._cdata, size)

    def _free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes of new tensors that ``call`` holds at once."""
    with _Live() as live:
        call()
    return live.peak

"""A CUDA device that is none: tensors say that they lie on it, and are computed on the CPU.

For a torch that was built without CUDA. It shows what does not need the device: that every operation finds its tensors
in one place, when the host would wait, and that the numbers are those of the CPU. It shows nothing of speed, memory,
kernels or rounding there. ``pretended_cuda.cpp`` must have been loaded before torch.
"""

from __future__ import annotations

from pathlib import Path
import subprocess
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda", 0)
MATH = 0
"""How torch numbers the attention kernel that is made of plain operations."""
READS = ("aten._local_scalar_dense.default", "aten.equal.default", "aten.nonzero.default", "aten.masked_select.default")
"""Operations that tell the host a number or a size."""


def build(compiler: str, folder: Path) -> Path:
    """The shared library of ``pretended_cuda.cpp``, made by ``compiler`` in ``folder``."""
    torch_folder, library = Path(torch.__file__).parent, folder / "pretended_cuda.so"
    source, found = Path(__file__).with_suffix(".cpp"), torch_folder / "lib"
    options = ["-std=c++20", "-shared", "-fPIC", f"-I{torch_folder / 'include'}", f"-L{found}", f"-Wl,-rpath,{found}"]
    command = [compiler, *options, str(source), "-lc10", "-ltorch_cpu", "-o", str(library)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library


class OnDevice(Tensor):
    """A tensor that says it lies on the device; its numbers are in ``inner``, on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined, no-any-return]  # torch's stubs lack it
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self, **_options: object) -> str:
        return f"OnDevice({self.inner})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class PretendedDevice(TorchDispatchMode):
    """Lets tensors be made on the device, and counts how often the host would wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        """What the host waited for, one after the other."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = computed(func, args, kwargs)
        if _waits(str(func), args, kwargs, found):
            self.waits.append(str(func))
        return found


def _waits(name: str, args: Any, kwargs: dict[str, Any], found: object) -> bool:
    """Whether the host would wait for the device, or for a copy to it from memory that is not pinned."""
    there = [isinstance(x, OnDevice) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    if name == "aten._to_copy.default":
        crosses = isinstance(found, OnDevice) != there[0]
        return crosses and not (_is_pinned(args[0]) and kwargs.get("non_blocking"))
    if name == "aten.copy_.default":
        return there[0] != there[1]
    if name.startswith(("aten.index.", "aten.index_put")):
        return any(there) and any(x.dtype == torch.bool for x in tree_leaves(args[1]) if isinstance(x, Tensor))
    return any(there) and name in READS


def _is_pinned(tensor: Tensor) -> bool:
    return getattr(tensor, "in_pinned_memory", False)


def _pinned(self: Tensor) -> Tensor:
    found = self.clone()
    found.in_pinned_memory = True  # type: ignore[attr-defined]
    return found


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What ``func`` gives, on the device where its tensors are there or it is told to make some there.

    Raises:
        RuntimeError: Tensors lie in two places, and neither is a single number on the host.
    """
    name, wanted = str(func), kwargs.get("device")
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    ours = [x for x in tensors if isinstance(x, OnDevice)]
    moves = name in ("aten._to_copy.default", "aten.copy_.default")
    strays = [x for x in tensors if not isinstance(x, OnDevice) and x.dim()]
    if ours and strays and not moves:
        shapes = [tuple(x.shape) for x in strays]
        raise RuntimeError(f"{name}: wanted all tensors on one device, got {shapes} on the host beside {DEVICE}")
    if name == "aten._fused_sdp_choice.default" and ours:
        return MATH
    inner_args, inner_kwargs = tree_map(_inner, (args, kwargs))
    found = func(*inner_args, **inner_kwargs)
    there = torch.device(wanted).type == "cuda" if wanted is not None else bool(ours)
    if name == "aten.copy_.default":
        there = isinstance(args[0], OnDevice)
    outer = {id(x.inner): x for x in ours}

    def shown(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if there:
            return outer[id(x)] if id(x) in outer else OnDevice(x)
        return x.clone() if id(x) in outer else x

    return tree_map(shown, found)


def _inner(x: Any) -> Any:
    if isinstance(x, torch.device):
        return torch.device("cpu")
    return x.inner if isinstance(x, OnDevice) else x


class Event:
    """A point in time on the device, which is always done."""

    def __init__(self, **_options: object) -> None:
        self.time = 0.0

    def record(self, *_given: object) -> None:
        """Now."""
        self.time = perf_counter()

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds."""
        return 1e3 * (end.time - self.time)


def install() -> None:
    """Let ``torch.cuda`` of this process speak of the device; for good."""
    answers: dict[str, Any] = {
        "is_available": True,
        "is_bf16_supported": True,
        "get_device_name": "a pretended device",
        "mem_get_info": (1 << 36, 1 << 36),
        "memory_allocated": 0,
        "max_memory_allocated": 0,
    }
    for name in ("_lazy_init", "synchronize", "empty_cache", "reset_peak_memory_stats", "manual_seed_all"):
        answers[name] = None
    for name, answer in answers.items():
        setattr(torch.cuda, name, _always(answer))
    torch.cuda.Event = Event  # type: ignore[misc, assignment]
    torch.cuda.get_rng_state = lambda device="cuda": torch.get_rng_state()
    torch.cuda.set_rng_state = lambda new_state, device="cuda": torch.set_rng_state(new_state)
    Tensor.pin_memory = _pinned  # type: ignore[assignment, method-assign]
    torch.backends.cudnn.is_acceptable = _always(False)
    torch.cuda.amp.common.amp_definitely_not_available = _always(False)
    torch.optim.Optimizer._accelerator_graph_capture_health_check = _always(None)  # type: ignore[attr-defined]
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) makes it here, and then moves it
    torch.__future__.set_swap_module_params_on_conversion(True)


def _always(answer: object) -> Any:
    return lambda *_args, **_options: answer

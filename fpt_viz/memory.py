"""How much memory a gradient step needs, found out by taking two small ones, and how much there is."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
from dataclasses import dataclass, replace
from functools import partial
import logging
from pathlib import Path
from typing import Any
import weakref

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fpt_viz.config import TrainConfig
from fpt_viz.errors import ConfigError
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.prepacked import bytes_to_pack
from fpt_viz.tasks import Task
from fpt_viz.training_pass import TrainingPass, is_watched, n_parts_of, rows_to_pack_for

logger = logging.getLogger(__name__)

N_TRIED = (1, 3)
"""Examples in the two steps from which the need of any batch is told."""
CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
"""Of either version: a container's limit, what it uses, and how much of that is a cache of files that it can drop."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a gradient step holds, in bytes."""

    fixed_bytes: int
    """Whatever the batch: weights, copies of frozen ones in low precision, gradients and Adam's moments."""
    bytes_per_example: int
    """Of tensors that are alive at once at the peak, for each example computed at a time."""

    def of(self, n_examples: int) -> int:
        """The bytes of a step that computes ``n_examples`` at a time."""
        return self.fixed_bytes + self.bytes_per_example * n_examples

    def largest_batch(self, size_bytes: int) -> int:
        """The most examples at a time that ``size_bytes`` hold; 0 where not even one fits."""
        return max(0, (size_bytes - self.fixed_bytes) // max(1, self.bytes_per_example))


def estimate(model: FrozenPretrainedTransformer, config: TrainConfig, task: Task | None = None) -> Estimate:
    """The memory of one gradient step of ``model``, by two forward and backward passes of 1 and 3 examples.

    Tensors alone are counted, and every example as long as the task's longest; what the allocator and the matrix
    products' own buffers hold comes on top. Weights that are packed to save time are left out: they are where there is
    room for them (:func:`has_room_to_pack`). Weights, random state and mode of the model are as before.

    Args:
        model: On the device where it is to train, at the dropout with which it is to train.
        config: For precision and checkpointing; compiled blocks are counted as if they were not.
        task: What is trained on; None for the model's own.
    """
    passes = TrainingPass(model, replace(config, compile=False), may_pack=False)
    device = model.output.weight.device
    batch = (task or model.task).distinct(max(N_TRIED), "train")  # as wide as the longest of all
    modes = {module: module.training for module in model.modules()}

    def step(n_examples: int) -> None:
        part = batch[:n_examples]
        with passes.of(part) as logits_of:
            loss = logits_of().square().mean()  # any will do: the task's own holds little but its logits
            torch.autograd.grad(loss, list(model.trained_tensors().values()), allow_unused=True)

    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
            few, many = (_peak(device, partial(step, n)) for n in N_TRIED)
    finally:
        for module, mode in modes.items():
            module.training = mode
        model.backbone.checkpoint_blocks(on=False)
    per_example = max(0, (many - few) // (N_TRIED[1] - N_TRIED[0]))
    moments = 2 * sum(tensor.numel() * tensor.element_size() for tensor in model.trained_tensors().values())
    at_rest = max(0, few - per_example * N_TRIED[0])  # gradients, which the two steps made as well
    return Estimate(
        fixed_bytes=_weights_bytes(model) + passes.size_bytes + moments + at_rest, bytes_per_example=per_example
    )


def _weights_bytes(model: FrozenPretrainedTransformer) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))


def available_bytes(device: torch.device) -> int:
    """What is free on ``device``; in a container with a limit, of that limit."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    for limit_file, used_file, stat_file, cache in CGROUP_FILES:
        with contextlib.suppress(OSError, ValueError, KeyError):  # no such file, or "max" where there is no limit
            limit, used = (int((CGROUP / name).read_text()) for name in (limit_file, used_file))
            counted = dict(line.split() for line in (CGROUP / stat_file).read_text().splitlines())
            free = min(free, limit - used + int(counted[cache]))
    return free


def check_fits(model: FrozenPretrainedTransformer, config: TrainConfig) -> None:
    """Stop a training that cannot fit before it begins.

    Raises:
        ConfigError: With the estimate, what is free, and the largest batch that fits.
    """
    device = model.output.weight.device
    needed, free = estimate(model, config), available_bytes(device)
    held = _weights_bytes(model)  # in memory already, and no longer free
    at_once = -(-config.batch_size // n_parts_of(model, config))
    if needed.of(at_once) - held <= free:
        return
    fits = needed.largest_batch(free + held)
    cures = "train.checkpoint_blocks=true needs much less for each" if not config.checkpoint_blocks else ""
    if fits:
        n_parts = -(-config.batch_size // fits)
        n_at_once = -(-config.batch_size // n_parts)
        cures = f"set train.n_parts={n_parts}, which computes {n_at_once} at a time" + (
            f", or {cures}" if cures else ""
        )
    raise ConfigError(
        f"a step of {at_once} examples at a time needs about {_gib(needed.of(at_once))}, and {_gib(free)} is free on "
        f"{device}; at most {fits} fit: {cures or 'choose a smaller backbone or shorter inputs'}"
    )


def has_room_to_pack(model: FrozenPretrainedTransformer, config: TrainConfig, task: Task | None = None) -> bool:
    """Whether frozen weights can be packed (:mod:`fpt_viz.prepacked`) and a step still fits; if not, the log says so.

    Two small steps are taken to find out, so not where somebody would see them: nothing is packed there.

    Args:
        model: On the device where it is to train, at the dropout with which it is to train.
        config: Of the training.
        task: What is trained on; None for the model's own.
    """
    packed = 0 if is_watched(model) else bytes_to_pack(model.backbone, rows_to_pack_for(model, config, task))
    if not packed:
        return False
    free, at_once = available_bytes(model.output.weight.device), config.batch_size // n_parts_of(model, config, task)
    needed = estimate(model, config, task).of(at_once) - _weights_bytes(model) + packed
    if needed > free:
        logger.warning(
            "frozen weights are not packed, and steps take up to a tenth longer: %s would be needed, and %s is free",
            _gib(needed),
            _gib(free),
        )
    return needed <= free


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"


def _peak(device: torch.device, call: Callable[[], object]) -> int:
    if device.type != "cuda":
        return peak_bytes(call)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device) - before)


class _Live(TorchDispatchMode):
    """Counts the storages that are made within the block and still held."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
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
        if tensor.layout is not torch.strided:
            return  # weights packed for the processor, which no step makes, tell no storage
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
    return int(live.peak)

"""Which part of a training step or of a capture runs now: told by the calls of the model's modules and of the loop.

The loop itself is the package's own, untouched. It is watched from outside, by standing in for ``nn.Module.__call__``
and for the calls that draw a batch, go back and update: training leaves out what nobody looks at, and a hook would be a
look. A module counts to the group that most of its parameters belong to, and the innermost that runs is what counts, so
parts exclude each other and add up to the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
import contextlib
from fnmatch import fnmatchcase
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from benchmarks._machine import Clock
import fpt_viz as fpt

REST = "loop and rest"
"""Residual sums, the loss and its checks, clipping, metrics, and the loop's own Python."""
PARTS = ("data", "embedding", "attention", "MLP", "norms", "output", "backward", "optimizer", REST)
OF_GROUP = {
    "input": "embedding",
    "token": "embedding",
    "position": "embedding",
    "new_position": "embedding",
    "attention": "attention",
    "feed_forward": "MLP",
    "recurrent": "recurrent",
    "layer_norm": "norms",
    "output": "output",
}


class Parts:
    """Knows, within :meth:`watching`, which part runs, and tells whoever listens whenever that changes."""

    def __init__(self, listen: Callable[[str], object] = lambda _part: None) -> None:
        self.stack = [REST]
        self.listen = listen

    @property
    def now(self) -> str:
        """The part that runs."""
        return self.stack[-1]

    def enter(self, part: str) -> None:
        """``part`` begins, inside the one that runs."""
        self.listen(self.now)
        self.stack.append(part)

    def leave(self) -> None:
        """It ends."""
        self.listen(self.now)
        self.stack.pop()

    @contextlib.contextmanager
    def watching(self, model: fpt.FrozenPretrainedTransformer) -> Iterator[None]:
        """Within the block, follow ``model``, its task's sampling, the backward pass and every optimizer."""
        with contextlib.ExitStack() as undo:
            undo.enter_context(mock.patch.object(nn.Module, "__call__", self._of_modules(parts_of(model))))
            undo.callback(register_optimizer_step_pre_hook(lambda *_: self.enter("optimizer")).remove)
            undo.callback(register_optimizer_step_post_hook(lambda *_: self.leave()).remove)
            task = type(model.task)
            for owner, name, part in ((task, "sample", "data"), (torch.autograd, "backward", "backward")):
                undo.enter_context(mock.patch.object(owner, name, self._within(getattr(owner, name), part)))
            yield

    def _of_modules(self, parts: dict[nn.Module, str]) -> Callable[..., Any]:
        plain = nn.Module.__call__

        def called(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            part = parts.get(module)
            if part is None:
                return plain(module, *args, **kwargs)
            self.enter(part)
            try:
                return plain(module, *args, **kwargs)
            finally:
                self.leave()

        return called

    def _within(self, call: Callable[..., Any], part: str) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            self.enter(part)
            try:
                return call(*args, **kwargs)
            finally:
                self.leave()

        return called


def parts_of(model: fpt.FrozenPretrainedTransformer) -> dict[nn.Module, str]:
    """The part of each module that is one: blocks and whatever holds them are none."""
    groups = model.parameter_groups()
    sizes: dict[str, Counter[str]] = {}
    for name, parameter in model.named_parameters():
        group = next(group for glob, group in groups.items() if fnmatchcase(name, glob))
        pieces = name.split(".")[:-1]
        for depth in range(1, len(pieces) + 1):
            sizes.setdefault(".".join(pieces[:depth]), Counter())[OF_GROUP.get(group, group)] += parameter.numel()
    blocks = set(model.backbone.blocks)
    held = {
        name
        for name, module in model.named_modules()
        if module in blocks or any(inner in blocks for inner in module.modules())
    }
    return {
        module: sizes[name].most_common(1)[0][0]
        for name, module in model.named_modules()
        if name in sizes and name not in held
    }


def seconds_by_part(model: fpt.FrozenPretrainedTransformer, step: Callable[[], object]) -> dict[str, float]:
    """Seconds of one ``step`` in each part, on the device's clock."""
    clock = Clock()
    marks: list[tuple[str, Any]] = []
    parts = Parts(lambda part: marks.append((part, clock.mark())))
    with parts.watching(model):
        clock.wait()
        start = clock.mark()
        step()
        marks.append((REST, clock.mark()))
        clock.wait()
    found: Counter[str] = Counter()
    for part, mark in marks:
        found[part] += clock.seconds(start, mark)  # type: ignore[assignment]
        start = mark
    return dict(found)

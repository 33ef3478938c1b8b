"""The tasks of the paper's tables at each scale: options, batch, step caps, and what the paper trained them with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from fpt_viz.config import TaskConfig, TrainConfig
from fpt_viz.experiments.base import Scale

TASKS = ("bit_memory", "bit_xor", "listops", "mnist", "cifar10", "cifar10_lra", "remote_homology")
"""The columns of the paper's tables, in its order."""

IMAGES = ("mnist", "cifar10", "cifar10_lra")
"""Those of them that smaller images stand for."""
LAPTOP_TASKS = ("bit_memory", "bit_xor", "digits", "fashion_mnist")
"""Of a table about all tasks; ListOps is in those that are about it."""
FEW_TASKS = ("bit_xor", "digits")
"""Of a table with many rows."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A task at a scale, and how any system is trained on it."""

    task: TaskConfig
    train: TrainConfig
    stands_for: str = ""
    """The paper's task that it is shown beside; empty where it is that task or none."""
    of: str = ""
    """The size of the paper's task, where ours is another one."""
    threshold: float | None = None
    """Validation accuracy that counts as learned where it is not every target."""

    def capped(self, n_steps: int) -> Setting:
        """The same with at most ``n_steps`` gradient steps."""
        return replace(self, train=replace(self.train, n_steps=min(n_steps, self.train.n_steps)))


@dataclass(frozen=True, kw_only=True)
class _Row:
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any]
    stands_for: str = ""
    of: str = ""
    threshold: float | None = None


BITS, TOKENS = {"bit_xor": "5 bits", "bit_memory": "1,000 bits"}, "512 tokens"
"""Sizes of the paper's tasks, told where ours are smaller."""
_TINY = {"n_steps": 4, "batch_size": 8, "validate_every": 2, "n_validation": 16, "checkpoint_every": 2}
_SMOKE = {
    "bit_xor": _Row(name="bit_xor", options={"n_bits": 2}, of=BITS["bit_xor"], train=_TINY, threshold=0.5),
    "bit_memory": _Row(
        name="bit_memory",
        options={"n_strings": 2, "n_bits": 8, "patch_size": 4},
        of=BITS["bit_memory"],
        train=_TINY,
        threshold=0.5,
    ),
    "listops": _Row(name="listops", options={"max_tokens": 16, "max_depth": 2}, of=TOKENS, train=_TINY, threshold=0.1),
    "digits": _Row(name="digits", options={"patch_size": 4}, train=_TINY, threshold=0.1, stands_for="mnist"),
}
_LAPTOP = {
    "bit_xor": _Row(
        name="bit_xor",
        train={"n_steps": 600, "batch_size": 64, "validate_every": 10, "n_validation": 256, "stop_when_solved": True},
    ),
    "bit_memory": _Row(
        name="bit_memory",
        options={"n_bits": 250},
        of=BITS["bit_memory"],
        train={"n_steps": 1000, "batch_size": 16, "validate_every": 25, "n_validation": 128, "stop_when_solved": True},
        threshold=0.99,
    ),
    "listops": _Row(
        name="listops",
        options={"max_tokens": 32},
        of=TOKENS,
        train={"n_steps": 600, "batch_size": 32, "validate_every": 50, "n_validation": 256},
        threshold=0.5,
    ),
    "digits": _Row(
        name="digits",
        train={"n_steps": 400, "batch_size": 32, "validate_every": 25, "n_validation": 250},
        stands_for="mnist",
        threshold=0.9,
    ),
    "fashion_mnist": _Row(
        name="fashion_mnist",
        train={"n_steps": 400, "batch_size": 16, "validate_every": 50, "n_validation": 256},
        stands_for="mnist",
        threshold=0.75,
    ),
}
# Step caps of the paper scale: the larger of the two counts that its table 6 gives for a task (S1).
_PAPER = {
    "bit_memory": _Row(name="bit_memory", train={"n_steps": 40_000, "batch_size": 16}, threshold=0.99),
    "bit_xor": _Row(name="bit_xor", train={"n_steps": 20_000, "batch_size": 16}),
    "listops": _Row(
        name="listops",
        options={"max_tokens": 512, "data": "lra", "paper_compatible": True},
        train={"n_steps": 6_000, "batch_size": 16},
        threshold=0.3,
    ),
    "mnist": _Row(name="mnist", train={"n_steps": 20_000, "batch_size": 16}, threshold=0.9),
    "cifar10": _Row(name="cifar10", train={"n_steps": 400_000, "batch_size": 16}, threshold=0.6),
    "cifar10_lra": _Row(
        name="cifar10",
        options={"gray": True, "patch_size": 1},
        train={"n_steps": 600_000, "batch_size": 4},
        threshold=0.35,
    ),
    "remote_homology": _Row(
        name="remote_homology", train={"n_steps": 100_000, "batch_size": 4, "learning_rate": 1e-4}, threshold=0.08
    ),
}
_ROWS: dict[Scale, dict[str, _Row]] = {"smoke": _SMOKE, "laptop": _LAPTOP, "paper": _PAPER}


def tasks_at(
    scale: Scale, *, of: tuple[str, ...] | None = None, on_laptop: tuple[str, ...] = LAPTOP_TASKS
) -> dict[str, Setting]:
    """The tasks that there are at ``scale``, by name.

    Args:
        scale: Smoke and laptop take digits (and Fashion-MNIST) where the paper takes larger images.
        of: Keep those that are, or stand for, one of these tasks of the paper; None keeps all.
        on_laptop: Of all, those that a laptop runs.
    """
    found = {}
    for name, row in _ROWS[scale].items():
        stands_for = row.stands_for
        if of is None and scale == "laptop" and name not in on_laptop:
            continue
        if of is not None and stands_for in IMAGES:
            stands_for = next((task for task in of if task in IMAGES), "")
        if of is None or name in of or stands_for:
            found[name] = replace(_setting(row, scale), stands_for=stands_for)
    return found


def _setting(row: _Row, scale: Scale) -> Setting:
    train = dict(row.train)
    if scale == "paper":
        every = max(50, train["n_steps"] // 200)
        train |= {"validate_every": every, "checkpoint_every": every, "n_validation": 1024}
    elif scale == "laptop":
        train |= {"checkpoint_every": 50}
    return Setting(
        task=TaskConfig(name=row.name, options=dict(row.options)),
        train=TrainConfig(**train),
        stands_for=row.stands_for,
        of=row.of,
        threshold=row.threshold,
    )

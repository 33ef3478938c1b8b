"""What a task is: inputs and targets to draw, a loss, and what is known of its tokens without any model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
import sys
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from jaxtyping import Bool, Float, Int, Shaped
import torch
from torch import Tensor
from torch.nn import functional

from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.records.geometry import Geometry
from fpt_viz.tasks._corruptions import others

RESAMPLE = "resample"
"""The corruption that every task has."""


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """``tensor`` on ``device``; the host does not wait until it has arrived on a GPU, where what comes later does.

    By way of a copy in pinned memory, which torch keeps until it was read.
    """
    if torch.device(device).type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples of a task, on one device."""

    inputs: Shaped[Tensor, "batch seq *values"]
    """Float ``[batch seq values]`` for a linear input layer, or integer symbols ``[batch seq]`` for an embedding."""
    targets: Int[Tensor, " batch *target"]
    """The class of each target."""
    mask: Bool[Tensor, "batch seq"] | None = None
    """True on real tokens, which come first; None where there is no padding."""

    def to(self, device: torch.device | str) -> Batch:
        """The same examples on ``device``."""
        mask = None if self.mask is None else self.mask.to(device)
        return Batch(self.inputs.to(device), self.targets.to(device), mask)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: slice | Tensor) -> Batch:
        """The examples in a slice, or at the indices (or True entries) of a tensor, as a batch."""
        return Batch(self.inputs[index], self.targets[index], None if self.mask is None else self.mask[index])

    def trimmed(self) -> Batch:
        """The same examples without the columns that are padding in every one of them.

        What a model says of them stays the same, and costs less. On a GPU this waits for the mask: trim before
        :meth:`to`.
        """
        if self.mask is None or not len(self):
            return self
        n_columns = int(self.mask.sum(1).max())  # real tokens come first
        return Batch(self.inputs[:, :n_columns], self.targets, self.mask[:, :n_columns])


@dataclass(frozen=True, eq=False)
class Corrupted:
    """A batch whose inputs were changed, and where."""

    batch: Batch
    """As many examples of the same shape and mask; the targets are right for the changed inputs."""
    changed: Bool[Tensor, "batch seq"]
    """True on tokens that hold something else than before; nowhere in an example that could not be changed."""


@dataclass(frozen=True)
class Task(ABC):
    """A task; a subclass is a frozen dataclass whose fields are the options of the task.

    Examples are made on the CPU, so that they are the same on every machine; :meth:`Batch.to` moves them.
    """

    placed_corruptions: ClassVar[tuple[str, ...]] = ()
    """Those of :attr:`corruptions` that can be told a position."""

    def __post_init__(self) -> None:
        """Check the type of every option; a subclass checks the ranges of its own after calling this."""
        self.checked(self.options())

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """``options`` with whole numbers as floats where a float is wanted; an error names one of another type."""
        hints = get_type_hints(cls)
        return {key: _checked(f"{key} of {_name_of(cls)}", value, hints[key]) for key, value in options.items()}

    @property
    def name(self) -> str:
        """The name that ``load_task`` takes: that of the task's file, or its path where it is a user's own."""
        return _name_of(type(self))

    def options(self) -> dict[str, Any]:
        """The options as plain data: ``load_task(task.name, **task.options())`` equals the task."""
        return asdict(self)

    @property
    @abstractmethod
    def n_tokens(self) -> int:
        """Tokens in the longest sequence."""

    @property
    @abstractmethod
    def n_values(self) -> int | None:
        """Values a token, for a linear input layer; None where tokens are symbols."""

    @property
    def n_symbols(self) -> int | None:
        """Size of the vocabulary, for an embedding; None where tokens are values."""
        return None

    @property
    @abstractmethod
    def n_readout(self) -> int:
        """The output layer reads this many tokens, the last real ones."""

    @property
    @abstractmethod
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one read-out token's logits; the last axis is the classes."""

    @property
    def n_classes(self) -> int:
        """Classes of one target."""
        return self.output_shape[-1]

    @property
    def chance(self) -> float:
        """Accuracy of guessing, 0 to 1."""
        return 1 / self.n_classes

    @property
    def trivial(self) -> dict[str, float]:
        """Accuracy of solvers that route nothing between tokens by content, by their names."""
        return {}

    @property
    def note(self) -> str:
        """What a reader of any result must know of the task, such as that its input is cut; empty for most."""
        return ""

    @abstractmethod
    def sample(self, batch_size: int, rng: torch.Generator, split: str = "train") -> Batch:
        """Random examples of a split, with replacement.

        Args:
            batch_size: Number of examples.
            rng: A generator on the CPU; its state decides the examples, on every machine alike.
            split: ``"train"``, ``"validation"`` or ``"test"``; no input is in two of them.
        """

    @abstractmethod
    def distinct(self, n_examples: int, split: str, seed: int = 0) -> Batch:
        """Distinct examples of a split: the first ``n_examples`` of an order that is drawn from ``seed``.

        Where the split holds fewer, all of it once.
        """

    @abstractmethod
    def n_examples(self, split: str) -> int | None:
        """Distinct examples in a split; None where there are more than anyone asks for."""

    @abstractmethod
    def labels(self, inputs: Shaped[Tensor, " seq *values"]) -> list[str]:
        """One string a token of one example: its name and what it holds."""

    @abstractmethod
    def token_names(self) -> tuple[str, ...]:
        """One name a token, of its place only, such as ``"a0"``."""

    @abstractmethod
    def geometry(self) -> Geometry:
        """Where each token lies: in which string at which position, or in which box of the image."""

    def needs(self, inputs: Shaped[Tensor, "batch seq *values"]) -> Bool[Tensor, "batch query key"] | None:
        """True where the query token needs the key token to give its answer; None where no such truth is known.

        A row without needs belongs to a token that is not scored.
        """
        return None

    @property
    def bit_values(self) -> tuple[float, ...] | None:
        """What stands for a bit 0 and for a bit 1 where a token's values are bits, then for a masked one, if any are.

        None where tokens hold no bits.
        """
        return None

    def answer(self, inputs: Shaped[Tensor, "batch seq *values"]) -> Int[Tensor, " batch *target"] | None:
        """The targets that ``inputs``, such as edited ones, decide by themselves; -1 where they decide none.

        None where the task knows no rule: the right class of an image is that of its data set.
        """
        return None

    @property
    def corruptions(self) -> dict[str, str]:
        """The ways to corrupt an input, for patching: name -> what changes. The first is the usual one."""
        return {RESAMPLE: "each example becomes another one of the batch, as long, with another answer"}

    def corrupted(self, batch: Batch, how: str, rng: torch.Generator, *, position: int | None = None) -> Corrupted:
        """``batch`` with each input changed in one of the ways of :attr:`corruptions`, paired by example.

        A changed input may lie in another split. An example in which nothing of the kind can be changed stays.

        Args:
            batch: At least one example of this task.
            how: A name in :attr:`corruptions`.
            rng: A generator on the CPU; its state alone decides what is changed.
            position: Change only tokens at this position of their string (as in :meth:`geometry`; of an image, this
                patch). None draws the place for each example.

        Raises:
            UnknownNameError: No such corruption.
            ConfigError: The batch is empty, there is no such position, or the corruption takes none.
        """
        if how not in self.corruptions:
            raise UnknownNameError(f"corruption of {self.name}", how, self.corruptions)
        if not len(batch):
            raise ConfigError(f"an empty batch of {self.name} cannot be corrupted: give at least 1 example")
        before = batch.to("cpu")
        at = None if position is None else self._tokens_at(position, how)[: before.inputs.shape[1]]
        after = self._corrupt(before, how, rng, at)
        changed = (after.inputs != before.inputs).reshape(*before.inputs.shape[:2], -1).any(-1)
        return Corrupted(after.to(batch.inputs.device), changed.to(batch.inputs.device))

    def _corrupt(self, batch: Batch, how: str, rng: torch.Generator, at: Bool[Tensor, " seq"] | None) -> Batch:
        """See :meth:`corrupted`; ``at`` marks the tokens that may change, None for any. On the CPU."""
        index = others(batch.targets, batch.mask, rng)
        return Batch(batch.inputs[index], batch.targets[index], batch.mask)

    def _tokens_at(self, position: int, how: str) -> Bool[Tensor, " seq"]:
        """True on the tokens at ``position`` of their string, or on that patch."""
        if how not in self.placed_corruptions:
            raise ConfigError(f"{how} of {self.name} changes tokens all over the input: leave out the position")
        places = torch.tensor(self.geometry().position or range(self.n_tokens))
        if not 0 <= position <= int(places.max()):
            raise ConfigError(f"no position {position} in {self.name}: they are 0 to {int(places.max())}")
        return places == position

    def loss(
        self, logits: Float[Tensor, "batch *readout classes"], targets: Int[Tensor, " batch *target"]
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy over all targets, in nats; log(n_classes) for a model that knows nothing.

        Args:
            logits: ``[batch readout *output_shape]``.
            targets: The class of each target, in the same order.
        """
        self._check_logits(logits, targets)
        return functional.cross_entropy(logits.flatten(0, -2), targets.flatten())

    def correct(
        self, logits: Float[Tensor, "batch *readout classes"], targets: Int[Tensor, " batch *target"]
    ) -> Bool[Tensor, " batch *target"]:
        """Whether the class with the highest logit is the target's; accuracy is the mean of this."""
        self._check_logits(logits, targets)
        return logits.argmax(-1).view_as(targets) == targets

    def logit_difference(
        self, logits: Float[Tensor, "batch *readout classes"], targets: Int[Tensor, " batch *target"]
    ) -> Float[Tensor, " batch *target"]:
        """The correct class's logit minus the best other one's; above 0 exactly where the answer is right."""
        self._check_logits(logits, targets)
        wanted = targets.reshape(*logits.shape[:-1], 1)
        others = logits.scatter(-1, wanted, -torch.inf)
        return (logits.gather(-1, wanted).squeeze(-1) - others.amax(-1)).view_as(targets)

    def _check_logits(self, logits: Tensor, targets: Tensor) -> None:
        expected = (len(targets), self.n_readout, *self.output_shape)
        if tuple(logits.shape) != expected:
            raise ConfigError(f"{self.name} wants logits of shape {expected}, got {tuple(logits.shape)}")

    def _check_minimum(self, **minimum: int) -> None:
        """Raise for an option below its minimum."""
        for option, low in minimum.items():
            if getattr(self, option) < low:
                raise ConfigError(f"{option} of {self.name} must be at least {low}, got {getattr(self, option)}")


def _name_of(task: type[Task]) -> str:
    """See :attr:`Task.name`."""
    if task.__module__.startswith("fpt_viz.tasks."):
        return task.__module__.rpartition(".")[2]
    return getattr(sys.modules.get(task.__module__), "__file__", None) or task.__name__


def _checked(what: str, value: Any, hint: Any) -> Any:
    """``value`` as the plain type or literal that ``hint`` says; an error where it is none. Other hints are trusted."""
    if get_origin(hint) is Literal:
        if not any(value == literal and type(value) is type(literal) for literal in get_args(hint)):
            raise ConfigError(f"{what} must be one of {', '.join(map(repr, get_args(hint)))}, got {value!r}")
        return value
    if hint is float and type(value) is int:
        return float(value)
    if hint in (int, float, str, bool) and type(value) is not hint:
        raise ConfigError(f"{what} must be of type {hint.__name__}, got {value!r} of type {type(value).__name__}")
    return value

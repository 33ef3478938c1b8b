"""Bit XOR behind a null token, which holds nothing and gives a head a place to rest on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float
import torch
from torch import Tensor
from torch.nn import functional

from fpt_viz.records.geometry import Geometry
from fpt_viz.tasks.base import Batch, Task
from fpt_viz.tasks.bit_xor import BitXor

__all__ = ["NullXor"]


@dataclass(frozen=True)
class NullXor(Task):
    """A token of value 0, then two strings of bits as -1 and +1: the exclusive or of the two is asked for.

    All else is as in the task ``bit_xor``.
    """

    placed_corruptions: ClassVar = BitXor.placed_corruptions

    n_bits: int = 4
    """Bits in each of the two strings."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_minimum(n_bits=1)

    @property
    def n_tokens(self) -> int:
        """The null token and all bits."""
        return 1 + self._xor.n_tokens

    @property
    def n_values(self) -> int:
        """One bit a token."""
        return 1

    @property
    def n_readout(self) -> int:
        """The tokens of the last string."""
        return self.n_bits

    @property
    def output_shape(self) -> tuple[int, ...]:
        """One bit a read-out token."""
        return (2,)

    def sample(self, batch_size: int, rng: torch.Generator, split: str = "train") -> Batch:
        """Random inputs of a split; see :meth:`Task.sample`."""
        return _behind_null(self._xor.sample(batch_size, rng, split))

    def distinct(self, n_examples: int, split: str, seed: int = 0) -> Batch:
        """Distinct inputs of a split; see :meth:`Task.distinct`."""
        return _behind_null(self._xor.distinct(n_examples, split, seed))

    def n_examples(self, split: str) -> int | None:
        """Distinct inputs in a split."""
        return self._xor.n_examples(split)

    def labels(self, inputs: Float[Tensor, "seq 1"]) -> list[str]:
        """``"null"``, then one string a bit: ``"a0=1"``."""
        return ["null", *self._xor.labels(inputs[1:])]

    def token_names(self) -> tuple[str, ...]:
        """``"null"``, then ``"a0"`` for bit 0 of string a."""
        return ("null", *self._xor.token_names())

    def geometry(self) -> Geometry:
        """The null token as a string of its own, then the two strings."""
        bits = self._xor.geometry()
        return Geometry(
            groups=("null", *bits.groups),
            group=(0, *(group + 1 for group in bits.group)),
            position=(0, *bits.position),
        )

    def needs(self, inputs: Float[Tensor, "batch seq 1"]) -> Bool[Tensor, "batch query key"]:
        """Read-out token i needs bit i of the other string; nothing needs the null token."""
        return functional.pad(self._xor.needs(inputs[:, 1:]), (1, 0, 1, 0))

    @property
    def corruptions(self) -> dict[str, str]:
        """Those of ``bit_xor``; the null token stays."""
        return self._xor.corruptions

    def _corrupt(self, batch: Batch, how: str, rng: torch.Generator, at: Bool[Tensor, " seq"] | None) -> Batch:
        bits = Batch(batch.inputs[:, 1:], batch.targets)
        return _behind_null(self._xor._corrupt(bits, how, rng, None if at is None else at[1:]))

    @property
    def _xor(self) -> BitXor:
        return BitXor(n_bits=self.n_bits, encoding="signs")


def _behind_null(batch: Batch) -> Batch:
    return Batch(functional.pad(batch.inputs, (0, 0, 1, 0)), batch.targets)

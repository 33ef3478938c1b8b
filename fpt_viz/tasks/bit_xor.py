"""Bit XOR (Lu et al., 2021): strings of bits are shown, their exclusive or is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase
from typing import ClassVar, Literal

from jaxtyping import Bool, Float, Int
import torch
from torch import Tensor

from fpt_viz.errors import ConfigError
from fpt_viz.records.geometry import Geometry
from fpt_viz.tasks._corruptions import some_of
from fpt_viz.tasks._splits import Bits, BitSplits
from fpt_viz.tasks.base import Batch, Task

__all__ = ["BitXor"]


@dataclass(frozen=True)
class BitXor(Task):
    """``n_strings`` strings of ``n_bits`` bits, one bit a token, one string after the other.

    The last string's tokens are read out; token i is asked for the exclusive or of bit i of all strings. Bits are
    independent and fair, so each other string's bit i must reach read-out token i, and nothing else helps.

    Reference:
        Lu et al., 2021, https://arxiv.org/abs/2103.05247, whose authors report strings of up to 256 bits;
        kzl/universal-computation, ``datasets/bit_xor.py``.
    """

    placed_corruptions: ClassVar = ("flip_partner",)

    n_bits: int = 5
    """Bits in a string."""
    n_strings: int = 2
    """2 to 26."""
    encoding: Literal["bits", "signs"] = "bits"
    """Of a bit as the token's one value: 0 and 1, as in the authors' code, or -1 and +1."""
    split_seed: int = 0
    """Of the hash that decides which inputs train, validate and test."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_minimum(n_bits=1, n_strings=2, split_seed=0)
        if self.n_strings > len(ascii_lowercase):
            raise ConfigError(f"n_strings of bit_xor must be at most {len(ascii_lowercase)}, got {self.n_strings}")

    @property
    def n_tokens(self) -> int:
        """All bits of all strings."""
        return self.n_bits * self.n_strings

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
        return self._batch(self._splits.sample(batch_size, rng, split))

    def distinct(self, n_examples: int, split: str, seed: int = 0) -> Batch:
        """Distinct inputs of a split; see :meth:`Task.distinct`."""
        return self._batch(self._splits.distinct(n_examples, torch.Generator().manual_seed(seed), split))

    def n_examples(self, split: str) -> int | None:
        """Distinct inputs in a split: of 5+5 bits, 512 train and 256 each validate and test."""
        return self._splits.size(split)

    def labels(self, inputs: Float[Tensor, "seq 1"]) -> list[str]:
        """One string a token: ``"a0=1"`` where bit 0 of string a is 1."""
        bits = (inputs[:, 0] > 0).tolist()
        return [f"{name}={int(bit)}" for name, bit in zip(self.token_names(), bits, strict=True)]

    def token_names(self) -> tuple[str, ...]:
        """``"a0"`` for bit 0 of string a."""
        return tuple(f"{letter}{i}" for letter in ascii_lowercase[: self.n_strings] for i in range(self.n_bits))

    def geometry(self) -> Geometry:
        """The string of each token, and its position in it."""
        return Geometry(
            groups=tuple(ascii_lowercase[: self.n_strings]),
            group=tuple(i // self.n_bits for i in range(self.n_tokens)),
            position=tuple(i % self.n_bits for i in range(self.n_tokens)),
        )

    def needs(self, inputs: Float[Tensor, "batch seq 1"]) -> Bool[Tensor, "batch query key"]:
        """Read-out token i needs bit i of each other string; the same for every input (one row, expanded)."""
        token = torch.arange(self.n_tokens, device=inputs.device)
        same_bit = token[:, None] % self.n_bits == token % self.n_bits
        is_readout = token >= self.n_tokens - self.n_readout
        return (same_bit & is_readout[:, None] & ~is_readout).expand(len(inputs), -1, -1)

    @property
    def bit_values(self) -> tuple[float, float]:
        """As :attr:`encoding` says; none is masked."""
        return (0.0, 1.0) if self.encoding == "bits" else (-1.0, 1.0)

    def answer(self, inputs: Float[Tensor, "batch seq 1"]) -> Int[Tensor, "batch n_bits"]:
        """The exclusive or of the strings, whatever they are."""
        return (inputs > 0).long().view(-1, self.n_strings, self.n_bits).sum(1) % 2

    @property
    def corruptions(self) -> dict[str, str]:
        """Bits of a string that is not read out are flipped, and so the answers at their positions."""
        return {
            "flip_partner": "one bit of a string that is not read out is flipped",
            "flip_string": "every bit of one string that is not read out is flipped",
            **super().corruptions,
        }

    def _corrupt(self, batch: Batch, how: str, rng: torch.Generator, at: Bool[Tensor, " seq"] | None) -> Batch:
        if how not in ("flip_partner", "flip_string"):
            return super()._corrupt(batch, how, rng, at)
        may_flip = torch.arange(self.n_tokens) < self.n_tokens - self.n_readout
        may_flip = may_flip if at is None else may_flip & at
        flipped = some_of(may_flip.expand(len(batch), -1), 1, rng).view(-1, self.n_strings, self.n_bits)
        if how == "flip_string":
            flipped = flipped.any(-1, keepdim=True).expand_as(flipped)
        turned = 1 - batch.inputs if self.encoding == "bits" else -batch.inputs
        inputs = torch.where(flipped.reshape(len(batch), -1, 1), turned, batch.inputs)
        return Batch(inputs, (batch.targets + flipped.sum(1)) % 2)

    @property
    def _splits(self) -> BitSplits:
        return BitSplits(self.n_tokens, self.split_seed)

    def _batch(self, rows: Bits) -> Batch:
        bits = torch.from_numpy(rows)
        values = bits.float() if self.encoding == "bits" else bits.float() * 2 - 1
        strings = bits.view(-1, self.n_strings, self.n_bits)
        return Batch(inputs=values.unsqueeze(-1), targets=strings.sum(1) % 2)

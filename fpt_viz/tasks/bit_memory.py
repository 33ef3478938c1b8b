"""Bit memory (Lu et al., 2021): which of five strings is this masked one, and what was masked?"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import ClassVar

from jaxtyping import Bool, Float, Int
import torch
from torch import Tensor

from fpt_viz.errors import ConfigError
from fpt_viz.records.geometry import Geometry
from fpt_viz.tasks._corruptions import some_of
from fpt_viz.tasks._splits import Bits, BitSplits
from fpt_viz.tasks.base import Batch, Task

__all__ = ["BitMemory"]

LETTERS = "abcdefghijklmnoprstuvwxyz"
"""Names of the strings; q is the query's."""


@dataclass(frozen=True)
class BitMemory(Task):
    """``n_strings`` strings of bits, then one of them again with bits masked; all of its bits are asked for.

    Bits are -1 and +1, masked ones 0; a token holds ``patch_size`` bits. The query's tokens are read out, each for the
    bits of its own patch. To be right on masked bits, a query token must find the token at its place in the one string
    that agrees with it.

    Examples are split, and told apart by :meth:`distinct`, by their strings alone: the strings of one split, in their
    order, come in no other split, whatever the query.

    Reference:
        Lu et al., 2021, https://arxiv.org/abs/2103.05247: 5 strings of 1,000 bits, 120 tokens of 50;
        kzl/universal-computation, ``datasets/bit_memory.py``.
    """

    placed_corruptions: ClassVar = ("swap_hidden", "flip_hidden")

    n_strings: int = 5
    """2 to 25."""
    n_bits: int = 1000
    """Bits in a string."""
    patch_size: int = 50
    """Bits a token; divides ``n_bits``."""
    mask_rate: float = 0.5
    """Probability that a bit of the query is masked, each bit alone; above 0 and below 1."""
    split_seed: int = 0
    """Of the hash that decides which strings train, validate and test."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_minimum(n_strings=2, n_bits=1, patch_size=1, split_seed=0)
        if self.n_strings > len(LETTERS):
            raise ConfigError(f"n_strings of bit_memory must be at most {len(LETTERS)}, got {self.n_strings}")
        if self.n_bits % self.patch_size:
            raise ConfigError(
                f"patch_size of bit_memory must divide n_bits, got {self.patch_size} for {self.n_bits} bits"
            )
        if not 0 < self.mask_rate < 1:
            raise ConfigError(f"mask_rate of bit_memory must be above 0 and below 1, got {self.mask_rate}")

    @property
    def n_tokens(self) -> int:
        """The tokens of all strings and of the query."""
        return (self.n_strings + 1) * self.n_readout

    @property
    def n_values(self) -> int:
        """The bits of a patch."""
        return self.patch_size

    @property
    def n_readout(self) -> int:
        """The tokens of the query."""
        return self.n_bits // self.patch_size

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Every bit of a read-out token's patch."""
        return (self.patch_size, 2)

    @property
    def trivial(self) -> dict[str, float]:
        """Copying the shown bits, and for masked ones guessing or taking the majority of all strings at that place."""
        shown = 1 - self.mask_rate
        return {
            "copy shown bits": shown + self.mask_rate / 2,
            "copy and majority": shown + self.mask_rate * majority_agreement(self.n_strings),
        }

    def sample(self, batch_size: int, rng: torch.Generator, split: str = "train") -> Batch:
        """Random strings of a split, each with a random query; see :meth:`Task.sample`."""
        return self._batch(self._splits.sample(batch_size, rng, split), rng)

    def distinct(self, n_examples: int, split: str, seed: int = 0) -> Batch:
        """Distinct strings of a split, each once, with a random query; see :meth:`Task.distinct`."""
        strings = self._splits.distinct(n_examples, torch.Generator().manual_seed(seed), split)
        return self._batch(strings, torch.Generator().manual_seed(seed))

    def n_examples(self, split: str) -> int | None:
        """Distinct lists of strings in a split; None beyond 18 bits in all."""
        return self._splits.size(split)

    def labels(self, inputs: Float[Tensor, "seq patch_size"]) -> list[str]:
        """One string a token: ``"a0=27/50"`` where 27 of the 50 bits shown are +1."""
        ones, shown = (inputs > 0).sum(-1).tolist(), (inputs != 0).sum(-1).tolist()
        return [f"{name}={i}/{n}" for name, i, n in zip(self.token_names(), ones, shown, strict=True)]

    def token_names(self) -> tuple[str, ...]:
        """``"a0"`` for patch 0 of string a, ``"q0"`` for that of the query."""
        return tuple(f"{letter}{i}" for letter in self._groups for i in range(self.n_readout))

    def geometry(self) -> Geometry:
        """The string of each token, the query last, and its patch."""
        return Geometry(
            groups=self._groups,
            group=tuple(i // self.n_readout for i in range(self.n_tokens)),
            position=tuple(i % self.n_readout for i in range(self.n_tokens)),
        )

    def needs(self, inputs: Float[Tensor, "batch seq patch_size"]) -> Bool[Tensor, "batch query key"]:
        """Query token p needs token p of each string that agrees with every shown bit of the whole query."""
        strings = inputs.view(-1, self.n_strings + 1, self.n_readout, self.patch_size)
        query = strings[:, -1:]
        agrees = ((strings[:, :-1] == query) | (query == 0)).flatten(2).all(-1)
        needs = inputs.new_zeros((len(inputs), self.n_tokens, self.n_tokens), dtype=torch.bool)
        place = torch.arange(self.n_readout, device=inputs.device)
        for string in range(self.n_strings):
            first_query = self.n_tokens - self.n_readout
            needs[:, first_query + place, string * self.n_readout + place] = agrees[:, string, None]
        return needs

    @property
    def bit_values(self) -> tuple[float, float, float]:
        """-1 and +1, and 0 for a masked bit."""
        return (-1.0, 1.0, 0.0)

    def answer(self, inputs: Float[Tensor, "batch seq patch_size"]) -> Int[Tensor, "batch n_readout patch_size"]:
        """The query's own bits where it shows them; else what every string that may be meant says there.

        A string may be meant unless one of its bits contradicts one that the query shows; a bit that is masked in it
        contradicts none, and says nothing. Where those strings disagree or are silent, nothing is decided.
        """
        strings = inputs.reshape(len(inputs), self.n_strings + 1, self.n_bits)
        memory, query = strings[:, :-1], strings[:, -1]
        meant = ~(memory * query[:, None] < 0).any(-1, keepdim=True)
        says_zero, says_one, silent = (((memory.sign() == bit) & meant).any(1) for bit in (-1, 1, 0))
        decided = (says_zero ^ says_one) & ~silent
        answer = torch.where(decided, says_one.long(), -1)
        return torch.where(query == 0, answer, (query > 0).long()).view(-1, self.n_readout, self.patch_size)

    @property
    def corruptions(self) -> dict[str, str]:
        """Changes of the strings in memory, where only one of them agrees with the query; the query never changes."""
        return {
            "swap_hidden": "the string asked for and another one swap the bits that the query masks: its answer there",
            "flip_hidden": "one bit that the query masks is flipped in the string asked for, and so in the answer",
            "swap_strings": "the string asked for and another one change places; the answer stays",
            **super().corruptions,
        }

    def _corrupt(self, batch: Batch, how: str, rng: torch.Generator, at: Bool[Tensor, " seq"] | None) -> Batch:
        if how not in ("swap_hidden", "flip_hidden", "swap_strings"):
            return super()._corrupt(batch, how, rng, at)
        strings = batch.inputs.reshape(len(batch), self.n_strings + 1, self.n_bits).clone()
        hidden = strings[:, -1] == 0
        agrees = ((strings[:, :-1] == strings[:, -1:]) | hidden[:, None]).all(-1)
        asked, example = agrees.byte().argmax(1), torch.arange(len(batch))
        step = torch.randint(1, self.n_strings, (len(batch),), generator=rng)
        other = (asked + step) % self.n_strings
        changes = hidden if at is None else hidden & at[-self.n_readout :].repeat_interleave(self.patch_size)
        if how == "flip_hidden":
            changes = some_of(changes, 1, rng)
        changes = torch.ones_like(hidden) if how == "swap_strings" else changes
        changes = changes & (agrees.sum(1) == 1)[:, None]
        one, two = strings[example, asked], strings[example, other]
        strings[example, asked] = torch.where(changes, -one if how == "flip_hidden" else two, one)
        if how != "flip_hidden":
            strings[example, other] = torch.where(changes, one, two)
        if how != "swap_strings":
            answer = torch.where(changes, strings[example, asked] > 0, batch.targets.flatten(1) > 0)
            return Batch(strings.view_as(batch.inputs), answer.long().view_as(batch.targets))
        return Batch(strings.view_as(batch.inputs), batch.targets)

    @property
    def _groups(self) -> tuple[str, ...]:
        return (*LETTERS[: self.n_strings], "q")

    @property
    def _splits(self) -> BitSplits:
        return BitSplits(self.n_strings * self.n_bits, self.split_seed)

    def _batch(self, rows: Bits, rng: torch.Generator) -> Batch:
        """The strings in ``rows``, each row with a query: one row of ``rng`` decides which string, and its mask."""
        strings = torch.from_numpy(rows.reshape(-1, self.n_strings, self.n_bits))
        drawn = torch.rand((len(rows), 1 + self.n_bits), generator=rng, dtype=torch.float64)
        asked = strings[torch.arange(len(rows)), (drawn[:, 0] * self.n_strings).long()]
        signs = torch.cat([strings, asked[:, None]], dim=1).float() * 2 - 1
        signs[:, -1] *= drawn[:, 1:] >= self.mask_rate
        return Batch(
            inputs=signs.view(len(rows), self.n_tokens, self.patch_size),
            targets=asked.long().view(len(rows), self.n_readout, self.patch_size),
        )


def majority_agreement(n_strings: int) -> float:
    """Probability that the majority of ``n_strings`` fair bits is the bit of a given one of them; ties are guessed.

    11/16 for five: with k of the other four alike, k + 1 of 5 are.
    """
    others = n_strings - 1
    wins = [1.0 if 2 * (k + 1) > n_strings else 0.5 if 2 * (k + 1) == n_strings else 0.0 for k in range(n_strings)]
    return float(sum(comb(others, k) * win for k, win in enumerate(wins))) / 2.0**others

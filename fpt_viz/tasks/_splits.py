"""How generated examples and data sets are split: by a hash of the input, so that no input is ever in two splits.

The hash is SplitMix64 (Steele, Lea and Flood, 2014) over 64-bit little-endian
words, in integer arithmetic only: the same on every machine, and in no need of a stored list.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
import math
from typing import Any

from jaxtyping import Int, UInt8, UInt64
import numpy as np
from numpy.typing import NDArray
import torch

from fpt_viz.errors import ConfigError, UnknownNameError

SPLITS = ("train", "validation", "test")
GENERATED_SHARES = (0.5, 0.25, 0.25)
"""Of the inputs of a generated task, by split."""
ENUMERATED_BITS = 18
"""Inputs of up to this many bits are listed and split by rank of their hash, which makes the shares exact."""
CHUNK = 1024
"""Candidates drawn at a time for distinct examples; fixed, so that fewer examples are the first of more."""

Bits = NDArray[np.uint8]


def check_wanted(n_examples: int) -> None:
    """Raise where fewer than one example is asked for: a slice would take -1 for all but one."""
    if n_examples < 1:
        raise ConfigError(f"at least 1 example must be asked for, got {n_examples}")


def split_index(split: str) -> int:
    """The place of ``split`` in :data:`SPLITS`; an error names the splits there are."""
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    return SPLITS.index(split)


def mixed(words: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """The output function of SplitMix64 on each word; a permutation of the 64-bit words."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    words = words ^ (words >> np.uint64(31))
    return words


def hashes(rows: UInt8[np.ndarray, "row byte"], seed: int) -> UInt64[np.ndarray, " row"]:
    """A 64-bit hash of each row of bytes.

    The row is padded with zeros to whole words; word i is added to the i-th output of SplitMix64 started at ``seed``
    and mixed; the exclusive or of these is mixed once more.
    """
    n_words = -(-rows.shape[1] // 8)
    padded = np.zeros((len(rows), n_words * 8), dtype=np.uint8)
    padded[:, : rows.shape[1]] = rows
    counter = np.arange(1, n_words + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    words = padded.view("<u8").astype(np.uint64)
    return mixed(np.bitwise_xor.reduce(mixed(words + mixed(counter)), axis=1))


def assigned(hashed: UInt64[np.ndarray, " row"], shares: tuple[float, ...]) -> Int[np.ndarray, " row"]:
    """The index of the split of each hash: the upper half of its bits against the summed ``shares``."""
    bounds = np.round(np.cumsum(shares)[:-1] * 2**32).astype(np.uint64)
    return np.searchsorted(bounds, hashed >> np.uint64(32), side="right")


@dataclass(frozen=True)
class BitSplits:
    """The splits of all strings of ``n_bits`` bits: half of them train, a quarter each validate and test.

    Up to :data:`ENUMERATED_BITS` bits the strings are ordered by their hash and cut at a half and at three quarters.
    Longer ones go by their hash alone, and are drawn by rejection.
    """

    n_bits: int
    seed: int

    def size(self, split: str) -> int | None:
        """Distinct strings in a split; None where they are not listed."""
        index = split_index(split)
        return len(_codes(self.n_bits, self.seed)[index]) if self.n_bits <= ENUMERATED_BITS else None

    def sample(self, n_rows: int, rng: torch.Generator, split: str) -> Bits:
        """Random strings of a split, one a row, with replacement."""
        index = split_index(split)
        if self.n_bits <= ENUMERATED_BITS:
            codes = _codes(self.n_bits, self.seed)[index]
            return _bits_of(codes[torch.randint(len(codes), (n_rows,), generator=rng).numpy()], self.n_bits)
        parts: list[Bits] = [np.empty((0, self.n_bits), np.uint8)]
        missing = n_rows
        while missing > 0:
            n_candidates = math.ceil(1.1 * missing / GENERATED_SHARES[index]) + 16
            parts.append(self._accepted(n_candidates, rng, index)[:missing])
            missing -= len(parts[-1])
        return np.concatenate(parts)

    def distinct(self, n_rows: int, rng: torch.Generator, split: str) -> Bits:
        """Distinct strings of a split, one a row, in random order; all of them where there are fewer than ``n_rows``.

        Raises:
            ConfigError: Fewer than one is asked for, or more than rejection can draw: an eighth of all strings.
        """
        check_wanted(n_rows)
        index = split_index(split)
        if self.n_bits <= ENUMERATED_BITS:
            codes = _codes(self.n_bits, self.seed)[index]
            return _bits_of(codes[torch.randperm(len(codes), generator=rng).numpy()[:n_rows]], self.n_bits)
        if n_rows > 2 ** (self.n_bits - 3):
            raise ConfigError(
                f"{n_rows} distinct inputs of {self.n_bits} bits were asked for in the {split} split; "
                f"at most {2 ** (self.n_bits - 3)} can be drawn"
            )
        seen: dict[bytes, Bits] = {}
        while len(seen) < n_rows:
            for row in self._accepted(CHUNK, rng, index):
                seen.setdefault(row.tobytes(), row)
        rows = list(seen.values())[:n_rows]
        return np.stack(rows) if rows else np.empty((0, self.n_bits), np.uint8)

    def _accepted(self, n_candidates: int, rng: torch.Generator, index: int) -> Bits:
        """Those of ``n_candidates`` random strings that are in the split with that index."""
        n_bytes = -(-self.n_bits // 8)
        drawn = torch.randint(256, (n_candidates, n_bytes), dtype=torch.uint8, generator=rng).numpy()
        drawn[:, -1] &= 0xFF << (8 * n_bytes - self.n_bits) & 0xFF  # the bits after the last are no part of the input
        of_split = assigned(hashes(drawn, self.seed), GENERATED_SHARES) == index
        return np.unpackbits(drawn[of_split], axis=1, count=self.n_bits)


def _bits_of(codes: UInt64[np.ndarray, " row"], n_bits: int) -> Bits:
    """The last ``n_bits`` bits of each code, highest first."""
    shifts = np.arange(n_bits - 1, -1, -1, dtype=np.uint64)
    bits: Bits = ((codes[:, None] >> shifts) & np.uint64(1)).astype(np.uint8)
    return bits


@lru_cache(maxsize=16)
def _codes(n_bits: int, seed: int) -> tuple[NDArray[Any], ...]:
    """The strings of each split as numbers; an error where a split would be empty."""
    codes = np.arange(2**n_bits, dtype=np.uint64)
    if len(codes) < 4:
        raise ConfigError(f"inputs of {n_bits} bits are too few to split in three: 2 bits or more are wanted")
    order = codes[np.argsort(hashes(codes.astype("<u8").view(np.uint8).reshape(-1, 8), seed), kind="stable")]
    return tuple(np.split(order, [len(codes) // 2, len(codes) * 3 // 4]))

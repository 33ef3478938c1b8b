from __future__ import annotations

from hypothesis import given, strategies as st
import numpy as np
import pytest
import torch

from fpt_viz.errors import ConfigError
from fpt_viz.tasks._splits import ENUMERATED_BITS, BitSplits, assigned, hashes, mixed

WORD = 2**64
GOLDEN = 0x9E3779B97F4A7C15


def slow_mix(z: int) -> int:
    """SplitMix64's output function in Python's unbounded integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % WORD
    return z ^ (z >> 31)


def slow_hash(row: bytes, seed: int) -> int:
    total = 0
    for i in range(0, len(row), 8):
        word = int.from_bytes(row[i : i + 8], "little")
        total ^= slow_mix((word + slow_mix((seed + (i // 8 + 1) * GOLDEN) % WORD)) % WORD)
    return slow_mix(total)


def test_mixing_gives_the_published_outputs_of_splitmix64():
    # The first outputs for seed 1234567, in the test vectors of Vigna's splitmix64.c
    state = np.array([(1234567 + i * GOLDEN) % WORD for i in (1, 2, 3)], dtype=np.uint64)

    assert mixed(state).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.binary(min_size=1, max_size=40), st.integers(0, 2**40))
def test_a_hash_is_that_of_unbounded_integers(row, seed):
    assert hashes(np.frombuffer(row, np.uint8)[None], seed).tolist() == [slow_hash(row, seed)]


def test_shares_are_kept_to_the_last_hash():
    edges = np.array([0, 2**63 - 1, 2**63, 3 * 2**62 - 1, 3 * 2**62, WORD - 1], dtype=np.uint64)

    assert assigned(edges, (0.5, 0.25, 0.25)).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("n_bits", [2, 3, 10, 16])
def test_listed_strings_are_split_exactly_and_none_is_left_out(n_bits):
    splits = BitSplits(n_bits, 0)
    parts = [splits.distinct(2**n_bits, torch.Generator(), split) for split in ("train", "validation", "test")]

    assert [len(part) for part in parts] == [2**n_bits // 2, 2**n_bits // 4, 2**n_bits // 4]
    assert len(np.unique(np.concatenate(parts), axis=0)) == 2**n_bits


def test_strings_too_few_for_three_splits_are_refused():
    with pytest.raises(ConfigError, match="1 bits are too few to split in three: 2 bits or more"):
        BitSplits(1, 0).sample(1, torch.Generator(), "train")


def test_long_strings_keep_their_shares_and_their_bits_stay_fair(rng):
    splits = BitSplits(101, 0)
    drawn = torch.randint(2, (20_000, 101), generator=rng, dtype=torch.uint8).numpy()
    counts = np.bincount(assigned(hashes(np.packbits(drawn, axis=1), 0), (0.5, 0.25, 0.25)))
    bits = splits.sample(20_000, rng, "validation")

    np.testing.assert_allclose(counts / 20_000, [0.5, 0.25, 0.25], atol=0.016)  # 5 standard deviations
    np.testing.assert_allclose(bits.mean(0), 0.5, atol=0.018)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_what_is_drawn_by_rejection_has_the_hash_of_its_split(rng, split):
    bits = BitSplits(101, 3).sample(500, rng, split)
    index = ("train", "validation", "test").index(split)

    assert bits.shape == (500, 101)
    for row in bits[:50]:
        code = int("".join(map(str, row)), 2) << 3  # 104 bits: whole bytes
        quarter = slow_hash(code.to_bytes(13, "big"), 3) >> 62
        assert (0, 0, 1, 2)[quarter] == index


def test_the_split_follows_its_seed():
    zero, one = (BitSplits(10, seed).distinct(256, torch.Generator(), "test") for seed in (0, 1))

    assert {row.tobytes() for row in zero} != {row.tobytes() for row in one}


def test_more_distinct_strings_than_can_be_drawn_are_refused():
    splits = BitSplits(ENUMERATED_BITS + 1, 0)
    with pytest.raises(ConfigError, match="at most 65536 can be drawn"):
        splits.distinct(65_537, torch.Generator(), "test")

    drawn = splits.distinct(65_536, torch.Generator(), "test")
    assert len(np.unique(np.packbits(drawn, axis=1), axis=0)) == 65_536

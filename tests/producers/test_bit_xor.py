from __future__ import annotations

from functools import reduce
from operator import xor

from hypothesis import given, settings, strategies as st
import pytest
import torch

from fpt_viz.errors import ConfigError
from fpt_viz.tasks import load_task

OPTIONS = st.fixed_dictionaries(
    {
        "n_bits": st.integers(1, 40),
        "n_strings": st.integers(2, 5),
        "encoding": st.sampled_from(["bits", "signs"]),
        "split_seed": st.integers(0, 2**32),
    }
)


@settings(max_examples=30, deadline=None)
@given(OPTIONS, st.sampled_from(["train", "validation", "test"]))
def test_targets_are_the_exclusive_or_of_the_bits_in_the_labels(options, split):
    task = load_task("bit_xor", **options)
    batch = task.sample(5, torch.Generator().manual_seed(0), split)

    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
        bits = dict(label.split("=") for label in task.labels(inputs))
        strings = [[int(bits[f"{letter}{i}"]) for i in range(task.n_bits)] for letter in "abcde"[: task.n_strings]]
        assert targets.tolist() == [reduce(xor, column) for column in zip(*strings, strict=True)]


def test_a_token_holds_its_bit_as_in_the_code_of_the_authors_or_as_a_sign(rng):
    for encoding, values in (("bits", {0.0, 1.0}), ("signs", {-1.0, 1.0})):
        task = load_task("bit_xor", encoding=encoding)
        inputs = task.sample(20, rng).inputs
        ones = [[label.endswith("=1") for label in task.labels(row)] for row in inputs]

        assert set(inputs.flatten().tolist()) == values
        assert torch.equal(inputs[..., 0] == 1, torch.tensor(ones))


def test_both_encodings_draw_the_same_bits():
    bits, signs = (
        load_task("bit_xor", encoding=encoding).sample(9, torch.Generator().manual_seed(1))
        for encoding in ("bits", "signs")
    )

    assert torch.equal(bits.inputs * 2 - 1, signs.inputs)
    assert torch.equal(bits.targets, signs.targets)


def test_the_1024_inputs_of_5_and_5_bits_are_split_in_half_and_quarters():
    task = load_task("bit_xor")
    parts = [task.distinct(2000, split) for split in ("train", "validation", "test")]
    inputs = torch.cat([part.inputs for part in parts]).squeeze(-1)

    assert [len(part) for part in parts] == [512, 256, 256]
    assert sorted((inputs.long() * 2 ** torch.arange(10)).sum(1).tolist()) == list(range(1024))


def test_a_read_out_token_needs_its_bit_of_the_other_strings_and_nothing_else_is_scored():
    task = load_task("bit_xor", n_bits=3, n_strings=3)
    names = task.token_names()
    needs = task.needs(task.sample(2, torch.Generator()).inputs)

    found = {(names[query], names[key]) for query, key in needs[1].nonzero().tolist()}
    assert found == {(f"c{i}", f"{letter}{i}") for i in range(3) for letter in "ab"}


def test_the_smallest_task_fills_its_splits():
    task = load_task("bit_xor", n_bits=1)

    assert [task.n_examples(split) for split in ("train", "validation", "test")] == [2, 1, 1]


def test_strings_of_256_bits_are_drawn_and_told_apart(rng):
    task = load_task("bit_xor", n_bits=256)
    batch = task.distinct(300, "test")

    assert batch.inputs.shape == (300, 512, 1)
    assert len(batch.inputs.unique(dim=0)) == 300
    assert task.n_examples("test") is None


def test_a_seed_draws_these_bits_on_every_machine():
    batch = load_task("bit_xor").sample(2, torch.Generator().manual_seed(0))
    long = load_task("bit_xor", n_bits=10).sample(1, torch.Generator().manual_seed(0), "test")

    assert ["".join(str(int(bit)) for bit in row) for row in batch.inputs[..., 0]] == ["1001000100", "1011000011"]
    assert "".join(str(int(bit)) for bit in long.inputs[0, :, 0]) == "00100111010101111010"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_bits": 0}, "n_bits of bit_xor must be at least 1, got 0"),
        ({"n_strings": 1}, "n_strings of bit_xor must be at least 2, got 1"),
        ({"n_strings": 27}, "n_strings of bit_xor must be at most 26, got 27"),
        ({"split_seed": -1}, "split_seed of bit_xor must be at least 0, got -1"),
        ({"encoding": "sign"}, "encoding of bit_xor must be one of 'bits', 'signs', got 'sign'"),
        ({"n_bits": 5.0}, "n_bits of bit_xor must be of type int, got 5.0 of type float"),
        ({"n_bits": True}, "n_bits of bit_xor must be of type int, got True of type bool"),
    ],
)
def test_an_option_out_of_range_is_refused_with_its_range(options, message):
    with pytest.raises(ConfigError, match=message):
        load_task("bit_xor", **options)

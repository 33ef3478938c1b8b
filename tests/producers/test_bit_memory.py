from __future__ import annotations

import math

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
import torch

from fpt_viz.errors import ConfigError
from fpt_viz.tasks import load_task
from fpt_viz.tasks.bit_memory import BitMemory


@st.composite
def options(draw):
    patch_size = draw(st.integers(1, 6))
    return {
        "n_strings": draw(st.integers(2, 6)),
        "patch_size": patch_size,
        "n_bits": patch_size * draw(st.integers(1, 5)),
        "mask_rate": draw(st.floats(0.05, 0.95)),
    }


def strings_and_query(task, inputs):
    """Of one example, as plain lists of bits."""
    table = inputs.reshape(task.n_strings + 1, task.n_bits).long().tolist()
    return table[:-1], table[-1]


@settings(max_examples=30, deadline=None)
@given(options(), st.sampled_from(["train", "validation", "test"]))
def test_targets_are_one_of_the_strings_and_the_query_is_that_string_masked(options, split):
    task = load_task("bit_memory", **options)
    batch = task.sample(6, torch.Generator().manual_seed(0), split)

    for inputs, targets in zip(batch.inputs, batch.targets.flatten(1).tolist(), strict=True):
        strings, query = strings_and_query(task, inputs)
        signs = [2 * bit - 1 for bit in targets]
        assert signs in strings
        assert all(shown in (0, sign) for shown, sign in zip(query, signs, strict=True))
        assert {bit for string in strings for bit in string} <= {-1, 1}


@settings(max_examples=30, deadline=None)
@given(options())
def test_needs_are_those_of_a_slow_search_for_strings_that_agree(options):
    task = load_task("bit_memory", **options)
    inputs = task.sample(4, torch.Generator().manual_seed(0)).inputs
    n = task.n_readout
    found = task.needs(inputs)

    for example, needs in zip(inputs, found, strict=True):
        strings, query = strings_and_query(task, example)
        expected = {
            (task.n_strings * n + place, s * n + place)
            for s, string in enumerate(strings)
            if all(q in (0, bit) for q, bit in zip(query, string, strict=True))
            for place in range(n)
        }
        assert {tuple(pair) for pair in needs.nonzero().tolist()} == expected


def test_queries_ask_for_every_string_alike_and_mask_at_the_given_rate(rng):
    task = load_task("bit_memory", n_bits=60, patch_size=20, mask_rate=0.3)
    batch = task.sample(4000, rng)
    needs = task.needs(batch.inputs)
    asked = needs[:, -1].nonzero()[:, 1] // task.n_readout

    np.testing.assert_allclose(asked.bincount() / len(asked), 0.2, atol=0.032)  # 5 standard deviations
    shown = (batch.inputs[:, -task.n_readout :] != 0).float().mean().item()
    assert shown == pytest.approx(0.7, abs=0.005)


@pytest.mark.parametrize(("n_strings", "mask_rate"), [(2, 0.5), (4, 0.3), (5, 0.5), (7, 0.8)])
def test_trivial_solvers_have_the_accuracy_that_is_stated(n_strings, mask_rate):
    task = load_task("bit_memory", n_strings=n_strings, n_bits=200, mask_rate=mask_rate)
    batch = task.sample(1000, torch.Generator().manual_seed(0), "test")
    table = batch.inputs.reshape(1000, n_strings + 1, 200).numpy()
    truth = batch.targets.reshape(1000, 200).numpy() * 2 - 1
    guess = np.random.default_rng(0).choice([-1, 1], truth.shape)
    query, votes = table[:, -1], table[:, :-1].sum(1)
    answers = {
        "copy shown bits": np.where(query != 0, query, guess),
        "copy and majority": np.where(query != 0, query, np.where(votes != 0, np.sign(votes), guess)),
    }

    assert answers.keys() == task.trivial.keys()
    for name, answer in answers.items():
        bound = 5 * math.sqrt(0.25 / truth.size)
        assert (answer == truth).mean() == pytest.approx(task.trivial[name], abs=bound)


def test_the_settings_of_the_paper_are_the_defaults():
    task = BitMemory()

    assert (task.n_tokens, task.n_values, task.n_readout, task.output_shape) == (120, 50, 20, (50, 2))
    assert task.trivial == {"copy shown bits": 0.75, "copy and majority": 0.84375}


def test_strings_of_one_split_come_in_no_other_whatever_the_query(rng):
    task = load_task("bit_memory", n_strings=2, n_bits=4, patch_size=2)
    strings = [
        {row.numpy().tobytes() for row in task.sample(500, rng, split).inputs[:, : -task.n_readout].contiguous()}
        for split in ("train", "validation", "test")
    ]

    assert [len(part) for part in strings] == [128, 64, 64]
    assert len(set.union(*strings)) == 256


def test_a_label_counts_the_ones_among_the_bits_shown():
    task = load_task("bit_memory", n_strings=2, n_bits=4, patch_size=2)
    inputs = torch.tensor([[1, 1], [1, -1], [-1, -1], [-1, 1], [0, -1], [0, 0]]).float()

    assert task.labels(inputs) == ["a0=2/2", "a1=1/2", "b0=0/2", "b1=1/2", "q0=0/1", "q1=0/0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 30}, "patch_size of bit_memory must divide n_bits, got 30 for 1000 bits"),
        ({"mask_rate": 1}, "mask_rate of bit_memory must be above 0 and below 1, got 1.0"),
        ({"mask_rate": float("nan")}, "mask_rate of bit_memory must be above 0 and below 1, got nan"),
        ({"n_strings": 26}, "n_strings of bit_memory must be at most 25, got 26"),
        ({"n_strings": 1}, "n_strings of bit_memory must be at least 2, got 1"),
    ],
)
def test_an_option_out_of_range_is_refused_with_its_range(options, message):
    with pytest.raises(ConfigError, match=message):
        load_task("bit_memory", **options)

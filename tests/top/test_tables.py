"""Runs compared: seeds of one system are one row, and whatever else differs is said."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
import math
from pathlib import Path
from typing import Any

import pytest

from fpt_viz.errors import ConfigError
from fpt_viz.records import RunRecord, load_run
from fpt_viz.tables import PAPER, compared

Make = Callable[..., RunRecord]


@pytest.fixture
def make(trained: Path) -> Make:
    """A run like the trained one, with other options and another accuracy."""
    whole = load_run(trained)

    def made(seed: int, accuracy: float, **changes: Any) -> RunRecord:
        config, result = deepcopy(whole.config), deepcopy(whole.result)
        config["train"]["seed"] = seed
        for name, value in changes.items():
            section, _, option = name.partition("__")
            config[section] = config[section] | {option: value} if option else value
        result["evaluation"] |= {"accuracy": accuracy, "interval": [accuracy - 0.1, accuracy + 0.1]}
        return replace(whole, path=Path(f"run-{seed}"), config=config, result=result)

    return made


def test_one_seed_has_the_runs_own_interval(make):
    [row] = compared([make(2, 0.8)])
    assert (row.system, row.task, row.seeds, row.mean) == ("bert-tiny-random random", "bit_xor (n_bits=3)", (2,), 0.8)
    assert row.interval == pytest.approx((0.7, 0.9))


def test_several_seeds_have_students_interval_over_the_seeds(make):
    accuracies = [0.5, 0.6, 0.7]
    [row] = compared([make(seed, accuracy) for seed, accuracy in enumerate(accuracies)])
    half = 4.302653 * 0.1 / math.sqrt(3)  # two-sided 95 % of Student's t at 2 degrees, from a printed table
    assert row.mean == pytest.approx(0.6)
    assert row.interval == pytest.approx((0.6 - half, 0.6 + half))


def test_an_interval_of_accuracies_stays_an_accuracy(make):
    [row] = compared([make(0, 1.0), make(1, 0.9)])
    assert row.interval == (pytest.approx(0.3147, abs=1e-3), 1.0)


def test_systems_that_differ_in_an_option_are_told_apart_by_it(make):
    rows = compared([make(0, 0.5), make(0, 0.6, train__learning_rate=0.01), make(1, 0.7)])
    assert [(row.system, row.seeds) for row in rows] == [
        ("bert-tiny-random random (learning_rate=0.001)", (0, 1)),
        ("bert-tiny-random random (learning_rate=0.01)", (0,)),
    ]


def test_a_seed_counts_once(make):
    with pytest.raises(ConfigError, match="are the same run"):
        compared([make(0, 0.5), make(0, 0.5)])


def test_the_papers_number_stands_beside_the_papers_system_alone(make):
    paper = {"task": {"name": "bit_memory"}, "backbone": {"name": "gpt2", "init": "random"}}
    [row] = compared([make(0, 0.7, **paper)])
    assert (row.paper, row.source) == (0.758, PAPER)
    for change in (
        {"backbone__n_layers": 6},
        {"backbone__name": "gpt2-medium"},
        {"task__options": {"n_bits": 3}},
        {"trained": ["output"]},
    ):
        [row] = compared([make(0, 0.7, **paper | change)])
        assert (row.paper, row.source) == (None, None), change

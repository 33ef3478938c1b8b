"""Means, tests and medians of experiments, against scipy, hand-built cases and printed tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy.stats import ttest_rel

from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.experiments._facts import Facts, Failure, Found
from fpt_viz.experiments._rows import rows_of
from fpt_viz.experiments._table import table_of
from fpt_viz.experiments.base import Cell, Experiment
from fpt_viz.records import Evaluation
from fpt_viz.tables import StepsTaken, holm, paired_p

COMMON = {0: 0.61, 1: 0.72, 2: 0.65, 3: 0.70}
OTHERS = {1: 0.69, 2: 0.66, 3: 0.60, 9: 0.99}


def test_the_paired_test_is_scipys_over_common_seeds():
    expected = ttest_rel([COMMON[i] for i in (1, 2, 3)], [OTHERS[i] for i in (1, 2, 3)]).pvalue
    assert paired_p(COMMON, OTHERS) == pytest.approx(expected)


def test_two_common_seeds_are_no_test():
    assert paired_p(COMMON, {0: 0.1, 1: 0.2}) is None


def test_holms_correction_is_that_of_a_case_worked_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.7, 0.9]) == [1.0, 1.0]


def test_the_median_without_censoring_is_the_median():
    assert StepsTaken((130, 100, 120, 150, 110)).median()[0] == 120


def test_a_censored_run_counts_as_longer_than_all_that_were_seen():
    """Two of three reached it: the survival curve falls to one third at the second; one of three: it stays above."""
    assert StepsTaken((100, 200), (1000,)).median()[0] == 200
    assert StepsTaken((100,), (1000, 1000)).median()[0] is None
    assert StepsTaken((), (1000, 1000)).median() == (None, (None, None))


def test_a_run_censored_early_says_nothing_of_later_steps():
    """Kaplan-Meier by hand: at 200 two are at risk, since one left at 150; 3/4 at 100, 3/8 at 200."""
    assert StepsTaken((100, 200, 300), (150,)).median()[0] == 200


def test_the_log_rank_test_sees_runs_that_never_got_there():
    """By hand: five events in A alone, at risk (5, 5), (4, 5), ... (1, 5), so A expects 5/10 + 4/9 + ... + 1/6."""
    fast, never = StepsTaken((100, 110, 120, 130, 150)), StepsTaken((), (1000,) * 5)
    at_risk = [(left, left + 5) for left in (5, 4, 3, 2, 1)]
    expected = sum(left / n for left, n in at_risk)
    variance = sum(left / n * (1 - left / n) for left, n in at_risk)
    from scipy.stats import chi2

    assert fast.log_rank_p(never) == pytest.approx(chi2.sf((5 - expected) ** 2 / variance, 1))
    assert fast.log_rank_p(fast) == pytest.approx(1.0)
    assert never.log_rank_p(never) is None


def facts(seed: int, accuracy: float, *, checks: tuple[tuple[int, float], ...] = (), n_steps: int = 100) -> Facts:
    test = Evaluation(
        split="test", n_examples=100, accuracy=accuracy, interval=(accuracy - 0.1, accuracy + 0.1), exact=0.0,
        loss=1.0, chance=0.5, trivial={"copy": 0.75},
    )  # fmt: skip
    return Facts(
        seed=seed, test=test, n_steps=n_steps, steps_to_solve=None, checks=checks, step_seconds=0.1, n_trained=1,
        n_total=2, on_train=None, routing=None, source={"run": f"run {seed}"},
    )  # fmt: skip


def cell(system: str, *, versus: str = "", rate: float = 1e-3, threshold: float | None = None) -> Cell:
    config = RunConfig(
        task=TaskConfig(name="bit_xor"), backbone=BackboneConfig(), train=TrainConfig(learning_rate=rate)
    )
    return Cell(system=system, task="bit_xor", config=config, seeds=(0, 1, 2), versus=versus, threshold=threshold)


def test_differences_are_paired_and_corrected_over_the_table():
    ours = [0.9, 0.92, 0.94]
    others = {"b": [0.8, 0.83, 0.83], "c": [0.9, 0.90, 0.95]}
    found = [Found(cell=cell("a"), finished=tuple(map(facts, range(3), ours)), failed=())]
    found += [
        Found(cell=cell(name, versus="a"), finished=tuple(map(facts, range(3), values)), failed=())
        for name, values in others.items()
    ]
    a, b, c = rows_of(found, "accuracy")
    raw = [ttest_rel(values, ours).pvalue for values in others.values()]
    assert a.p is None
    assert (b.p, c.p) == pytest.approx((2 * min(raw), max(raw)))
    assert b.versus == pytest.approx(-0.1)


def test_the_rate_is_chosen_on_validation_and_test_is_read_there_alone():
    """At 1e-2 test is better; validation says 1e-3."""
    found = [
        Found(
            cell=cell("a", rate=rate),
            finished=tuple(facts(seed, test, checks=((50, 0.1), (100, validation))) for seed in range(3)),
            failed=(),
        )
        for rate, validation, test in ((1e-4, 0.6, 0.6), (1e-3, 0.8, 0.7), (1e-2, 0.75, 0.9))
    ]
    [row] = rows_of(found, "rates")
    assert row.mean == pytest.approx(0.7)
    assert dict(row.beside) == {"Best rate": "0.001", "Validation (%) by rate": "0.0001: 60.0, 0.001: 80.0, 0.01: 75.0"}


def test_a_best_rate_at_the_end_of_the_grid_is_told():
    found = [
        Found(cell=cell("a", rate=rate), finished=(facts(0, 0.5, checks=((1, validation),)),), failed=())
        for rate, validation in ((1e-4, 0.6), (1e-3, 0.7))
    ]
    [row] = rows_of(found, "rates")
    assert dict(row.beside)["Best rate"] == "0.001 (end of the grid)"


def test_a_rate_with_a_failed_run_is_not_chosen_and_its_failure_is_told():
    failure = Failure(seed=1, kind="diverged", message="the loss is nan", n_steps=7, last_check=0.4)
    well = Found(cell=cell("a", rate=1e-4), finished=(facts(0, 0.6, checks=((1, 0.6),)),), failed=())
    half = Found(cell=cell("a", rate=1e-2), finished=(facts(0, 0.9, checks=((1, 0.9),)),), failed=(failure,))
    [row] = rows_of([well, half], "rates")
    assert row.mean == pytest.approx(0.6)
    assert row.failed == (failure,)
    assert failure.told == "seed 1 diverged after 7 steps, 40.0 % at its last check"


def test_steps_to_a_threshold_are_those_of_the_first_check_there():
    reach = [((10, 0.4), (20, 0.95), (30, 0.8)), ((10, 0.91),), ((10, 0.2), (20, 0.3))]
    finished = tuple(facts(seed, 0.9, checks=checks, n_steps=40) for seed, checks in enumerate(reach))
    [row] = rows_of([Found(cell=cell("a", threshold=0.9), finished=finished, failed=())], "steps")
    assert row.mean == 20
    assert dict(row.beside)["Reached"] == "2 of 3"


def test_a_table_shows_chance_trivial_solvers_and_every_failure():
    failure = Failure(seed=2, kind="diverged", message="the loss is nan at step 7: lower the rate", n_steps=7)
    found = [Found(cell=cell("a"), finished=(facts(0, 0.8), facts(1, 0.7)), failed=(failure,))]
    experiment = Experiment(title="T", claim="C.", cells=lambda _scale: [])
    table = table_of(experiment, rows_of(found, "accuracy"), scale="laptop", label="tab:t")
    [row] = table.rows
    told = dict(zip(table.columns, row, strict=True))
    assert told["Accuracy (%)"] == "75.0"
    assert told["Seeds"] == "2"
    assert (told["Chance (%)"], told["Without routing (%)"]) == ("50.0", "copy 75.0")
    assert told["Not finished"] == "seed 2 diverged after 7 steps"
    assert any("lower the rate" in note for note in table.notes)


def test_an_open_end_is_told_in_words(tmp_path: Path):
    finished = tuple(facts(seed, 0.5, n_steps=600) for seed in range(3))
    rows = rows_of([Found(cell=cell("a"), finished=finished, failed=())], "steps")
    experiment = Experiment(title="T", claim="C.", cells=lambda _scale: [], quantity="steps")
    [row] = table_of(experiment, rows, scale="laptop", label="tab:t").rows
    assert "> 600" in row

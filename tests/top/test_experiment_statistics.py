"""Means, tests and medians of experiments, against scipy, hand-built cases and printed tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy.stats import ttest_rel

from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.experiments._facts import Facts, Failure, Found
from fpt_viz.experiments._rows import rows_of
from fpt_viz.experiments._systems import NOTED
from fpt_viz.experiments._table import table_of
from fpt_viz.experiments.base import Cell, Experiment
from fpt_viz.records import Evaluation
from fpt_viz.tables import StepsTaken, _log_rank_scores, holm, paired_p

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


def test_the_log_rank_test_is_exact_over_all_splits():
    """Five that got there before five that never did: of 252 splits that one, and its mirror, are as far apart."""
    fast, never = StepsTaken((100, 110, 120, 130, 150)), StepsTaken((), (1000,) * 5)
    assert fast.log_rank_p(never) == pytest.approx(2 / 252)
    assert fast.log_rank_p(fast) == pytest.approx(1.0)
    assert never.log_rank_p(never) is None
    assert StepsTaken((1, 2, 3)).log_rank_p(StepsTaken((4, 5, 6))) == pytest.approx(2 / 20)


def test_the_permuted_statistic_is_observed_less_expected_events():
    """With ties, and with runs that are censored between."""
    ours, theirs = StepsTaken((10, 40, 40), (60,)), StepsTaken((40, 70), (20, 80))
    at_risk = [(10, 4, 4), (40, 3, 3), (70, 0, 2)]  # by hand: time, runs of ours and of theirs that are left
    events = {10: 1, 40: 3, 70: 1}
    expected = sum(events[at] * mine / (mine + other) for at, mine, other in at_risk)
    assert _log_rank_scores(ours, theirs)[:4].sum() == pytest.approx(3 - expected)
    assert _log_rank_scores(ours, theirs).sum() == pytest.approx(0.0)


def test_with_too_many_splits_as_many_are_drawn_and_tell_the_same():
    fast, slow = StepsTaken(tuple(range(10, 19))), StepsTaken(tuple(range(15, 24)))
    from fpt_viz import tables

    drawn = fast.log_rank_p(slow)  # 48,620 splits
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "MOST_SPLITS", 50_000)
        assert drawn == pytest.approx(fast.log_rank_p(slow), abs=0.005)


@pytest.mark.parametrize("rounding", [0.0, 1e-16])
def test_differences_that_are_all_alike_are_no_test(rounding):
    ours = {0: 0.5, 1: 0.6, 2: 0.7}
    assert paired_p(ours, {seed: value - 0.1 + rounding * seed for seed, value in ours.items()}) is None
    assert paired_p(ours, dict(ours)) == 1.0


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


def rate(value: float, seeds: dict[int, float], *failed: Failure) -> Found:
    """A rate whose seeds have a validation accuracy."""
    finished = tuple(facts(seed, 0.5, checks=((1, score),)) for seed, score in seeds.items())
    return Found(cell=cell("a", rate=value), finished=finished, failed=failed)


def test_rates_of_a_list_that_goes_on_are_compared_on_the_seeds_that_all_have():
    """Over all that is there 1e-2 would be ahead; on the seed that both have it is not."""
    to_come = Failure(seed=1, kind="not run", message="")
    [row] = rows_of(
        [rate(1e-3, {0: 0.7}, to_come), rate(1e-2, {0: 0.6, 1: 0.9}), rate(1e-4, {0: 0.5, 1: 0.5})], "rates"
    )
    assert dict(row.beside) == {"Best rate": "0.001", "Validation (%) by rate": "0.0001: 50.0, 0.001: 70.0, 0.01: 60.0"}


def test_without_a_seed_that_all_rates_have_none_is_chosen_and_no_test_is_read():
    to_come = Failure(seed=0, kind="not run", message="")
    [row] = rows_of([rate(1e-4, {}, to_come), rate(1e-3, {0: 0.7})], "rates")
    assert (row.mean, dict(row.beside)["Best rate"]) == (None, "not chosen yet")
    assert row.failed == (to_come,)


def test_rows_without_spread_have_an_interval_over_examples_and_no_test():
    found = [
        Found(cell=cell(name, versus=versus), finished=tuple(facts(seed, value) for seed in range(3)), failed=())
        for name, versus, value in (("a", "", 0.9), ("b", "a", 0.49))
    ]
    rows = rows_of(found, "accuracy")
    assert rows[1].interval == pytest.approx((0.39, 0.59))
    experiment = Experiment(title="T", claim="C.", cells=lambda _scale: [])
    table = table_of(experiment, rows, scale="laptop", label="tab:t")
    assert dict(zip(table.columns, table.rows[1], strict=True))["p (Holm)"] == "no spread over seeds: no test"
    assert "At most 5,000 steps: bit_xor." in table.notes


def test_a_diverged_run_is_censored_at_its_steps():
    failure = Failure(seed=2, kind="diverged", message="the loss is nan", n_steps=70)
    finished = tuple(facts(seed, 0.9, checks=((100, 0.95),)) for seed in range(2))
    [row] = rows_of([Found(cell=cell("a", threshold=0.9), finished=finished, failed=(failure,))], "steps")
    assert dict(row.beside)["Reached"] == "2 of 3"
    [row] = rows_of([Found(cell=cell("a"), finished=(), failed=(failure,))], "steps")
    experiment = Experiment(title="T", claim="C.", cells=lambda _scale: [], quantity="steps")
    assert "> 70" in table_of(experiment, [row], scale="laptop", label="tab:t").rows[0]


def test_a_table_names_the_backbone_that_its_rows_are_on():
    told = Experiment(title="T", claim="C.", cells=lambda _scale: [], notes=(NOTED["laptop"],))
    for name, words in (("minilm", "Ours is MiniLM"), ("smollm2", "Ours is smollm2;")):
        config = RunConfig(task=TaskConfig(name="bit_xor"), backbone=BackboneConfig(name=name), train=TrainConfig())
        one = Cell(system="a", task="bit_xor", config=config, seeds=(0,))
        rows = rows_of([Found(cell=one, finished=(), failed=())], "accuracy")
        notes = table_of(told, rows, scale="laptop", label="tab:t").notes
        assert next(note for note in notes if note.startswith("Ours is")).startswith(words)


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

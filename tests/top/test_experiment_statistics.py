"""Means, tests and medians of experiments, against scipy, hand-built cases and printed tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t, ttest_rel

from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.experiments._facts import Facts, Failure, Found
from fpt_viz.experiments._figure import figure_of
from fpt_viz.experiments._rows import rows_of
from fpt_viz.experiments._systems import NOTED
from fpt_viz.experiments._table import table_of
from fpt_viz.experiments.base import Cell, Experiment, Published, Quantity
from fpt_viz.export import Figure, Line, Points
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
    [failed] = row.failed
    assert failed.told == "seed 1 at rate 0.01 diverged after 7 steps, 40.0 % at its last check"


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
    assert [failure.told for failure in row.failed] == ["seed 0 at rate 0.0001 not run"]


def test_seeds_that_were_not_run_at_any_rate_are_told_once():
    """With 2 seeds of 3, and one more at one rate, a row tells so in few words."""
    there = {1e-4: (0, 1, 2), 1e-3: (0, 1), 1e-2: (0, 1)}
    found = [
        rate(
            value,
            dict.fromkeys(seeds, 0.5 + value),
            *(Failure(seed=seed, kind="not run", message="") for seed in range(4) if seed not in seeds),
        )
        for value, seeds in there.items()
    ]
    [row] = rows_of(found, "rates")
    assert row.seeds == (0, 1)
    [cells] = table_of(made("rates"), [row], scale="laptop", label="tab:t").rows
    assert cells[-1] == "seed 3 not run; seed 2 not run at rate 0.001, 0.01"


def test_with_two_seeds_a_rates_test_accuracy_has_an_interval_over_them():
    values = (0.6, 0.7)
    finished = tuple(facts(seed, value, checks=((1, 0.9),)) for seed, value in enumerate(values))
    [row] = rows_of([Found(cell=cell("a"), finished=finished, failed=())], "rates")
    low, high = t.interval(0.95, 1, loc=0.65, scale=np.std(values, ddof=1) / math.sqrt(2))
    assert row.interval == pytest.approx((max(0.0, low), min(1.0, high)))


def made(quantity: Quantity) -> Experiment:
    return Experiment(title="T", claim="C.", cells=lambda _scale: [], quantity=quantity)


def diverged(seed: int, n_steps: int) -> Failure:
    return Failure(seed=seed, kind="diverged", message="the loss is nan", n_steps=n_steps)


def failed(seed: int) -> Failure:
    return Failure(seed=seed, kind="failed", message="out of memory")


def drawn(found: Sequence[Found], quantity: Quantity) -> tuple[Figure, dict[str, list[float]], tuple[str, ...]]:
    """The figure of ``found``, where each of its points stands by label, and the names of its rows."""
    figure = figure_of(made(quantity), rows_of(found, quantity), found, scale="laptop")
    assert figure is not None
    [panel] = figure.panels
    points = {mark.label: mark.x.tolist() for mark in panel.marks if isinstance(mark, Points)}
    return figure, points, panel.y_ticks[1] if panel.y_ticks else ()


def test_a_figure_of_steps_has_a_mark_for_every_run_that_took_some():
    reached = tuple(facts(seed, 0.9, checks=((at, 0.95),), n_steps=600) for seed, at in enumerate((90, 120, 110)))
    never = tuple(facts(seed, 0.5, n_steps=600) for seed in range(2))
    found = [
        Found(cell=cell("quick", threshold=0.9), finished=reached, failed=(diverged(3, 30),)),
        Found(cell=cell("slow", threshold=0.9), finished=never, failed=()),
        Found(cell=cell("wild", threshold=0.9), finished=(), failed=(diverged(0, 7), diverged(1, 70))),
        Found(cell=cell("torn", threshold=0.9), finished=never[:1], failed=(diverged(1, 50), failed(2))),
    ]
    figure, points, names = drawn(found, "steps")
    assert points["a run that got there"] == [90, 110, 120]
    assert points["a run that did not, at its last step"] == [600, 600, 600]
    assert points["a run that diverged, at its last step"] == [30, 7, 70, 50]
    assert names == ("quick", "slow", "wild", "torn (2 of 3 runs)")
    assert "4 diverged, 1 failed" in figure.note
    assert "wild on bit_xor: > 70, seed 0 diverged after 7 steps" in figure.alt


def test_runs_that_all_diverged_are_drawn_where_steps_are_asked_for():
    found = [Found(cell=cell("wild"), finished=(), failed=(diverged(0, 7),))]
    figure, points, _ = drawn(found, "steps")
    assert points == {"a run that diverged, at its last step": [7]}
    assert not any(word in figure.note for word in ("median", "interval", "censored"))
    assert "Each mark is a run; those that did not get there are shown at their last step." in figure.note
    assert figure_of(made("accuracy"), rows_of(found, "accuracy"), found, scale="laptop") is None


OPEN = "An interval that ends at the frame is open."


def test_an_open_bound_of_a_median_is_drawn_to_the_frame_and_a_median_of_one_run_without_interval():
    several = tuple(facts(seed, 0.9, checks=((at, 0.95),), n_steps=600) for seed, at in enumerate((90, 100, 110)))
    found = [
        Found(cell=cell("several", threshold=0.9), finished=several, failed=()),
        Found(cell=cell("one", threshold=0.9), finished=several[:1], failed=()),
    ]
    rows = rows_of(found, "steps")
    assert [row.interval[1] for row in rows] == [None, None]
    figure, _, _ = drawn(found, "steps")
    assert figure.note == "Kaplan-Meier medians over seeds, and below each its runs. " + OPEN
    [panel] = figure.panels
    [median] = [mark for mark in panel.marks if isinstance(mark, Points) and mark.label.startswith("median")]
    assert median.low is not None
    assert median.high is not None
    assert panel.x_range is not None
    assert median.high[0] == panel.x_range[1]
    if rows[1].interval[0] is None:
        assert (median.low[1], median.high[1]) == (90, 90)


def test_reported_values_stand_apart_from_ours_and_say_of_what_they_are():
    """Both are 100 %: neither may hide the other."""
    one = replace(cell("a"), published=Published(value=1.0, of="mnist"))
    figure, points, _ = drawn([Found(cell=one, finished=(facts(0, 1.0),), failed=())], "accuracy")
    assert points == {"ours, 95 % interval": [100], "reported": [100]}
    ours, reported = (mark for mark in figure.panels[0].marks if isinstance(mark, Points))
    assert ours.y[0] != reported.y[0]
    assert figure.panels[0].title == "bit_xor (reported: mnist)"


def test_over_and_underfitting_draws_accuracy_on_train_too():
    one = replace(facts(0, 0.5), on_train=0.8)
    _, points, _ = drawn([Found(cell=cell("a"), finished=(one,), failed=())], "gap")
    assert points["ours, on train"] == [80]


def test_a_rate_at_which_a_run_diverged_has_a_mark_below_zero_and_a_missing_line_is_told():
    to_come = Failure(seed=0, kind="not run", message="")
    found = [rate(1e-3, {0: 0.7, 1: 0.8}), rate(1e-2, {0: 0.9}, diverged(1, 7))]
    absent = replace(cell("b"), system="b")
    found += [Found(cell=absent, finished=(), failed=(to_come,))]
    figure, points, _ = drawn(found, "rates")
    assert points == {"a: diverged or failed": [-2.0]}
    [mark] = [mark for mark in figure.panels[0].marks if isinstance(mark, Points)]
    assert mark.y.max() < 0
    [line] = [mark for mark in figure.panels[0].marks if isinstance(mark, Line)]
    assert (line.label, line.x.tolist(), line.y.tolist()) == ("a, 2 seeds", [-3.0], [75.0])
    assert "No line of b on bit_xor: no seed has run at all of its rates." in figure.note
    assert figure.note.startswith(
        "Mean over seeds on validation after the last step; dashed: what needs no routing; crosses below 0: rates with "
        "no mean."
    )


def test_a_system_that_diverged_at_every_rate_is_told_so():
    found = [rate(value, {}, diverged(0, 7)) for value in (1e-3, 1e-2)]
    [row] = rows_of(found, "rates")
    assert dict(row.beside)["Best rate"] == "none: a run diverged or failed at each rate"
    figure, _, _ = drawn(found, "rates")
    assert figure.note == (
        "Crosses below 0: rates with no mean. Runs without a result: 2 diverged. "
        "No line of a on bit_xor: a run diverged or failed at each rate."
    )


def test_a_figure_tells_of_each_row_that_it_draws_and_of_no_mark_that_it_lacks():
    to_come = Failure(seed=0, kind="not run", message="")
    absent = replace(cell("absent"), config=None, why_not="there is none", published=Published(value=0.5))
    found = [
        Found(cell=cell("a"), finished=(facts(0, 0.8),), failed=()),
        Found(cell=cell("later"), finished=(), failed=(to_come,)),
        Found(cell=absent, finished=(), failed=()),
    ]
    figure, _, names = drawn(found, "accuracy")
    assert names == ("a", "later (0 of 1 runs)")
    assert "a on bit_xor: 80.0 (70.0 to 90.0); later on bit_xor: -, seed 0 not run." in figure.alt
    assert "absent" not in figure.alt
    assert "crosses" not in figure.note
    reported = Found(cell=replace(cell("a"), published=Published(value=0.5)), finished=(facts(0, 0.8),), failed=())
    assert "crosses: what others report" in drawn([reported], "accuracy")[0].note


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

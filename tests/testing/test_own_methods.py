"""A method of a user's own is compared with the column that it claims, and mistakes in asking are told."""

from __future__ import annotations

from pathlib import Path
import re

import pytest

from fpt_viz import testing
from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.testing import table


def by_pattern(circuit: testing.Circuit) -> list[tuple[int, int]]:
    """Both heads of a decoy circuit look right."""
    return [circuit.heads["decoy"], circuit.heads["copies"]]


def test_what_a_method_of_ones_own_misses_and_wrongly_finds_is_told(planted):
    decoy = planted("decoy_bert")

    result = testing.check(decoy, by_pattern, column="acting")

    assert result.false_alarms == {decoy.heads["decoy"]}
    assert result.missed == frozenset()
    assert not result.agrees
    assert testing.check(decoy, by_pattern, column="routing").agrees
    assert testing.check(decoy, lambda circuit: [], column="ablate_zero").missed == {decoy.heads["copies"]}


def test_the_columns_differ_where_a_method_must_miss_what_acts(planted):
    redundant, resting = planted("redundant_pair_t5"), planted("resting_t5")

    assert redundant.acting - redundant.verdicts["ablate_zero"].positive == redundant.acting
    assert redundant.acting == {head for pair in redundant.verdicts["ablate_pair"].positive for head in pair}
    assert resting.acting - resting.verdicts["routing"].positive == {resting.heads["rests"]}


def test_the_page_runs_as_it_stands_and_shows_that_attention_is_not_action(repository, planted, capsys, monkeypatch):
    page = (repository / "docs" / "planted_circuits.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.setattr(testing, "circuits", lambda: ["decoy_vit", "resting_gpt2"])
    monkeypatch.setattr(testing, "circuit", planted)

    names: dict[str, object] = {}
    exec("\n".join(code), names)

    assert capsys.readouterr().out.splitlines() == [
        "decoy_vit missed set() false alarms {(0, 1)}",
        "resting_gpt2 missed {(1, 2)} false alarms set()",
    ]


def test_the_page_holds_the_verdicts_that_are_tested(repository):
    page = Path(repository / "docs" / "planted_circuits.md").read_text(encoding="utf-8")

    assert f"\n{table.markdown()}\n" in page


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda c: testing.check(c, by_pattern), ConfigError, "give column=, one of routing, .*, acting"),
        (lambda c: testing.check(c, by_pattern, column="ablate_zeros"), UnknownNameError, "mean 'ablate_zero'"),
        (lambda c: testing.check(c, "rooting"), UnknownNameError, "mean 'routing'"),
        (lambda c: testing.check(c, lambda _: [(7, 0)], column="acting"), ConfigError, r"has no \(7, 0\)"),
        (lambda c: testing.circuit("decoy_gtp2"), UnknownNameError, "mean 'decoy_gpt2'"),
    ],
    ids=["no column", "no such column", "no such method", "no such head", "no such circuit"],
)
def test_a_mistake_in_asking_names_its_cure(planted, ask, error, message):
    with pytest.raises(error, match=message):
        ask(planted("decoy_bert"))

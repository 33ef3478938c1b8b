"""Tables for papers: the same cells in four formats, bold only where seeds bear it."""

from __future__ import annotations

import csv
from dataclasses import replace
import io
from pathlib import Path
import re
import shutil
import subprocess
from xml.etree import ElementTree as ET

import pytest
from scipy.stats import ttest_rel

from fpt_viz.errors import ConfigError, FptVizError, UnknownNameError
from fpt_viz.export import PaperTable
from fpt_viz.records import RunRecord
from fpt_viz.tables import compared, comparison_table


def with_accuracy(record: RunRecord, accuracy: float, *, init: str | None = None, seed: int = 0) -> RunRecord:
    """The run as if it had reached ``accuracy``."""
    config = {name: dict(part) if isinstance(part, dict) else part for name, part in record.config.items()}
    config["train"]["seed"] = seed
    config["backbone"]["init"] = init or config["backbone"]["init"]
    evaluation = {**record.result["evaluation"], "accuracy": accuracy}
    return replace(
        record, config=config, result={**record.result, "evaluation": evaluation}, path=Path(f"{init}{seed}")
    )


def two_systems(record: RunRecord, better: list[float], other: list[float]) -> list[RunRecord]:
    ours = [with_accuracy(record, value, init="pretrained", seed=i) for i, value in enumerate(better)]
    return ours + [with_accuracy(record, value, init="random", seed=i) for i, value in enumerate(other)]


@pytest.mark.parametrize(
    ("better", "other"),
    [
        ([0.90, 0.92, 0.94], [0.80, 0.83, 0.83]),  # each seed better
        ([0.90, 0.92, 0.94], [0.89, 0.93, 0.93]),  # a little, and not in each
        ([0.9, 0.7, 0.5, 0.8], [0.85, 0.66, 0.46, 0.74]),  # spread over seeds, but paired each is better
    ],
)
def test_best_is_what_a_paired_t_test_over_seeds_says(runs, better, other):
    first, second = compared(two_systems(runs[0], better, other))
    p = float(ttest_rel(better, other).pvalue)
    assert first.best == (p < 0.05)
    assert not second.best


def test_two_seeds_or_none_in_common_make_nothing_best(runs):
    assert not any(row.best for row in compared(two_systems(runs[0], [0.9, 0.91], [0.1, 0.11])))
    apart = two_systems(runs[0], [0.9, 0.91, 0.92], [0.1, 0.1, 0.1])
    moved = apart[:3] + [with_accuracy(record, 0.1, init="random", seed=7 + i) for i, record in enumerate(apart[3:])]
    assert not any(row.best for row in compared(moved))
    assert not any(row.best for row in compared([runs[0]]))


def test_with_several_others_the_test_is_corrected_for_their_number(runs):
    better, near = [0.90, 0.92, 0.94], [0.87, 0.90, 0.90]
    alone = two_systems(runs[0], better, near)
    p = float(ttest_rel(better, near).pvalue)
    assert 0.025 < p < 0.05
    assert compared(alone)[0].best
    third = [with_accuracy(runs[0], value, init="statistics", seed=i) for i, value in enumerate(near)]
    assert not any(row.best for row in compared(alone + third))


@pytest.fixture
def table(runs: list[RunRecord]) -> PaperTable:
    return comparison_table(two_systems(runs[0], [0.90, 0.92, 0.94], [0.80, 0.83, 0.83]))


def test_the_cells_are_means_and_intervals_in_percent_with_the_best_in_bold(table):
    assert table.rows[0][0] == "minilm pretrained"
    assert table.rows[0][3] == "92.0"
    assert table.bold == {(0, 3)}
    assert "paired t-test over common seeds" in " ".join(table.notes)
    assert "\\textbf{92.0}" in table.to_latex()
    assert "**92.0**" in table.to_markdown()
    assert "<strong>92.0</strong>" in table.to_html()


def test_the_papers_value_stands_with_its_source(runs):
    config = {**runs[0].config, "backbone": {"name": "gpt2", "init": "random"}, "task": {"name": "bit_memory"}}
    groups = ["output", "input", "layer_norm", "position"]
    table = comparison_table([replace(runs[0], config={**config, "trained": groups})])
    assert table.rows[0][5] == "75.8 [S1]"
    assert any(note.startswith("[S1] Lu et al., 2021") for note in table.notes)


def test_csv_holds_the_exact_numbers(table):
    [first, _] = csv.DictReader(io.StringIO(table.to_csv()))
    assert float(first["mean"]) == (0.90 + 0.92 + 0.94) / 3
    assert (first["seeds"], first["best"], first["paper"]) == ("0 1 2", "True", "")


def test_html_is_whole_and_no_cell_becomes_markup(table):
    odd = replace(table, rows=(("<script>x", *table.rows[0][1:]), table.rows[1]), caption="a & b")
    root = ET.fromstring(f"<div>{odd.to_html()}</div>")
    assert [len(row) for row in root.iter("tr")] == [6, 6, 6]
    assert next(root.iter("td")).text == "<script>x"


def test_markdown_is_one_row_a_row_whatever_the_cells_hold(table):
    odd = replace(table, rows=(("a|b *c*\nd", *table.rows[0][1:]), table.rows[1]))
    lines = [line for line in odd.to_markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {7}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX: apt-get install texlive-latex-recommended")
def test_latex_compiles_with_letters_that_are_commands(table, tmp_path):
    odd = replace(table, rows=(("50% & $x_1$ #2 {y}", *table.rows[0][1:]), table.rows[1]), caption="100 % of a_b")
    odd.save(tmp_path / "table.tex")
    assert "\\toprule" in odd.to_latex()
    (tmp_path / "page.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{table.tex}\\end{document}"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-800:]
    words = subprocess.run(["pdftotext", "page.pdf", "-"], cwd=tmp_path, capture_output=True, text=True).stdout
    assert "50% & $x_1$ #2 {y}" in " ".join(words.split()).replace("x 1", "x_1")


def test_bad_tables_and_files_are_errors(table, tmp_path):
    with pytest.raises(UnknownNameError, match=r"no file type 'xls'.*There are: csv, html, md, tex"):
        table.save(tmp_path / "a.xls")
    with pytest.raises(ConfigError, match="6 columns of cells wants as many in every row"):
        replace(table, rows=(("a",),))
    with pytest.raises(ConfigError, match="no run was given"):
        comparison_table([])
    (tmp_path / "file").write_text("kept")
    with pytest.raises(FptVizError, match="could not be written"):
        table.save(tmp_path / "file" / "a.tex")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX: apt-get install texlive-latex-recommended")
def test_a_table_of_long_names_is_no_wider_than_the_page_and_loses_no_word(table, tmp_path):
    name = "minilm pretrained (trained=input+layer_norm+output+position, stop_when_solved=False, n_steps=20000)"
    long = replace(table, rows=((name, *table.rows[0][1:]), (*table.rows[1][:5], name)), bold=frozenset({(0, 0)}))
    long.save(tmp_path / "table.tex")
    (tmp_path / "page.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{table.tex}\\end{document}"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-800:]
    widest = max((float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", done.stdout)), default=0.0)
    assert widest < 15
    words = subprocess.run(["pdftotext", "-raw", "page.pdf", "-"], cwd=tmp_path, capture_output=True, text=True).stdout
    shown, wanted = (re.sub("[^A-Za-z0-9=]", "", text) for text in (words, name))
    assert shown.count(wanted) == 2


def test_names_leave_out_how_closely_a_run_was_watched_unless_that_alone_sets_it_apart(runs):
    def with_train(**options: object) -> RunRecord:
        return replace(runs[0], config={**runs[0].config, "train": {**runs[0].config["train"], **options}})

    watched = [with_train(n_steps=10, telemetry_every=5), with_train(n_steps=20, telemetry_every=0)]
    assert [row.system for row in compared(watched)] == [
        "minilm pretrained (n_steps=10)",
        "minilm pretrained (n_steps=20)",
    ]
    alike = [with_train(telemetry_every=5), with_train(telemetry_every=0)]
    assert [row.system for row in compared(alike)] == [
        "minilm pretrained (telemetry_every=5)",
        "minilm pretrained (telemetry_every=0)",
    ]


def test_trained_groups_are_a_set_whatever_their_order(runs):
    ordered = [replace(with_accuracy(runs[0], 0.9, init="pretrained", seed=seed)) for seed in (0, 1)]
    groups = (["output", "input"], ["input", "output"])
    same = [replace(one, config={**one.config, "trained": own}) for one, own in zip(ordered, groups, strict=True)]
    [row] = compared(same)
    assert row.seeds == (0, 1)
    of_one_seed = [
        replace(one, config={**same[0].config, "trained": own}) for one, own in zip(same, groups, strict=True)
    ]
    assert [row.seeds for row in compared(of_one_seed)] == [(0,), (0,)]

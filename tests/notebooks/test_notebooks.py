"""Every notebook runs from top to bottom in an empty folder, quietly, and shows what it promises to show."""

from __future__ import annotations

import ast
import base64
from contextlib import nullcontext
from copy import deepcopy
import io
from itertools import pairwise
from pathlib import Path
import re
from typing import Any

from nbclient.exceptions import CellExecutionError
import nbformat
from notebook_runs import run_cells
from PIL import Image
import pytest
import torch

from fpt_viz.shipped import PACKAGE, copy_to
from fpt_viz.tasks import load_task

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
LIMIT = 240
"""Seconds for all cells; each title promises about a minute, and here other tests run beside it."""
CHOICE = "TRAIN_IT = False"
SMOKE = {
    CHOICE: "TRAIN_IT = True",
    'INIT = "minilm", "pretrained"': 'INIT = "bert-tiny-random", "random"',
    'INITS = "minilm", ("pretrained", "random")': 'INITS = "bert-tiny-random", ("random", "random")',
    "N_STEPS = 300": "N_STEPS = 4",
    "N_STEPS = 200": "N_STEPS = 4",
    "N_STEPS, EVERY = 200, 20": "N_STEPS, EVERY = 4, 2",
    "TRAIN_FEWER = False": "TRAIN_FEWER = True",
    "OTHER = None": 'OTHER = "digits"',
    "N_STEPS_OTHER, OTHER_PATCH = 300": "N_STEPS_OTHER, OTHER_PATCH = 4",
    "validate_every=10,": "validate_every=2,",
}
"""A notebook's settings -> those with which its training is tried."""


def each(paths: list[Path]) -> Any:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def code_of(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def written_by(source: str) -> tuple[str, str] | None:
    """The name and the text of the file that a cell writes; None of a cell that runs."""
    found = re.fullmatch(r"%%writefile (\S+)\n(.*)", source, re.S)
    return found and (found[1], found[2])


def statements_of(source: str) -> list[ast.stmt]:
    """What a cell runs: nothing, where it writes a file."""
    return [] if written_by(source) else ast.parse(source).body


EACH = each(NOTEBOOKS)
TRAINING = [path for path in NOTEBOOKS if CHOICE in path.read_text(encoding="utf-8")]
ALONE = [path for path in NOTEBOOKS if "lies alone" in path.read_text(encoding="utf-8")]


def test_there_are_notebooks():
    assert NOTEBOOKS


@EACH
def test_a_notebook_is_committed_without_outputs_and_defines_nothing(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
            nodes = [node for statement in statements_of(cell.source) for node in ast.walk(statement)]
            assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda) for node in nodes)


def test_the_notebooks_are_numbered_without_a_gap():
    assert [int(path.stem.partition("_")[0]) for path in NOTEBOOKS] == list(range(1, len(NOTEBOOKS) + 1))


def test_a_file_that_a_notebook_writes_is_python_with_one_public_name():
    sources = [source for path in NOTEBOOKS for source in code_of(nbformat.read(path, as_version=4))]
    files = dict(filter(None, map(written_by, sources)))
    assert set(files) == {"my_task.py", "my_backbone.py"}
    for text in files.values():
        public = [node for node in ast.parse(text).body if ast.unparse(node).startswith("__all__ = ")]
        assert [len(ast.literal_eval(node.value)) for node in public] == [1]


@EACH
def test_the_prose_states_no_result(path):
    """Percentages, decimals and names of heads come from a cell that computes them: written down, they go stale."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            assert re.findall(r"\d+(?:\.\d+)? ?%|\b\d+\.\d+|\bL\d+H\d+", cell.source) == []


@EACH
def test_a_notebook_guides(path):
    """It checks its reader with assertions, asks with hidden answers, and says what may be changed and what is next."""
    notebook = nbformat.read(path, as_version=4)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    code = "\n".join(code_of(notebook))
    assert prose.count("<details>") == prose.count("</details>") == prose.count("**Question.**") > 0
    assert code.count("# Check") == len(re.findall(r"^# Check.*\n(?:.*\n)*?assert ", code, re.M)) > 0
    assert "hange this" in code
    assert "## What next" in prose
    for told in ("**You will**", "**You need**", "On two CPU cores all cells take", "run all from the top"):
        assert told in " ".join(prose.partition("\n## ")[0].split()), f"the title does not say: {told}"


@pytest.mark.parametrize(("path", "following"), list(pairwise(NOTEBOOKS)), ids=[path.stem for path in NOTEBOOKS[:-1]])
def test_a_notebook_ends_with_the_way_to_the_following_one(path, following):
    prose = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\((\S+\.ipynb)\)", prose.partition("## What next")[2])
    assert following.name in links


@EACH
def test_the_notebooks_that_it_names_are_there(path):
    links = re.findall(
        r"\]\((\S+\.ipynb)\)", "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    )
    assert [link for link in links if not (FOLDER / link).is_file()] == []


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """What a reader has who came by ``fpt-viz lab DIR``, and the package."""
    folder = tmp_path_factory.mktemp("lab")
    copy_to(folder)
    (folder / "fpt_viz").symlink_to(PACKAGE)
    return folder


@EACH
def test_a_file_that_it_names_came_along_or_is_said_to_be_in_the_repository(path, copied):
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    named = re.findall(r"`((?:benchmarks|data|docs|fpt_viz|tests)/[\w/.]+)`(?=(.{,20}))", prose, re.S)
    lacking = [name for name, _ in named if not (copied / name).exists()]
    assert lacking == [name for name, then in named if re.match(r",?\s\(?in\sthe\srepository", then)]


def test_a_changed_task_whose_widgets_would_be_told_the_old_answers_fails_its_check(tmp_path, monkeypatch):
    code = code_of(nbformat.read(FOLDER / "09_your_own_task_and_backbone.ipynb", as_version=4))
    name, mirror = next(filter(None, map(written_by, code)))
    [check] = [source for source in code if source.startswith("# Check: each answer")]
    needed = mirror.replace("bool).flip(0)", "bool).roll(1, 0)").replace(
        "targets=bits.flip(1)", "targets=bits.roll(1, 1)"
    )
    changed = needed.replace(".long().flip(1)", ".long().roll(1, 1)")
    assert len({mirror, needed, changed}) == 3
    monkeypatch.chdir(tmp_path)
    for text, fails in ((mirror, False), (needed, True), (changed, False)):
        Path(name).write_text(text)
        given = {"task": load_task(name, n_bits=4), "N_BITS": 4, "torch": torch}
        with pytest.raises(AssertionError) if fails else nullcontext():
            exec(check, given)


def test_every_setting_that_is_made_small_stands_in_a_notebook():
    code = "\n".join(source for path in TRAINING for source in code_of(nbformat.read(path, as_version=4)))
    assert [setting for setting in SMOKE if setting not in code] == []


@pytest.fixture
def workplace(tmp_path) -> Path:
    """A folder as in a clone, with what notebooks open beside it: the records that came along, and no runs."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/results").symlink_to(ROOT / "data/results")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    return folder


def errors_said(notebook: Any) -> list[str]:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]


@pytest.mark.slow
@pytest.mark.timeout(LIMIT)
@EACH
def test_a_notebook_runs_quietly_in_time_and_shows_its_figures(path, workplace):
    notebook = nbformat.read(path, as_version=4)
    run_cells(notebook, workplace, LIMIT)
    assert errors_said(notebook) == []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        shown = [output.data for output in cell.outputs if "data" in output]
        for data in shown:
            assert has_content(data), f"nothing to see after:\n{cell.source}"
        if "display(" not in cell.source:  # a figure that is shown only where its runs are there
            assert ends_in_a_figure(cell.source) == any(PLOTLY in data for data in shown), cell.source
        assert ends_in_a_widget(cell.source) == any(WIDGET in data for data in shown), cell.source
        if ends_in_a_widget(cell.source):
            assert any(is_still(data) for data in shown), f"no still picture after:\n{cell.source}"
    assert any(ends_in_a_figure(source) for source in code_of(notebook))


@pytest.mark.slow
@pytest.mark.timeout(900)
@each(TRAINING)
def test_the_training_that_a_notebook_offers_works(path, workplace):
    notebook = nbformat.read(path, as_version=4)
    # What is checked is not there after four steps.
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith("# Check")]
    for cell in notebook.cells:
        for setting, small in SMOKE.items():
            cell.source = cell.source.replace(setting, small)
    assert "TRAIN_IT = True" in "".join(code_of(notebook))
    run_cells(notebook, workplace)
    assert errors_said(notebook) == []
    assert list((workplace.parent / "data/runs/notebooks").glob("*/result.json"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@each(ALONE)
def test_a_notebook_that_lies_alone_ends_in_an_error_of_ours(path, tmp_path, monkeypatch):
    """In the cell that opens what came along, beside which the prose says what to do."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    opening = next(cell for cell in code if re.search(r"load_(run|plan)\(", cell.source))
    notebook.cells = list({cell.id: cell for cell in (code[0], opening)}.values())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CellExecutionError, match=r"RecordError.*(holds no run|is missing)"):
        run_cells(notebook, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stem", ["08_figures_for_a_paper", "09_your_own_task_and_backbone"])
def test_a_notebook_runs_twice_in_place(stem, workplace):
    notebook = nbformat.read(FOLDER / f"{stem}.ipynb", as_version=4)
    again = deepcopy(notebook.cells)
    for cell in again:
        cell.id = f"{cell.id}-again"
    notebook.cells += again
    run_cells(notebook, workplace)
    assert errors_said(notebook) == []


def last_of(source: str) -> ast.stmt | None:
    return next(reversed(statements_of(source)), None)


def ends_in_a_figure(source: str) -> bool:
    """Whether the last value of a cell is a figure that was made in it."""
    last = last_of(source)
    if not isinstance(last, ast.Expr):
        return False
    word = ast.unparse(last)
    made = [line.split(" = ")[0] for line in source.splitlines() if re.match(r"\w+ = (fpt\.figures\.|compose\()", line)]
    return word.startswith(("fpt.figures.", "figure.add_")) or word in made


def ends_in_a_widget(source: str) -> bool:
    """Whether the last value of a cell is a widget that was made in it."""
    last = last_of(source)
    made = re.findall(r"^(\w+) = fpt\.widgets\.", source, re.M)
    return isinstance(last, ast.Expr) and ast.unparse(last) in made


def is_still(data: dict[str, Any]) -> bool:
    """Whether an output is the picture that stands in for a widget, and not a blank one."""
    found = re.search(r'class="fpt-still .*src="data:image/([^;]+);base64,([^"]+)"', str(data.get("text/html", "")))
    if found is None:
        return False
    picture = base64.b64decode(found[2])
    if found[1] == "svg+xml":
        return b"<image" in picture  # cells or a colour bar; a figure of nothing has none
    return len(set(Image.open(io.BytesIO(picture)).convert("L").tobytes())) > 10


def has_content(data: dict[str, Any]) -> bool:
    """Whether an output holds text, and each drawing in it some numbers."""
    if PLOTLY in data:
        return any(numbers_in(trace) for trace in data[PLOTLY]["data"])
    return bool("".join(data.get("text/plain", "")).strip())


def numbers_in(trace: dict[str, Any]) -> bool:
    values = [trace.get(name) or () for name in ("x", "y", "z")]
    return any(len(value["bdata"] if isinstance(value, dict) else value) > 0 for value in values)

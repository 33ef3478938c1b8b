"""The parts that the site is made with: every error and option has its entry, links lead on, notebooks become pages."""

from __future__ import annotations

import ast
from functools import cache
import io
from pathlib import Path
import re
import tokenize

import nbformat
import pytest

from fpt_viz.cli import parser

ROOT = Path(__file__).parents[2]
STEM = "01_train_and_look"


@cache
def classes_of_errors() -> frozenset[str]:
    """Names of the classes of errors, by a pattern over the code's text."""
    text = "\n".join(path.read_text("utf-8") for path in sorted((ROOT / "fpt_viz").rglob("*.py")))
    found = {"FptVizError"}
    for _ in range(3):  # deep enough for children of children
        found |= {name for name, base in re.findall(r"^class (\w+)\((\w+)\):", text, re.MULTILINE) if base in found}
    return frozenset(found)


def errors_made(path: Path) -> int:
    """How often the code at ``path`` makes an error of ours, counted by tokens."""
    known = classes_of_errors()
    tokens = list(tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline))
    return sum(
        one.string in known and after.string == "(" and before.string != "class"
        for before, one, after in zip(tokens, tokens[1:], tokens[2:], strict=False)
    )


@pytest.mark.slow
def test_the_catalogue_has_every_error_that_the_code_makes():
    from site_parts import error_catalogue

    found = [one for one in error_catalogue.messages() if one.kind != "TrapWarning"]
    for path in sorted((ROOT / "fpt_viz").rglob("*.py")):
        told = [one for one in found if one.path == path.relative_to(ROOT / "fpt_viz").as_posix()]
        assert len(told) == errors_made(path), path
    page, n_traps = error_catalogue.page(), len(error_catalogue.messages()) - len(found)
    assert f"{len(found)} messages" in page
    assert page.count("\n  <br>in ") == len(found) + n_traps
    assert len(found) > 400
    assert [one for one in found if not one.text] == []


def test_every_class_of_errors_says_how_it_is_mended():
    from site_parts import error_catalogue

    assert set(error_catalogue.CURES) == classes_of_errors() == set(error_catalogue.kinds())


def test_an_entry_says_where_and_when(tmp_path, monkeypatch):
    from site_parts import error_catalogue

    code = """
class Tall:
    def grow(self, n):
        if n < 1:
            raise ConfigError(f"wanted n above 0, got {n}")
        else:
            try:
                pass
            except OSError as error:
                raise SourceError("no" + f" file {error}") from error

def wrong(path, found):
    return RecordError(f"{path} holds {found}")

def read(path):
    raise wrong(path, "nothing")
"""
    (tmp_path / "tall.py").write_text(code)
    (tmp_path / "errors.py").write_text(
        "".join(
            f"class {kind}(FptVizError):\n    '''A {kind}.'''\n"
            for kind in ("ConfigError", "SourceError", "RecordError")
        )
    )
    monkeypatch.setattr(error_catalogue, "PACKAGE", tmp_path)
    error_catalogue._files.cache_clear()
    try:
        grow, file, helper = error_catalogue.messages()
    finally:
        error_catalogue._files.cache_clear()
    assert (grow.kind, grow.text, grow.where, grow.when) == (
        "ConfigError", "wanted n above 0, got {n}", "Tall.grow", "n < 1",
    )  # fmt: skip
    assert (file.text, file.when) == ("no file {error}", "except OSError")
    assert (helper.where, helper.when, helper.given) == ("wrong", "", ("tall.py:16 'nothing'",))


def test_the_reference_of_the_command_line_has_every_command_and_option():
    from site_parts import cli_reference

    page = cli_reference.page()
    sections = dict(re.findall(r"^## fpt-viz (\S+)$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    _, commands = parser._parsers()
    assert list(sections) == list(commands)
    for name, command in commands.items():
        rows = re.findall(r"^\| (.*?) \|", sections[name], re.MULTILINE)
        for option in command.options:
            assert any(re.search(rf"`{option}[` ]", row) for row in rows), f"{name} {option}"


@pytest.mark.parametrize(
    ("text", "home", "page", "wanted"),
    [
        ("[t](docs/tap.md#names)", "", "made/getting_started.md", "[t](../tap.md#names)"),
        ("[r](../data/RESULTS.md)", "docs", "experiments.md", "[r](made/results.md)"),
        ("[n](02_what_heads_carry.ipynb)", "notebooks", "made/notebooks/01.md", "[n](02_what_heads_carry.md)"),
        ("[p](examples/bit_lab.html)", "docs", "widgets.md", '<a href="examples/bit_lab.html">p</a>'),
        ("![a](data/pictures/head_grid.png)", "", "made/x.md", "![a](../../data/pictures/head_grid.png)"),
        ("[the code](fpt_viz/train.py)", "", "made/x.md", "the code (`fpt_viz/train.py`)"),
        ("[fpt_viz/train.py](fpt_viz/train.py)", "", "made/x.md", "`fpt_viz/train.py`"),
        ("[a](https://arxiv.org/abs/1) [b](#here)", "", "made/x.md", "[a](https://arxiv.org/abs/1) [b](#here)"),
        ("[no](such.md)", "docs", "x.md", "[no](such.md)"),
        ("```\n[t](docs/tap.md)\n```\n", "", "made/x.md", "```\n[t](docs/tap.md)\n```\n"),
    ],
)
def test_a_link_leads_where_the_site_has_the_file(text, home, page, wanted):
    from site_parts.links import relinked

    assert relinked(text, home, page) == wanted


def test_a_notebook_becomes_a_page_with_what_its_cells_showed(kept, executed):
    from site_parts import notebook_pages

    [place] = kept.iterdir()
    page = notebook_pages.markdown(executed, STEM, place)
    assert 'aria-label="A heatmap of four cells &lt;no tag&gt;"' in page
    assert f'<iframe src="../../widgets/{STEM}/cell-2.html" title="Grid of 4 heads"' in page
    assert "Widget()" not in page
    assert '<pre class="cell-output">a &lt; b</pre>' in page
    assert "<table>\n<tr><td>7</td></tr></table>" in page
    assert "\nplotly: true\n" in page
    bare = notebook_pages.markdown(executed, STEM, None)
    assert "iframe" not in bare
    assert "fpt-still" in bare


def test_a_change_of_what_a_notebook_depends_on_makes_it_run_again(tmp_path, monkeypatch):
    from site_parts import notebooks

    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    paths = [tmp_path / name for name in ("n.ipynb", "fpt_viz/a.py", "data/results/notebooks/r/steps.jsonl")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    seen = {notebooks.fingerprint(paths[0])}
    for path in paths:
        path.write_text("23")
        seen.add(notebooks.fingerprint(paths[0]))
    assert len(seen) == 4


@pytest.mark.slow
def test_a_notebook_that_ran_is_kept_with_its_widgets_and_not_run_again(tmp_path):
    from site_parts import notebooks

    code = (
        "import torch\nimport fpt_viz as fpt\n"
        "fpt.widgets.AttentionExplorer(torch.full((1, 1, 1, 2, 2), 0.5))"
    )  # fmt: skip
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(code),
            nbformat.v4.new_code_cell("import os\nprint(sorted(os.listdir('../data')))"),
        ]
    )
    nbformat.write(notebook, tmp_path / "small.ipynb")
    ran, place = notebooks.executed(tmp_path / "small.ipynb", tmp_path / "kept", "run")
    assert [cell.cell_type for cell in ran.cells] == ["code", "code"]
    assert ran.cells[1].outputs[0].text == "['results']\n"
    assert [page.name for page in place.glob("*.html")] == [ran.cells[0].metadata.site_page]
    assert "<title>AttentionExplorer</title>" in (place / ran.cells[0].metadata.site_page).read_text("utf-8")
    before = (place / "notebook.ipynb").stat().st_mtime_ns
    notebooks.executed(tmp_path / "small.ipynb", tmp_path / "kept", "run")
    assert (place / "notebook.ipynb").stat().st_mtime_ns == before


def test_the_parts_of_the_site_are_as_small_as_the_library():
    for path in (ROOT / "docs/site_parts").glob("*.py"):
        text = path.read_text("utf-8")
        assert len(text.splitlines()) <= 300
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert ast.get_docstring(node) or node.name.startswith("_"), f"{path.name}: {node.name}"

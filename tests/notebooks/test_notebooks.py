"""Every notebook runs from top to bottom in an empty folder, quietly, and shows what it promises to show."""

from __future__ import annotations

import ast
import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import re
from typing import Any

from nbclient import NotebookClient
import nbformat
import pytest
from traitlets.config import Config

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
PLOTLY = "application/vnd.plotly.v1+json"


def code_of(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


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
            nodes = list(ast.walk(ast.parse(cell.source)))
            assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda) for node in nodes)


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


@pytest.mark.slow
@pytest.mark.timeout(900)
@EACH
def test_a_notebook_runs_quietly_and_shows_its_figures(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the kernel's sockets lie where both it and its client are
    notebook = nbformat.read(path, as_version=4)
    quiet = Config({"KernelManager": {"transport": "ipc"}})  # over TCP the kernel warns that it is not encrypted
    resources = {"metadata": {"path": str(tmp_path)}}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", config=quiet, resources=resources)
    with ThreadPoolExecutor(1) as thread:  # of its own: a browser that is open in this one holds its event loop
        thread.submit(lambda: asyncio.run(client.async_execute())).result()
    outputs = [(cell, output) for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    said = [output.text for _, output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert said == []
    shown = [(cell.source, output.data) for cell, output in outputs if "data" in output]
    for source, data in shown:
        assert has_content(data), f"nothing to see after:\n{source}"
    drawn = [cell.source for cell in notebook.cells if cell.cell_type == "code" and ends_in_a_figure(cell.source)]
    assert drawn
    assert drawn == [source for source, data in shown if PLOTLY in data]


def ends_in_a_figure(source: str) -> bool:
    last = source.strip().splitlines()[-1]
    return last.startswith(("fpt.figures.", "figure.add_"))


def has_content(data: dict[str, Any]) -> bool:
    """Whether an output holds text, and each drawing in it some numbers."""
    if PLOTLY in data:
        return any(numbers_in(trace) for trace in data[PLOTLY]["data"])
    return bool("".join(data.get("text/plain", "")).strip())


def numbers_in(trace: dict[str, Any]) -> bool:
    values = [trace.get(name) or () for name in ("x", "y", "z")]
    return any(len(value["bdata"] if isinstance(value, dict) else value) > 0 for value in values)

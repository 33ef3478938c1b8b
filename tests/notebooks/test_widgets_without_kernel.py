"""A saved notebook with widgets: what a reader sees who has no kernel and no network."""

from __future__ import annotations

from nbconvert import HTMLExporter
import nbformat
from notebook_runs import run_cells
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(300)]

CODE = """import torch
import fpt_viz as fpt
attention = torch.rand(2, 2, 3, 5, 5, generator=torch.Generator().manual_seed(0)).softmax(-1)
fpt.widgets.AttentionExplorer(attention)"""
OWN_OF_NBCONVERT = ("require", "mathjax", "MathJax", "html-manager", "unpkg", "jsdelivr", "cdnjs")
"""What nbconvert's own page asks for, whatever the notebook holds."""
QUIET = {"require_js_url": "", "mathjax_url": "", "widget_renderer_url": "data:text/javascript,"}
"""The switches of nbconvert that silence it."""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A notebook with one widget, run, and saved with the widget's state as nbclient does."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CODE)])
    run_cells(notebook, tmp_path_factory.mktemp("run"), timeout=120)
    return notebook


@pytest.fixture
def read_offline(chromium, tmp_path):
    """A function that opens a notebook as nbconvert's page without a network; what went wrong is returned with it."""
    contexts = []

    def read(notebook, **options):
        path = tmp_path / "page.html"
        path.write_text(HTMLExporter(**options).from_notebook_node(notebook)[0], encoding="utf-8")
        context = chromium.new_context(offline=True)
        contexts.append(context)
        page, wrong = context.new_page(), []
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("requestfailed", lambda asked: wrong.append(f"asked for {asked.url}"))
        page.goto(path.as_uri())
        page.wait_for_timeout(300)
        return page, wrong

    yield read
    for context in contexts:
        context.close()


def shown_still(page) -> bool:
    still = page.locator(".fpt-still img")
    return still.count() == 1 and still.is_visible() and still.bounding_box()["width"] > 100


def without_state(notebook):
    found = nbformat.from_dict(notebook)
    found.metadata.pop("widgets", None)
    return found


def test_the_still_picture_is_there_with_the_words_for_it(executed, read_offline):
    page, wrong = read_offline(executed)
    assert shown_still(page)
    assert page.locator(".fpt-still img").get_attribute("alt").startswith("Grid of mean attention patterns")
    assert [one for one in wrong if not any(name in one for name in OWN_OF_NBCONVERT)] == []


def test_without_saved_state_the_still_picture_is_there_once(executed, read_offline):
    page, _ = read_offline(without_state(executed))
    assert shown_still(page)


def test_the_switches_that_the_docs_give_silence_all(executed, read_offline):
    page, wrong = read_offline(executed, **QUIET)
    assert shown_still(page)
    assert wrong == []


def test_the_saved_notebook_has_no_plotly_in_it(executed):
    assert len(nbformat.writes(executed)) < 700_000

"""The widgets of the guided notebooks in a real JupyterLab, on the records that came with them."""

from __future__ import annotations

from pathlib import Path
import re

import nbformat
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
FAILED = '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]'
STEMS = ("02_what_heads_carry", "03_image_patches", "05_what_moved_a_head", "06_picture_to_cause")
"""Between them they show every widget that a notebook shows."""


def to_the_last_widget(path: Path) -> tuple[nbformat.NotebookNode, int]:
    """The cells up to the last that shows a widget, and how many show one."""
    notebook = nbformat.read(path, as_version=4)
    showing = [i for i, cell in enumerate(notebook.cells) if re.search(r"^\w+ = fpt\.widgets\.", cell.source, re.M)]
    notebook.cells = notebook.cells[: showing[-1] + 1]
    return notebook, len(showing)


@pytest.mark.parametrize("stem", STEMS)
def test_every_widget_of_a_notebook_comes_alive(stem, lab, lab_page, tmp_path):
    folder = lab.root / stem / "notebooks"
    folder.mkdir(parents=True)
    (lab.root / stem / "data").symlink_to(ROOT / "data")
    path = folder / f"{stem}.ipynb"
    notebook, n_widgets = to_the_last_widget(ROOT / "notebooks" / path.name)
    nbformat.write(notebook, path)

    page = lab_page(path)
    finished = page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")

    assert (finished, page.locator(FAILED).all_inner_texts()) == (True, [])
    widgets, stills = page.locator(".fpt[data-ready=true]"), page.locator(".fpt-still")
    widgets.nth(n_widgets - 1).wait_for()
    assert widgets.count() == n_widgets
    for i in range(n_widgets):
        box = widgets.nth(i).bounding_box()
        assert box["width"] > 300
        assert box["height"] > 150
        assert not stills.nth(i).is_visible()
        widgets.nth(i).screenshot(path=tmp_path / f"{stem}_{i}.png")
    assert page.wrong == []

"""The notebooks' figures in a real JupyterLab, as a reader sees them."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks/01_train_and_look.ipynb"
SMALLER = {
    'fpt.load_backbone("minilm")': 'fpt.load_backbone("bert-tiny-random", "random")',
    "N_STEPS = 200": "N_STEPS = 20",
}
"""What makes the notebook a matter of seconds; it then solves nothing, so its checks are left out."""
FAILED = '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]'


def small_copy(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith("# Check")]
    for text, replacement in SMALLER.items():
        found = [cell for cell in notebook.cells if cell.cell_type == "code" and text in cell.source]
        assert len(found) == 1, f"{text!r} stands in {len(found)} cells"
        found[0].source = found[0].source.replace(text, replacement)
    return notebook


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.timeout(600)
def test_every_figure_of_the_first_notebook_is_drawn(lab, lab_page, tmp_path):
    folder = lab.root / "first/notebooks"
    folder.mkdir(parents=True)
    (folder.parent / "data").symlink_to(ROOT / "data")
    path = folder / NOTEBOOK.name
    notebook = small_copy(NOTEBOOK)
    nbformat.write(notebook, path)
    page = lab_page(path)
    finished = page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    assert (finished, page.locator(FAILED).all_inner_texts()) == (True, [])

    figures = [
        cell
        for cell in notebook.cells
        if cell.source.strip().splitlines()[-1].startswith(("fpt.figures.", "figure.add_"))
    ]
    plots = page.locator(".jp-OutputArea .js-plotly-plot")
    plots.nth(len(figures) - 1).locator(".main-svg").first.wait_for(state="attached")
    assert plots.count() == len(figures) > 0
    for i in range(len(figures)):
        drawn = plots.nth(i).locator(".heatmaplayer image, .scatterlayer path, .barlayer path, .imagelayer image")
        drawn.first.wait_for(state="attached")
        box = plots.nth(i).bounding_box()
        assert box["width"] > 300
        assert box["height"] > 150
        plots.nth(i).screenshot(path=tmp_path / f"figure-{i}.png")
    assert page.wrong == []

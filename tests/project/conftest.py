"""What the tests of the site share: its parts can be imported, and one notebook looks as if it had run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = "01_train_and_look"
FIGURE = {
    "application/vnd.plotly.v1+json": {"data": [{"type": "heatmap", "z": [[0, 1], [1, 0]]}], "layout": {"height": 300}},
    "text/plain": "A heatmap of four cells <no tag>",
}
STILL = '<div class="fpt-still"><img alt="Grid of 4 heads" src="data:image/gif;base64,R0lGODlhAQABAAAAACw="></div>'
VIEW = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "Widget()"}


@pytest.fixture(scope="session", autouse=True)
def _the_parts_can_be_imported() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        yield


@pytest.fixture
def executed() -> nbformat.NotebookNode:
    """See :func:`_executed`."""
    return _executed()


def _executed() -> nbformat.NotebookNode:
    """The first notebook as if it had run: a figure, a widget, a table and words below its cells."""
    from site_parts import notebooks

    notebook = nbformat.read(notebooks.FOLDER / f"{NOTEBOOK}.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells[0].outputs = [nbformat.v4.new_output("display_data", FIGURE)]
    cells[1].outputs = [
        nbformat.v4.new_output("display_data", VIEW),
        nbformat.v4.new_output("display_data", {"text/html": STILL, "text/plain": ""}),
    ]
    cells[1].metadata["site_page"] = "cell-2.html"
    cells[2].outputs = [nbformat.v4.new_output("stream", name="stdout", text="\x1b[31ma < b\x1b[0m\n")]
    cells[3].outputs = [
        nbformat.v4.new_output("display_data", {"text/html": "<table>\n\n  <tr><td>7</td></tr></table>"})
    ]
    return notebook


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with that notebook, where the site looks for those that ran."""
    from site_parts import notebooks
    import torch

    import fpt_viz as fpt

    folder = tmp_path_factory.mktemp("kept")
    place = folder / f"{NOTEBOOK}-{notebooks.fingerprint(notebooks.FOLDER / f'{NOTEBOOK}.ipynb')}"
    place.mkdir()
    nbformat.write(_executed(), place / "notebook.ipynb")
    attention = torch.rand(2, 1, 2, 4, 4, generator=torch.Generator().manual_seed(0)).softmax(-1)
    fpt.widgets.AttentionExplorer(attention).to_html(place / "cell-2.html")
    return folder

"""Notebooks run for the site, and kept until something changes that they depend on."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
import hashlib
import logging
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any

from nbclient import NotebookClient
import nbformat
from traitlets.config import Config

from site_parts.links import ROOT

FOLDER = ROOT / "notebooks"
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
SAVES = "site-saves-the-widget"
"""The tag of a cell that only the site runs: it keeps the widget before it as one offline page."""
SAVE_THE_LAST = """
from pathlib import Path as _Path
from fpt_viz.widgets.base import Widget as _Widget
_n_before = globals().get("_n_shown", 0)
_n_shown = len(Out)
_shown = Out[max(Out)] if _n_shown > _n_before else None  # nothing where the cell above showed nothing
if isinstance(_shown, _Widget):
    _Path({folder!r}).mkdir(parents=True, exist_ok=True)
    _written = _shown.to_html(_Path({folder!r}) / "{name}.html")
"""


def fingerprint(path: Path) -> str:
    """Of a notebook and of all that its outputs follow from: the library and the records that it opens."""
    digest = hashlib.sha256(path.read_bytes())
    library = sorted(one for one in (ROOT / "fpt_viz").rglob("*") if one.suffix in {".py", ".js", ".css", ".txt"})
    for one in library:
        digest.update(one.read_bytes())
    for one in sorted((ROOT / "data/results/notebooks").rglob("*")):
        if one.is_file() and one.suffix != ".lock":
            digest.update(f"{one.relative_to(ROOT)} {one.stat().st_size}".encode())
    return digest.hexdigest()[:16]


def executed(path: Path, kept: Path, mode: str) -> tuple[Any, Path | None]:
    """The notebook at ``path`` with outputs, and the folder with its widgets' pages; None where it has not run.

    Args:
        path: An ``.ipynb`` without outputs.
        kept: Where notebooks that ran are kept, each in a folder of its name and fingerprint.
        mode: ``"run"`` runs it unless it is kept as it is; ``"kept"`` takes it as it last ran, whatever changed since;
            ``"bare"`` shows its cells alone.
    """
    place = kept / f"{path.stem}-{fingerprint(path)}"
    if mode == "run" and not (place / "notebook.ipynb").exists():
        _run(path, place)
    if mode == "kept" and not place.exists():
        place = max(kept.glob(f"{path.stem}-*"), key=lambda one: one.stat().st_mtime, default=place)
    if mode == "bare" or not (place / "notebook.ipynb").exists():
        return nbformat.read(path, as_version=4), None
    return nbformat.read(place / "notebook.ipynb", as_version=4), place


def _run(path: Path, place: Path) -> None:
    """Run all cells in a kernel of their own, in a folder as in a fresh clone; an error in one of them is raised."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [one for n, cell in enumerate(notebook.cells) for one in (cell, *_saving(cell, n, place))]
    with tempfile.TemporaryDirectory() as folder:
        workplace = Path(folder) / "notebooks"
        workplace.mkdir()
        (workplace.parent / "data").mkdir()
        (workplace.parent / "data/results").symlink_to(ROOT / "data/results")
        quiet = Config({"KernelManager": {"transport": "ipc"}})  # over TCP the kernel warns that it is not encrypted
        resources = {"metadata": {"path": str(workplace)}}
        client = NotebookClient(notebook, timeout=900, kernel_name="python3", config=quiet, resources=resources)
        client.log.setLevel(logging.WARNING)  # else it says that it starts
        before = Path.cwd()
        os.chdir(workplace)  # the kernel's sockets lie where both it and its client are
        try:
            with ThreadPoolExecutor(1) as thread:
                thread.submit(lambda: asyncio.run(client.async_execute(env=_offline()))).result()
        finally:
            os.chdir(before)
    notebook.cells = [cell for cell in notebook.cells if SAVES not in cell.metadata.get("tags", [])]
    notebook.metadata.pop("widgets", None)
    place.mkdir(parents=True, exist_ok=True)
    for old in place.parent.glob(f"{path.stem}-*"):
        if old != place:
            shutil.rmtree(old)
    nbformat.write(notebook, place / "notebook.ipynb")


def _offline() -> dict[str, str]:
    return os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def _saving(cell: Any, number: int, place: Path) -> list[Any]:
    """A cell that keeps the widget that ``cell`` may end in."""
    if cell.cell_type != "code":
        return []
    code = SAVE_THE_LAST.format(folder=str(place.resolve()), name=f"cell-{number}")
    cell.metadata["site_page"] = f"cell-{number}.html"
    return [nbformat.v4.new_code_cell(code, metadata={"tags": [SAVES]})]

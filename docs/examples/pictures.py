"""Make the pictures of the README from a shipped record and an example page; wants Chromium.

``python docs/examples/pictures.py`` writes ``head_grid.png`` and ``attention_explorer.png`` to ``data/pictures``.
"""

from __future__ import annotations

import os
from pathlib import Path
import shutil
import sys

from playwright.sync_api import sync_playwright

import fpt_viz as fpt
from fpt_viz.errors import SourceError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RUN = ROOT / "data/results/notebooks/xor-pretrained"
PICTURES = ROOT / "data/pictures"
HEAD = (0, 10)
"""The head that reads the partner bits most, by its routing score on validation."""
SIZE = {"width": 1280, "height": 640}
"""Of the screenshot, in pixels."""


def head_grid() -> Path:
    """The mean attention of every head on test, the one with the highest score on validation outlined."""
    statistics = fpt.load_run(RUN).statistics("test")
    assert statistics is not None, f"{RUN} has no statistics on test"
    path = PICTURES / "head_grid.png"
    fpt.figures.head_grid(statistics, highlight=[HEAD]).save(path, preset="paper-wide", dpi=260)
    path.with_name(f"{path.name}.json").unlink()  # how it is made stands here
    return path


def screenshot() -> Path:
    """The widget's offline page as it opens."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise SourceError("no Chromium: install it (Debian: apt-get install chromium) or name one in CHROMIUM")
    path = PICTURES / "attention_explorer.png"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.goto((HERE / "attention_explorer.html").as_uri())
        page.locator("h4", has_text=f"L{HEAD[0]}H{HEAD[1]}").wait_for()  # the page opens at the best head
        page.wait_for_timeout(500)  # drawn
        page.screenshot(path=path)
        browser.close()
    return path


def main() -> None:
    """Write both, and say their sizes."""
    for path in (head_grid(), screenshot()):
        sys.stdout.write(f"{path.name} {path.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()

"""A JupyterLab of its own for the tests, and pages of it in headless Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from lab_server import KERNEL_IDLE, Lab, running
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on loopback, with none of the user's settings and leaving none."""
    with running(tmp_path_factory.mktemp("lab")) as server:
        yield server


@pytest.fixture
def lab_page(lab: Lab, chromium: Browser) -> Iterator[Callable[..., Page]]:
    """A function that opens a notebook in the server's folder, and waits for its kernel.

    ``app`` is ``"lab"``, or ``"notebook"`` for Notebook 7. The page's ``wrong`` lists errors of the console and
    requests to other hosts.
    """
    context = chromium.new_context(viewport={"width": 1400, "height": 2000})

    def opened(path: Path, *, app: str = "lab") -> Page:
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.wrong = []
        page.on("pageerror", lambda error: page.wrong.append(f"error: {error}"))
        page.on("console", lambda said: said.type == "error" and page.wrong.append(f"console: {said.text}"))
        page.on("request", lambda asked: asked.url.startswith("http") and _note_foreign(page, asked.url))
        where = "lab/tree" if app == "lab" else "notebooks"
        page.goto(f"{lab.url}{where}/{path.relative_to(lab.root)}?reset&token={lab.token}")
        page.wait_for_function(KERNEL_IDLE)
        page.locator("#jupyterlab-splash").wait_for(state="detached")
        return page

    def _note_foreign(page: Page, url: str) -> None:
        if not url.startswith(lab.url):
            page.wrong.append(f"asked for {url}")

    yield opened
    for page in context.pages:
        with contextlib.suppress(Exception):  # whatever became of the page, its kernel must not stay
            page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    context.close()

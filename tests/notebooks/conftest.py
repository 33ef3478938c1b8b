"""A JupyterLab of its own for the tests, and pages of it in headless Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import ctypes
import json
import os
from pathlib import Path
import secrets
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple
import urllib.request

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SETTINGS: dict[str, dict[str, Any]] = {
    "@jupyterlab/apputils-extension:notification": {"checkForUpdates": False, "fetchNews": "false"},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},  # every cell is in the page
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}
KERNEL_IDLE = """() => {
  const widget = window.jupyterapp && window.jupyterapp.shell.currentWidget;
  const session = widget && widget.sessionContext && widget.sessionContext.session;
  const kernel = session && session.kernel;
  return !!kernel && kernel.connectionStatus === 'connected' && kernel.status === 'idle';
}"""


class Lab(NamedTuple):
    """A running server."""

    url: str
    token: str
    root: Path


def _die_with_parent() -> None:
    """Let a killed pytest leave no server behind (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on loopback, with none of the user's settings and leaving none."""
    folder = tmp_path_factory.mktemp("lab")
    root, settings = folder / "root", folder / "config/labconfig"
    root.mkdir()
    settings.mkdir(parents=True)
    (settings / "default_setting_overrides.json").write_text(json.dumps(SETTINGS))
    token = secrets.token_hex(16)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON"))}
    environment |= {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_TOKEN": token,
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    options = ("--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", f"--ServerApp.root_dir={root}")
    options += ("--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True")
    options += ("--KernelManager.transport=ipc",)
    log = folder / "lab.log"
    with log.open("wb") as written:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env=environment, cwd=root, stdout=written, stderr=subprocess.STDOUT, preexec_fn=_die_with_parent,
        )  # fmt: skip
    try:
        yield Lab(_url_once_it_answers(server, folder, token, log), token, root)
    finally:
        server.terminate()  # the server stops its kernels, too
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _url_once_it_answers(server: subprocess.Popen[bytes], folder: Path, token: str, log: Path) -> str:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()[-3000:]
        with contextlib.suppress(OSError, ValueError):
            url = str(json.loads((folder / f"runtime/jpserver-{server.pid}.json").read_text())["url"])
            headers = {"Authorization": f"token {token}"}
            urllib.request.urlopen(urllib.request.Request(f"{url}api/status", headers=headers), timeout=5).read()
            return url
        time.sleep(0.1)
    raise AssertionError(f"no answer from JupyterLab: {log.read_text()[-3000:]}")


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

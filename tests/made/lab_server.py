"""A JupyterLab of its own on loopback, with none of the user's settings and leaving none."""

from __future__ import annotations

from collections.abc import Iterator
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
from typing import Any, NamedTuple
import urllib.request

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


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Lab]:
    """A server that keeps all its files below ``folder``, which must not be there yet or be empty."""
    root, settings = folder / "root", folder / "config/labconfig"
    root.mkdir(parents=True)
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
        yield Lab(url_once_it_answers(server, folder, token, log), token, root)
    finally:
        server.terminate()  # the server stops its kernels, too
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def url_once_it_answers(server: subprocess.Popen[bytes], folder: Path, token: str, log: Path) -> str:
    """Where a server listens that keeps its runtime files in ``folder/runtime`` and writes to ``log``."""
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

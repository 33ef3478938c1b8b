"""Notebooks run from top to bottom in a kernel of their own, for any test."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
import contextlib
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from traitlets.config import Config


def run_cells(notebook: Any, folder: Path, timeout: int = 600) -> None:
    """Run all cells in a new kernel that works in ``folder``; an error in one of them is raised.

    In a thread of its own, since a browser that is open in this one holds its event loop; and on an event loop that
    ends with it: ``NotebookClient.execute`` leaves its own open, which any later test is then told of as an error.
    """
    quiet = Config({"KernelManager": {"transport": "ipc"}})  # over TCP the kernel warns that it is not encrypted
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", config=quiet, resources=resources)
    with contextlib.chdir(folder), ThreadPoolExecutor(1) as thread:  # its sockets lie where both it and its client are
        thread.submit(lambda: asyncio.run(client.async_execute())).result()

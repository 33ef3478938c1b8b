"""A CUDA device for the tests of this folder: a real one, or where ``FPT_VIZ_PRETENDED_CUDA=1``, a pretended one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import os

import pytest
import torch

PRETENDED = os.environ.get("FPT_VIZ_PRETENDED_CUDA") == "1"
if PRETENDED:
    import pretended_cuda

    pretended_cuda.install()

Silence = Callable[[], contextlib.AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def silent() -> Iterator[Silence]:
    """Blocks in which the host may not wait for the device."""
    if not PRETENDED:
        yield _no_synchronisation
        return
    with pretended_cuda.PretendedDevice() as device:

        @contextlib.contextmanager
        def silence() -> Iterator[None]:
            before = len(device.waits)
            yield
            assert not device.waits[before:], f"the host waited for {device.waits[before:]}"

        yield silence


@contextlib.contextmanager
def _no_synchronisation() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")

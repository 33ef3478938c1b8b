"""What all tests share: shape checks at run time, one thread a worker, seeded randomness, and no silent skip in CI."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import re
import shutil
import signal
from typing import TYPE_CHECKING, Any

import jaxtyping
import pytest

if TYPE_CHECKING:
    from hub_server import FakeHub
    from playwright.sync_api import Browser
    import torch

IN_CI = os.environ.get("CI", "").lower() == "true"
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ

# Every shape and type in our annotations is checked while tests run, and at no other time.
jaxtyping.install_import_hook("fpt_viz", "beartype.beartype")

# Nothing may be downloaded: a test that tries fails at once, with the name of what it asked for.
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "agg"}
if IS_WORKER:  # two workers on two cores: more threads than one each only get in each other's way
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

# A shell lets what it starts in the background ignore Ctrl-C, and children inherit that; tests send it to theirs.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


FAMILY = re.compile(r"(?:^|-)(llama|vit|t5|longformer|lstm)(?=-|$)")
"""A family of backbones in the id of a test; ``bert`` and ``gpt2`` are not among them."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is slow only because there are many families, and leave out what no machine here can run.

    Tests that run over every family of backbones run on bert and gpt2 in the quick part, and on all in ``make test``.
    Tests marked ``cuda`` are left out where there is no such device: no machine of CI has one.
    """
    for item in items:
        family = FAMILY.search((getattr(item, "callspec", None) and item.callspec.id) or "")
        if family and family[1] not in item.path.stem:
            item.add_marker(pytest.mark.slow)
    if not any(item.get_closest_marker("cuda") for item in items):
        return
    import torch

    if not torch.cuda.is_available():
        left_out = [item for item in items if item.get_closest_marker("cuda")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("cuda")]


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, and CI=true allows no skip. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[Any]:
    """Where CI=true, a skipped test is a failed one."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[Any]:
    """Where CI=true, a file that skips itself is a failed one."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top of the checkout."""
    return Path(__file__).parents[1]


@pytest.fixture
def rng() -> torch.Generator:
    """A generator with a fixed seed, so that a test draws the same examples each time."""
    import torch

    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _global_rng_of_each_test_is_its_own() -> Iterator[None]:
    """Start each test at one global seed and leave no trace of it, so that no test depends on those before it."""
    import numpy as np
    import torch

    before = torch.get_rng_state(), np.random.get_state()
    torch.manual_seed(0)
    np.random.seed(0)
    yield
    torch.set_rng_state(before[0])
    np.random.set_state(before[1])


CHROMIUM_FLAGS = (
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The system's Chromium, headless; the environment variable CHROMIUM names another one."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium: install it (Debian: apt-get install chromium) or name one in CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def _made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small made set for every task that reads files, and a place for the user's cache beside it."""
    import made_homology
    from made_images import write_small_sets

    root = tmp_path_factory.mktemp("made_data")
    write_small_sets(root / "data")
    made_homology.write_json(made_homology.made(), root / "data" / "remote_homology")
    return root


@pytest.fixture
def made_data(_made_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every data set is a small made one for the time of a test; the folder that ``FPT_VIZ_DATA`` names."""
    monkeypatch.setenv("FPT_VIZ_DATA", str(_made_data / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(_made_data / "cache"))
    return _made_data / "data"


@pytest.fixture
def hub_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A Hub of our own on loopback that holds nothing yet, and an empty cache of our own."""
    from hub_server import FakeHub, serving

    from fpt_viz import hub

    with serving(FakeHub()) as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.endpoint)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        yield fake

"""In CI a test that skips itself fails: tests/conftest.py, tried on a few tests of its own."""

from __future__ import annotations

import os
from pathlib import Path
import shutil
import subprocess
import sys

import pytest

HERE = Path(__file__).parent
SKIPS = """
import pytest

def test_skips():
    pytest.skip("no browser here")

@pytest.mark.skipif(True, reason="not today")
def test_is_marked():
    pass

@pytest.fixture
def absent():
    pytest.skip("no such thing")

def test_has_a_fixture_that_skips(absent):
    pass

@pytest.mark.xfail(strict=True, reason="known")
def test_is_known_to_fail():
    assert False

def test_passes():
    pass
"""
MODULE_SKIPS = """
import pytest

pytest.importorskip("a_module_that_nobody_has")
"""


def summary_of(code: str, folder: Path, *, ci: str) -> str:
    """The last line that pytest prints for the tests in ``code`` under our conftest.py."""
    shutil.copy(HERE.parent / "conftest.py", folder)
    (folder / "test_planted.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", str(folder)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | {"CI": ci}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    return result.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("code", "ci", "counts"),
    [
        (SKIPS, "true", "1 failed, 1 passed, 1 xfailed, 2 errors"),
        pytest.param(SKIPS, "false", "1 passed, 3 skipped, 1 xfailed", marks=pytest.mark.slow),
        pytest.param(MODULE_SKIPS, "true", "1 error", marks=pytest.mark.slow),
        pytest.param(MODULE_SKIPS, "false", "1 skipped", marks=pytest.mark.slow),
    ],
)
def test_where_ci_is_true_a_skip_is_a_failure(code, ci, counts, tmp_path):
    assert summary_of(code, tmp_path, ci=ci).startswith(counts)

"""Where there is no CUDA device, the tests that need one run on a pretended one, in a process of their own."""

from __future__ import annotations

import os
from pathlib import Path
import re
import shutil
import subprocess
import sys

import pretended_cuda
import pytest
import torch

pytestmark = pytest.mark.slow

FILES = ("test_training_on_cuda.py", "test_reading_on_cuda.py", "test_benchmarks_on_cuda.py")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler: install one (Debian: apt-get install g++) or name one in CXX")
    return pretended_cuda.build(compiler, tmp_path_factory.mktemp("pretended"))


@pytest.mark.skipif(sys.platform != "linux", reason="the library is loaded before torch by LD_PRELOAD")
@pytest.mark.parametrize("file", FILES)
def test_what_needs_a_cuda_device_passes_on_a_pretended_one(file, library, repository):
    if torch.version.cuda is not None:
        pytest.skip("this torch has a CUDA of its own: pytest -m cuda uses it")
    folder = repository / "tests/on_cuda"
    assert {path.name for path in folder.glob("test_*.py")} == set(FILES)
    environment = os.environ | {"LD_PRELOAD": str(library), "FPT_VIZ_PRETENDED_CUDA": "1", "CI": "true"}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", str(folder / file)]
    done = subprocess.run(command, env=environment, cwd=repository, capture_output=True, text=True, timeout=280)
    passed = re.search(r"^(\d+) passed", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stdout[-4000:]
    assert passed, done.stdout[-400:]
    assert int(passed[1]) >= 4

"""One small run, made by the command line itself, and a way to call it as a user would."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
import shutil
from typing import Any, NamedTuple

import pytest

from fpt_viz.cli import main

TINY = ("--task", "bit_xor", "--backbone", "bert-tiny-random", "--init", "random")
SMALL = ("--set", "n_bits=3", "n_steps=6", "validate_every=3", "batch_size=8")


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1
        return dict(json.loads(self.out))


Call = Callable[..., Said]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process."""

    def called(*argv: object) -> Said:
        capsys.readouterr()
        code = main([str(word) for word in argv])
        return Said(code, *capsys.readouterr())

    return called


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on a tiny random network; not to be written to."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", *TINY, *SMALL, "--out", str(out)]) == 0
    return out


@pytest.fixture
def run_folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, for one test alone."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="session")
def measured(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with everything that a figure may need saved beside it; not to be written to."""
    folder = str(shutil.copytree(trained, tmp_path_factory.mktemp("runs") / "measured"))
    for command in (["statistics"], ["ablate"], ["capture"]):
        assert main([*command, folder]) == 0
    assert main(["measure", "ablate_top_heads", folder, "--set", "ks=[1, 2]", "n_random=3"]) == 0
    assert main(["measure", "patch_activations", folder, "--set", "site=z"]) == 0
    return Path(folder)

"""What the repository may hold: nothing unsafe, nothing heavy, nothing left open, nothing of one machine."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
import re
import subprocess

import pytest

REPOSITORY = Path(__file__).parents[2]
LISTED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=REPOSITORY, capture_output=True, text=True, check=True,
).stdout.splitlines()  # fmt: skip
FILES = [REPOSITORY / name for name in LISTED if (REPOSITORY / name).is_file()]
LIBRARY = [path for path in FILES if path.suffix == ".py" and path.is_relative_to(REPOSITORY / "fpt_viz")]
NOTEBOOKS = [path for path in FILES if path.suffix == ".ipynb"]
TEXTS = [path for path in FILES if path.suffix in {".py", ".md", ".toml", ".yml", ".txt", ".jinja", ".html", ".js", ""}]
SET_UP = [REPOSITORY / name for name in ("pyproject.toml", "constraints.txt", "environment.yml", "Makefile", ".ci/run")]

UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "torch.load", "pd.read_pickle", "os.system", "os.popen", "yaml.load"}
UNSAFE_OPTIONS = {"trust_remote_code", "shell", "allow_pickle"}


KNOWN = {"fpt_viz/registry.py": ["calls compile", "calls exec"]}
"""A file of the user's own, which the user names: the bytes that were hashed are those that run."""


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def unsafe_in(code: str) -> Iterator[str]:
    """What in ``code`` runs code from a file or a shell."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            roots = {(getattr(node, "module", None) or alias.name).split(".")[0] for alias in node.names}
            yield from (f"line {node.lineno}: imports {root}" for root in roots & UNSAFE_MODULES)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in UNSAFE_CALLS:
                yield f"line {node.lineno}: calls {called}"
            for option in node.keywords:
                if option.arg in UNSAFE_OPTIONS and ast.unparse(option.value) != "False":
                    yield f"line {node.lineno}: gives {option.arg}={ast.unparse(option.value)}"


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_the_library_runs_no_code_from_files_or_shells(path):
    found = [told.partition(": ")[2] for told in unsafe_in(path.read_text())]
    assert found == KNOWN.get(name_of(path), [])


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "def f():\n    import dill.source",
        "eval('1')",
        "torch.load(path)",
        "subprocess.run('ls', shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=chosen)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_unsafe_code_would_be_seen(code):
    assert len(list(unsafe_in(code))) == 1


def test_no_file_is_over_2_mb():
    assert [name_of(path) for path in FILES if path.stat().st_size > 2_000_000] == []


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_nothing_is_left_open_and_no_path_is_of_one_machine(path):
    left_open = r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b"
    machine = r"(?<![\w.}])/(work|ro" r"ot|home|Users|tm" r"p)/\w"
    found = [line for line in path.read_text().splitlines() if re.search(f"{left_open}|{machine}", line)]
    assert found == []


@pytest.mark.parametrize("path", SET_UP, ids=name_of)
def test_set_up_names_no_host_and_no_index(path):
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", path.read_text())

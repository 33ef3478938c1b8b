"""What pages say can be done: their code runs, their commands parse, their words are spelt, their links have a form."""

from __future__ import annotations

import ast
from collections.abc import Iterator
import importlib
import importlib.util
import inspect
from pathlib import Path
import re
import shlex
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

import fpt_viz as fpt
from fpt_viz.cli import parser
from fpt_viz.errors import ConfigError, UnknownNameError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
HOW_TO = sorted((DOCS / "how_to").glob("*.md"))
PAGES = [
    *sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md")), *HOW_TO,
    ROOT / "data/README.md", ROOT / "data/RESULTS.md", ROOT / "benchmarks/README.md",
]  # fmt: skip
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALL = {
    'load_backbone("minilm")': 'load_backbone("bert-tiny-random", init="random")',
    'load_backbone("minilm", n_layers=2)': 'load_backbone("bert-tiny-random", init="random", n_layers=2)',
    'BackboneConfig(name="minilm")': 'BackboneConfig(name="bert-tiny-random", init="random")',
    '"backbone": {"name": "minilm"}': '"backbone": {"name": "bert-tiny-random", "init": "random"}',
    "n_steps=150": "n_steps=3",
    '"n_steps": 150': '"n_steps": 3',
    "validate_every=10": "validate_every=2",
    'load_backbone("gpt2", init="random", n_layers=2)': 'load_backbone("gpt2-tiny-random", init="random", n_layers=2)',
}
"""What a page says -> what is run in its place, since a test has seconds."""
OTHER_CODE = {"CONTRIBUTING.md"}
"""Pages whose code blocks are files, which another test puts in their places."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def each(paths: list[Path]) -> Any:
    return pytest.mark.parametrize("page", paths, ids=name_of)


def blocks(page: Path, *languages: str) -> list[str]:
    return [code for language, code in FENCE.findall(page.read_text("utf-8")) if language in languages]


def small(code: str) -> str:
    for said, run in SMALL.items():
        code = code.replace(said, run)
    return code


def run_blocks(page: Path, folder: Path) -> dict[str, Any]:
    """Run the Python of a page from top to bottom; a block that begins with a file's name is that file."""
    found: dict[str, Any] = {"__name__": "page"}
    for code in blocks(page, "python"):
        named = re.match(r"# (\w+\.py)\n", code)
        if named:
            (folder / named[1]).write_text(code, encoding="utf-8")
        else:
            exec(compile(small(code), name_of(page), "exec"), found)
    return found


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[] if page.stem == "own_attention" else [pytest.mark.slow])
        for page in [*HOW_TO, DOCS / "widgets.md"]
        if "```python" in page.read_text("utf-8")
    ],
)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert len(run_blocks(page, tmp_path)) > 2


def test_what_is_made_small_stands_on_a_page():
    told = "".join(page.read_text("utf-8") for page in HOW_TO)
    assert [said for said in SMALL if said not in told] == []


@pytest.mark.slow
def test_the_task_that_a_page_writes_asks_for_what_it_says(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    task = run_blocks(DOCS / "how_to/own_task.md", tmp_path)["task"]
    batch = task.sample(200, rng)
    for bits, answers in zip(batch.inputs[:, :, 0].tolist(), batch.targets.tolist(), strict=True):
        assert answers == [int(a == b == 1) for a, b in zip(bits[:3], bits[3:], strict=True)]
    every = [(a, b) for a in (0, 1) for b in (0, 1)]
    assert task.trivial["always 0"] == sum(a * b == 0 for a, b in every) / len(every)


def known_names(tree: ast.Module) -> dict[str, Any]:
    """What the imports of ``tree`` from this package bind."""
    found: dict[str, Any] = {"fpt": fpt}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fpt_viz"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                is_module = not hasattr(module, alias.name) and importlib.util.find_spec(name) is not None
                assert is_module or hasattr(module, alias.name), ast.unparse(node)
                found[alias.asname or alias.name] = (
                    importlib.import_module(name) if is_module else getattr(module, alias.name)
                )
    return found


def calls(tree: ast.Module, known: dict[str, Any]) -> Iterator[tuple[ast.Call, Any]]:
    """Calls of what this package holds, each with what it calls; an error where there is no such name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and re.fullmatch(r"[\w.]+", ast.unparse(node.func)):
            first, *rest = ast.unparse(node.func).split(".")
            value = known.get(first)
            if first in known and (isinstance(value, ModuleType) or not rest):
                for name in rest:
                    value = getattr(value, name)
                yield node, value


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name_of(page), marks=[] if page in HOW_TO else [pytest.mark.slow])
        for page in PAGES
        if page.name not in OTHER_CODE and "```python" in page.read_text("utf-8")
    ],
)
def test_code_that_takes_too_long_to_run_names_what_there_is(page):
    code = "\n".join(blocks(page, "python"))
    tree = ast.parse(code)
    for call, called in calls(tree, known_names(tree)):
        given = [keyword.arg for keyword in call.keywords if keyword.arg]
        taken = inspect.signature(called).parameters
        if not any(one.kind is one.VAR_KEYWORD for one in taken.values()):
            assert set(given) <= set(taken), ast.unparse(call)


def test_a_name_that_is_not_there_would_be_seen():
    tree = ast.parse("import fpt_viz as fpt\nfpt.figures.no_such_figure(1)")
    with pytest.raises(AttributeError, match="no_such_figure"):
        list(calls(tree, known_names(tree)))
    with pytest.raises((AssertionError, ModuleNotFoundError), match="no_such"):
        known_names(ast.parse("from fpt_viz.records import no_such"))


def commands(page: Path) -> Iterator[str]:
    """The lines of its shell blocks, continued ones joined."""
    for code in blocks(page, "sh", "bash", ""):
        joined = re.sub(r"\\\n\s*", " ", code)
        yield from (line.strip() for line in joined.splitlines() if line.strip())


@each(PAGES)
def test_commands_are_those_that_there_are(page):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for line in commands(page):
        words = shlex.split(line, comments=True)
        if words[:1] == ["fpt-viz"] and "..." not in words and len(words) > 1:
            parser.parse(words[1:])
        elif words[:1] == ["make"]:
            assert [word for word in words[1:] if "=" not in word and word not in targets] == [], line


def test_a_command_that_is_not_there_would_be_seen():
    with pytest.raises(UnknownNameError):
        parser.parse(["train", "--no-such-option"])
    with pytest.raises(ConfigError):
        parser.parse(["train", "--seed", "first"])


@each(PAGES)
def test_addresses_elsewhere_have_the_form_of_one(page):
    for address in re.findall(r"\]\((\w+:[^)]*)\)", page.read_text("utf-8")):
        assert re.fullmatch(r"https://[\w-]+(\.[\w-]+)+(/[\w./#?=&%~+-]*)?", address), address
        assert "arxiv.org" not in address or re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{4,5}", address), address


@pytest.mark.slow
def test_words_are_spelt_as_they_are():
    """Pages, notebooks and docstrings; a word that is right all the same belongs into the list."""
    right = "te,ans,fpr,nd,ue,checkin,thead,mis,unexpect,hist,ser,fpt,bakc"
    told = subprocess.run(
        [sys.executable, "-m", "codespell_lib", "-L", right, "--skip", "*.js,*.html,*.json,*.txt,made,_texts",
         *map(str, PAGES), "docs", "notebooks", "fpt_viz"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (told.returncode, told.stdout) == (0, ""), told.stdout + told.stderr

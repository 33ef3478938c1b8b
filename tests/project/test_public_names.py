"""The names that users type: all there, found lazily, and never hidden by a file of the same name."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
import re
import subprocess
import sys

import pytest

import fpt_viz as fpt
from fpt_viz import registry

CALLABLES = sorted(set(fpt.__all__) - {"analysis", "figures", "measures", "widgets", "__version__"})
NAMESPACES = ("analysis", "figures", "measures")


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("name", CALLABLES)
def test_each_public_name_is_a_documented_callable(name):
    public = getattr(fpt, name)
    assert callable(public)
    assert public.__name__ == name
    assert inspect.getdoc(public)


def test_the_type_checker_and_the_interpreter_see_the_same_names():
    """The names under TYPE_CHECKING, from the modules that the interpreter takes them from."""
    tree = ast.parse(Path(inspect.getfile(fpt)).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    entry = re.compile(r"(fpt_viz\.(?:analysis|figures|measures))\.\w+")
    typed = {alias.name: entry.sub(r"\1", node.module) for node in imports for alias in node.names}
    assert typed == fpt._ORIGINS | dict.fromkeys((*NAMESPACES, "widgets"), "fpt_viz")


def test_dir_lists_what_there_is():
    assert dir(fpt) == sorted(fpt.__all__)
    for folder in NAMESPACES:
        assert dir(getattr(fpt, folder)) == registry.names(folder)


@pytest.mark.parametrize("folder", NAMESPACES)
def test_each_entry_is_an_attribute_of_its_folder(folder):
    for name in registry.names(folder):
        assert getattr(getattr(fpt, folder), name) is registry.load(folder, name)


def test_each_widget_is_named_after_its_class_and_its_file_after_the_widget():
    in_words = {re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(): name for name in dir(fpt.widgets)}
    assert sorted(in_words) == registry.names("widgets")
    for file_name, class_name in in_words.items():
        assert getattr(fpt.widgets, class_name) is registry.load("widgets", file_name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'fpt_viz' has no attribute 'trian'"):
        fpt.trian  # noqa: B018
    with pytest.raises(AttributeError, match=r"module 'fpt_viz\.figures' has no attribute 'no_such_figure'"):
        fpt.figures.no_such_figure  # noqa: B018


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import fpt_viz as fpt",
        "import fpt_viz.train; import fpt_viz as fpt",
        "import fpt_viz as fpt; fpt.train; import fpt_viz.train",
        "from fpt_viz.train import run; import fpt_viz as fpt; assert fpt.run is run",
        "from importlib import import_module; import_module('fpt_viz.train'); import fpt_viz as fpt",
        "import fpt_viz as fpt; from fpt_viz import train; assert train is fpt.train",
    ],
)
def test_train_is_the_function_in_any_order_of_imports(imports):
    code = f"{imports}\nfrom fpt_viz.train import train\nassert fpt.train is train\nprint(type(fpt.train).__name__)"
    assert run_python(code) == "function"


PLANTED = """
import sys
from importlib import import_module
from pathlib import Path
from fpt_viz import registry
folder = Path({folder!r})
(folder / "figures").mkdir(exist_ok=True)
(folder / "figures" / "planted.py").write_text("__all__ = ['planted']\\nother = 1\\ndef planted(): return 'drawn'\\n")
registry.PACKAGE = folder
import fpt_viz.figures
fpt_viz.figures.__path__.append(str(folder / "figures"))
import fpt_viz as fpt
"""


@pytest.mark.parametrize(
    "order",
    [
        "",
        "import fpt_viz.figures.planted",
        "fpt.figures.planted; import fpt_viz.figures.planted",
        "from fpt_viz.figures.planted import other; assert other == 1",
        "import fpt_viz.figures.planted; registry.load('figures', 'planted')",
    ],
)
def test_a_figure_is_the_function_in_any_order_of_imports(order, tmp_path):
    """A package with one figure of a known name, so that the claim does not hang on which figures there are."""
    code = PLANTED.format(folder=str(tmp_path)) + order + "\nprint(fpt.figures.planted(), *dir(fpt.figures))"
    assert run_python(code) == "drawn planted"
    code = PLANTED.format(folder=str(tmp_path)) + order + "\nfrom fpt_viz.figures import planted; print(planted())"
    assert run_python(code) == "drawn"

"""The import rule, as a table: what each layer may import, and why. What is not listed is forbidden.

Records are the waist: producers write them, viewers read them, and neither side knows the other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
import subprocess
import sys

import pytest

PACKAGE = Path(__file__).parents[2] / "fpt_viz"
SAVED = PACKAGE.parent / "data/results/notebooks/xor-pretrained"

TRAINING = {
    "progress", "features", "telemetry", "training_state", "training_pass", "memory", "updates", "run_folder",
    "train",
}  # fmt: skip
BELOW_ALL = {"errors", "records", "registry", "analysis"}
VIEWERS = {"export", "figures", "widgets"}
PRODUCERS = {
    "sources", "hub", "data_sets", "freeze", "tasks", "backbones", "kernel", "activations", "module_hooks", "tap",
    "cache", "capture", "reference", "intervene", "config", "model", "loading", "measures", "progress",
    "training_state", "run_folder", "train", "engines", "telemetry", "features", "dropout", "plain_attention",
    "prepacked", "compiled", "training_pass", "memory", "updates",
}  # fmt: skip
BOTH_SIDES = BELOW_ALL | VIEWERS | PRODUCERS

MAY_IMPORT: dict[str, set[str]] = {
    # below all: known to both sides, and knowing neither
    "errors": set(),  # raised everywhere
    "records": {"errors"},  # plain data: to be read years later, with none of the code that wrote it
    "registry": {"errors"},  # finds entries by file name and loads them by name, so it needs to know none
    "analysis": {"errors", "records", "registry"},  # arrays in, arrays out
    # viewers: records and arrays in, pictures out; a model reaches them only as records.LiveModel
    "export": BELOW_ALL,  # a drawn figure to a file
    "figures": BELOW_ALL | {"export"},  # what is drawn
    "widgets": BELOW_ALL | {"export", "figures"},  # controls over what is drawn
    # producers: each sees what it is built from
    "sources": BELOW_ALL,  # where files come from, whatever they hold
    "hub": BELOW_ALL,  # files from the Hub; the only module that touches a network
    "freeze": BELOW_ALL,  # works on any module that declares its groups
    "data_sets": BELOW_ALL | {"sources", "hub"},  # files and their formats, whatever a task asks of them
    "tasks": BELOW_ALL | {"sources", "hub", "data_sets"},  # what is asked; some read data sets
    "backbones": BELOW_ALL | {"sources", "hub", "freeze", "kernel", "dropout"},  # what computes: weights, groups
    "dropout": BELOW_ALL,  # one operation, wherever one is
    "plain_attention": BELOW_ALL | {"dropout"},  # one operation, likewise
    "prepacked": BELOW_ALL,  # one operation, likewise, and the layers that it is put into
    "kernel": BELOW_ALL | {"dropout", "plain_attention"},  # one layer's attention in steps, whoever looks on
    "activations": BELOW_ALL | {"backbones", "kernel"},  # what a model's activations are called
    "module_hooks": BELOW_ALL | {"backbones", "kernel"},  # the tap outside the kernel
    "tap": BELOW_ALL | {"tasks", "backbones", "kernel", "activations", "module_hooks"},  # the one way in
    "cache": BELOW_ALL | {"tasks", "backbones", "kernel", "activations", "tap"},  # the tap, reading anything
    "capture": BELOW_ALL | {"tasks", "backbones", "kernel", "tap", "cache"},  # reading attention; a task labels it
    "reference": BELOW_ALL | {"tasks", "backbones", "kernel", "tap"},  # what stands in for what is cut
    "intervene": BELOW_ALL | {"tasks", "backbones", "kernel", "tap", "reference"},  # the same tap, writing
    "config": BELOW_ALL | {"sources", "freeze", "tasks", "backbones"},  # names a task and a backbone and their options
    "model": BELOW_ALL
    | {"sources", "freeze", "tasks", "backbones", "kernel", "activations", "tap", "cache", "capture", "intervene"}
    | {"config", "dropout"},  # joins
    "loading": BELOW_ALL | {"tasks", "backbones", "config", "model"},  # a model from what was written of it
    "measures": BOTH_SIDES - VIEWERS - TRAINING - {"measures", "engines"},  # ask a model and a task
    "progress": {"records"},  # shows steps, whoever makes them
    "telemetry": BOTH_SIDES - VIEWERS - TRAINING - {"engines"},  # probes a model while it trains, with measures
    "training_state": BOTH_SIDES - VIEWERS - TRAINING - {"measures", "engines"},  # what a checkpoint holds of a model
    "run_folder": (BOTH_SIDES - VIEWERS - TRAINING - {"measures", "engines"}) | {"training_state"},  # on the disk
    "features": BOTH_SIDES - VIEWERS - TRAINING - {"measures", "engines"},  # what training need not compute twice
    "compiled": BELOW_ALL | {"backbones"},  # blocks of a backbone by torch's compiler
    "training_pass": BOTH_SIDES - VIEWERS - TRAINING - {"measures", "engines"},  # a forward pass, for its loss alone
    "memory": (BOTH_SIDES - VIEWERS - TRAINING - {"measures", "engines"}) | {"training_pass"},  # what a step holds
    "updates": (BOTH_SIDES - VIEWERS - TRAINING - {"measures", "engines"}) | {"training_state"},  # what a step does
    "train": BOTH_SIDES - VIEWERS - {"train", "engines"},  # checks accuracy on the way with measures
    "engines": BOTH_SIDES - VIEWERS - {"engines"},  # run many configurations
    # on top: what users start sees both sides
    "testing": BOTH_SIDES,  # checks for every entry of a folder, and for a user's own
    "tables": BOTH_SIDES,  # runs compared, as rows
    "experiments": BOTH_SIDES | {"tables"},  # which runs make a table or figure of the paper
    "reproduce": {"experiments"},  # the public door of experiments, whose own names are entries
    "tracking": {"errors", "records"},  # steps of a run to TensorBoard and its like, whoever makes them
    "demo": BOTH_SIDES | {"tables", "report"},  # the main job: trains, measures, and ends with the report
    "report": BOTH_SIDES | {"tables"},  # one page about a run
    "paper_kit": BOTH_SIDES | {"tables", "report"},  # figures and numbers of runs for a paper
    "shipped": {"errors"},  # notebooks and records as files, to be copied: nothing of them is read
    "doctor": BOTH_SIDES,  # looks at everything that can be missing
    "cli": BOTH_SIDES
    | {"tables", "experiments", "demo", "report", "paper_kit", "doctor"}
    | {"reproduce", "tracking", "shipped"},  # arguments in, calls out
    "__init__": BOTH_SIDES,  # the public names, found when asked for
}

FOLDERS_OF_ENTRIES = ("analysis", "backbones", "engines", "experiments", "figures", "measures", "tasks")
FOUND_BY_NAME = {"registry", "__init__"}
"""Modules that import by a name which is not in their text; they hold no reference to what they find."""


def parts_of(path: Path) -> tuple[str, ...]:
    return path.relative_to(PACKAGE).with_suffix("").parts


FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {".".join(("fpt_viz", *(part for part in parts_of(path) if part != "__init__"))): path for path in FILES}
ENTRIES = [path for path in FILES if parts_of(path)[0] in FOLDERS_OF_ENTRIES]
EACH_FILE = pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(parts_of(path)))
EACH_ENTRY = pytest.mark.parametrize("path", ENTRIES, ids=lambda path: "/".join(parts_of(path)))


@cache
def tree_of(path: Path) -> ast.Module:
    """The file, parsed once."""
    return ast.parse(path.read_text())


def for_the_type_checker(tree: ast.AST) -> set[ast.AST]:
    """The nodes of ``tree`` that only a type checker runs."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    return {inner for block in blocks for statement in block.body for inner in ast.walk(statement)}


def modules_imported_by(path: Path) -> set[str]:
    """The modules of the package that the file imports when it runs, also inside functions."""
    tree, modules = tree_of(path), set()
    typed_only = for_the_type_checker(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and node not in typed_only:
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node not in typed_only:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= inner & set(MODULES) or {str(node.module)}
    return modules & set(MODULES) - {"fpt_viz"}


def imported_by(path: Path) -> Iterator[tuple[str, ...]]:
    """What the file imports of the package, as ``("figures", "base")``; also inside functions and by registry.load."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports by a relative name: the rule reads absolute ones"
            dotted = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"registry.load", "registry.namespace"}:
            folder = node.args[0]
            dotted = [f"fpt_viz.{folder.value}"] if isinstance(folder, ast.Constant) else []
        else:
            continue
        for name in dotted:
            first, *rest = name.split(".")
            if first == "fpt_viz":
                assert rest, f"{path}:{node.lineno} imports the whole package: name the module that is meant"
                yield tuple(rest)


def test_every_layer_of_the_table_knows_only_layers_of_the_table():
    assert set().union(*MAY_IMPORT.values()) <= set(MAY_IMPORT)


def test_the_table_has_no_ring():
    try:
        TopologicalSorter(MAY_IMPORT).prepare()
    except CycleError as ring:
        pytest.fail(f"a ring: {' -> '.join(reversed(ring.args[1]))}")


def test_no_import_closes_a_ring_of_modules_not_even_one_inside_a_function():
    graph = {name: modules_imported_by(path) for name, path in MODULES.items() if name != "fpt_viz"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a ring: {' -> '.join(reversed(error.args[1]))}")


def test_no_viewer_may_import_a_producer_and_no_producer_a_viewer():
    assert not any(MAY_IMPORT[layer] & PRODUCERS for layer in VIEWERS)
    assert not any(MAY_IMPORT[layer] & VIEWERS for layer in PRODUCERS)
    assert not any(MAY_IMPORT[layer] & (VIEWERS | PRODUCERS) for layer in BELOW_ALL)


@EACH_FILE
def test_imports_only_what_its_layer_may(path):
    layer = parts_of(path)[0]
    assert layer in MAY_IMPORT, f"{layer} is not in the table: enter it there, with its reason"
    forbidden = {parts[0] for parts in imported_by(path)} - MAY_IMPORT[layer] - {layer}
    assert not forbidden, f"{layer} may not import {sorted(forbidden)}"


@EACH_ENTRY
def test_entries_share_only_base_and_private_modules_of_their_folder(path):
    folder = parts_of(path)[0]
    siblings = {parts[1] for parts in imported_by(path) if parts[0] == folder and len(parts) > 1}
    modules = {other.stem for other in (PACKAGE / folder).glob("*.py")}
    entries = {name for name in siblings & modules if name != "base" and not name.startswith("_")}
    assert not entries, f"{'/'.join(parts_of(path))} imports its siblings {sorted(entries)}: share a _module instead"


@EACH_FILE
def test_only_the_registry_and_the_front_door_import_by_computed_name(path):
    calls = {ast.unparse(node.func) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)}
    dynamic = {"import_module", "importlib.import_module", "__import__"} & calls
    assert not dynamic or parts_of(path)[0] in FOUND_BY_NAME, f"{path.name} calls {dynamic}: the rule cannot read that"


def test_what_the_rule_reads_is_all_there_is(tmp_path):
    planted = tmp_path / "planted.py"
    planted.write_text(
        "import fpt_viz.config\n"
        "from fpt_viz import demo, errors\n"
        "def later():\n"
        "    from fpt_viz.figures.base import x\n"
        "    return registry.load('tasks', 'bit_xor')\n"
    )
    assert set(imported_by(planted)) == {("config",), ("demo",), ("errors",), ("figures", "base", "x"), ("tasks",)}


def python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=120)


def heavy_after(code: str, heavy: set[str]) -> list[str]:
    """Which of ``heavy`` a fresh Python holds after ``code``."""
    result = python(f"import sys\n{code}\nprint(*sorted({heavy!r} & set(sys.modules)))")
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def modules_of(layers: set[str]) -> list[str]:
    """Every module of the package that lies in one of ``layers``."""
    return [name for name, path in MODULES.items() if parts_of(path)[0] in layers]


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"torch", "numpy", "pandas", "transformers", "plotly", "matplotlib", "sklearn", "scipy", "rich", "IPython"}
    assert heavy_after("import fpt_viz; dir(fpt_viz); fpt_viz.figures", heavy) == []


def test_a_saved_run_is_drawn_with_torch_and_one_drawing_library_alone():
    """So that its heads are seen within 3 s of a cold start, half of which are torch's (``benchmarks/startup.py``)."""
    heavy = {"transformers", "accelerate", "captum", "sklearn", "scipy", "pandas", "pyarrow", "ipywidgets"}
    heavy |= {"jinja2", "rich", "sympy", "torch._dynamo", "plotly", "matplotlib"}
    code = f"""
import fpt_viz as fpt
figure = fpt.figures.head_grid(fpt.load_run({str(SAVED)!r}).statistics())
figure.to_plotly().to_json()
"""
    assert heavy_after(code, heavy) == ["plotly"]


@pytest.mark.slow
def test_viewers_import_where_transformers_cannot_be():
    code = "\n".join(
        [
            "import sys",
            "from importlib import import_module",
            "for name in ('transformers', 'tokenizers', 'huggingface_hub', 'sentence_transformers', 'gguf'):",
            "    sys.modules[name] = None  # importing it now raises ImportError",
            f"for name in {modules_of(BELOW_ALL | VIEWERS)!r}: import_module(name)",
        ]
    )
    result = python(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_producers_import_no_drawing():
    drawing = {"plotly", "matplotlib", "captum", "ipywidgets", "anywidget", "jinja2", "fpt_viz.figures"}
    code = "\n".join(
        [
            "from importlib import import_module",
            f"for name in {modules_of(BELOW_ALL | PRODUCERS)!r}: import_module(name)",
        ]
    )
    assert heavy_after(code, drawing - {"jinja2"}) == []

"""The pages of the API: the public names, grouped by what one does with them, drawn from their docstrings."""

from __future__ import annotations

from dataclasses import is_dataclass
from importlib import import_module
import inspect
from typing import Any

import fpt_viz
from fpt_viz import registry

NAMES = {
    "Train": ["RunConfig", "TrainConfig", "run", "train", "load_run"],
    "Models and tasks": ["load_task", "load_backbone", "FrozenPretrainedTransformer", "load_model"],
    "Look and measure": ["capture_attention", "head_statistics", "evaluate"],
    "Intervene": ["ablated", "ablate_heads"],
}
"""The names of ``fpt_viz`` itself, by heading; with the folders below they are all of ``fpt_viz.__all__``."""
FOLDERS = {
    "measures": "What needs a model and a task, one file each: `fpt.measures.NAME`, or `fpt-viz measure NAME RUN`.",
    "analysis": "Pure functions of arrays: `fpt.analysis.NAME`. They need no model.",
    "figures": "A record or arrays in, a figure out: `fpt.figures.NAME`, or `fpt-viz figure NAME RUN -o FILE`.",
    "widgets": "To be clicked, in a notebook or as one offline page: `fpt.widgets.NAME`. See also "
    "[widgets](../../widgets.md).",
}
ENTRIES = {
    "tasks": "What is asked. The fields of a task are its options: `fpt.load_task(NAME, field=value)`.",
    "backbones": "What computes, one family a file: `fpt.load_backbone(PRESET)`.",
}
MODULES = {
    "records": ("fpt_viz.records", "What producers write and viewers read: plain data that needs no model."),
    "config": ("fpt_viz.config", "What a run is made of; to and from TOML and JSON."),
    "export": ("fpt_viz.export", "A figure as plain data, drawn for the screen and for paper."),
    "testing": ("fpt_viz.testing", "Circuits planted by hand. See also [planted circuits](../../planted_circuits.md)."),
    "tap": ("fpt_viz.tap", "One way in to every activation, to read or to write. See also [the tap](../../tap.md)."),
    "activations": ("fpt_viz.activations", "What a model's activations are called."),
    "kernel": ("fpt_viz.kernel", "One layer's attention in steps, whoever looks on."),
    "module_hooks": ("fpt_viz.module_hooks", "The tap outside of attention."),
    "cache": ("fpt_viz.cache", "Activations of a forward pass, by name."),
    "intervene": ("fpt_viz.intervene", "Cutting heads, edges and layers, undone on exit."),
    "parts": ("fpt_viz.records.parts", "Parts of a network in words: heads, layers, edges, feed-forward layers."),
    "errors": ("fpt_viz.errors", "Every error raised on purpose. See also the [error catalogue](../errors.md)."),
}


def pages() -> dict[str, str]:
    """The text of each page, by the file's name below ``made/api/``."""
    found = {"index.md": _index(), "fpt_viz.md": _top()}
    for folder, told in FOLDERS.items():
        package = f"fpt_viz.{folder}"
        found[f"{folder}.md"] = _page(f"fpt_viz.{folder}", told, package, dir(import_module(package)))
    for folder, told in ENTRIES.items():
        found[f"{folder}.md"] = _entry_page(folder, told)
    for name, (module, told) in MODULES.items():
        intro = "\n".join([told, "", "```{eval-rst}", f".. automodule:: {module}", "   :no-members:", "```"])
        found[f"{name}.md"] = _page(module, intro, module, _public(module))
    return found


def _index() -> str:
    pages = ["fpt_viz", *FOLDERS, *ENTRIES, *MODULES]
    return "\n".join([
        "# Python",
        "",
        "`import fpt_viz as fpt` loads nothing heavy: each name is imported when it is first used.",
        "",
        "| page | |",
        "| --- | --- |",
        "| [fpt_viz](fpt_viz.md) | Configure, train, load, capture, measure, cut: the names that one starts from. |",
        *(f"| [fpt_viz.{name}]({name}.md) | {_told(name)} |" for name in pages[1:]),
        "",
        "```{toctree}",
        ":hidden:",
        "",
        *pages,
        "```",
        "",
    ])  # fmt: skip


def _told(name: str) -> str:
    told = (FOLDERS | ENTRIES).get(name) or MODULES[name][1]
    return told.partition(" See also")[0]


def _top() -> str:
    told = {name for names in NAMES.values() for name in names}
    missing = set(fpt_viz.__all__) - told - set(FOLDERS) - {"__version__"}
    if missing:
        raise KeyError(f"docs/site_parts/api_pages.py has no heading for {sorted(missing)}")
    parts = ["# fpt_viz", "", "(`import fpt_viz as fpt`)", ""]
    for heading, names in NAMES.items():
        parts += [f"## {heading}", "", *_documented("fpt_viz", names, "###")]
    return "\n".join(parts)


def _page(title: str, told: str, module: str, names: list[str]) -> str:
    return "\n".join([f"# {title}", "", told, "", *_documented(module, names)])


def _entry_page(folder: str, told: str) -> str:
    parts = [f"# fpt_viz.{folder}", "", told, ""]
    base = f"fpt_viz.{folder}.base"
    for name in registry.names(folder):
        entry = registry.load(folder, name)
        parts += [f"## {name}", "", *_documented(entry.__module__, [entry.__name__], "###")]
    parts += ["## What all of them have in common", "", *_documented(base, _public(base), "###")]
    return "\n".join(parts)


def _public(module: str) -> list[str]:
    """Public classes and functions of a module: those of ``__all__``, else those that it defines."""
    found = import_module(module)
    names = getattr(found, "__all__", None) or [
        name for name, value in vars(found).items() if getattr(value, "__module__", None) == module and name[0] != "_"
    ]
    return [name for name in names if inspect.isclass(getattr(found, name)) or inspect.isfunction(getattr(found, name))]


def _documented(module: str, names: list[str], level: str = "##") -> list[str]:
    """The directives that draw ``names`` of ``module`` from their docstrings."""
    lines = []
    for name in names:
        value: Any = getattr(import_module(module), name)
        if module != "fpt_viz" and name in fpt_viz.__all__ and value is getattr(fpt_viz, name):
            lines += [f"{level} {name}", "", f"(also-{module}.{name})=", ""]
            lines += [f"`{module}.{name}` is {{py:obj}}`fpt_viz.{name}`.", ""]
            continue
        lines += [f"{level} {name}", "", "```{eval-rst}", f".. py:currentmodule:: {module}", ""]
        if inspect.isclass(value):
            lines += [f".. autoclass:: {module}::{name}", "   :members:", "   :show-inheritance:"]
            if is_dataclass(value):
                lines += ["   :undoc-members:"]
        else:
            lines += [f".. autofunction:: {module}::{name}"]
        lines += ["```", ""]
    return lines

"""Our docstrings as Sphinx reads them: formulas between dollars, and names of our own classes wherever they lie."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

PAGE = re.compile(r"``docs/(\w+)\.md``")
STRICT = {"func", "meth", "attr"}
"""Kinds of reference that a docstring makes on purpose; the others are mostly the types of signatures."""
MATH = re.compile(r"(?<![\w$`\\])\$([^$`]+?)\$(?![\w$])")


def with_links(lines: list[str]) -> list[str]:
    """``lines`` with each formula between dollars as reStructuredText's, and pages of ours as links."""
    text = MATH.sub(lambda found: f":math:`{found[1]}`", "\n".join(lines))
    return PAGE.sub(lambda found: f":doc:`{found[1]} </{found[1]}>`", text).split("\n")


def _before_napoleon(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Empty what says one thing of a field: napoleon would take what stands before a colon for its type."""
    lines[:] = with_links(lines)
    if what in {"attribute", "data", "property"}:
        app.fields_told[name] = list(lines)  # type: ignore[attr-defined]
        lines.clear()


def _after_napoleon(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if what in {"attribute", "data", "property"}:
        lines[:] = app.fields_told.pop(name)  # type: ignore[attr-defined]


def _resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.reference | nodes.TextElement | None:
    """What a name of ours means that is documented under another path: ``records.run.RunRecord`` is ``RunRecord``."""
    if node.get("refdomain") != "py" or node.get("reftype") == "mod":
        return None
    domain = env.domains.python_domain
    last = node["reftarget"].rpartition(".")[2]
    found = sorted({name for name in domain.objects if name.rpartition(".")[2] == last and name.count(".") <= 2})
    if len(found) > 1 and node["reftarget"].count(".") == 0:
        found = [name for name in found if name.count(".") == 1] or found
    if len(found) == 1:
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, contnode)
    return contnode if node["reftype"] not in STRICT else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Read docstrings so."""
    app.fields_told = {}  # type: ignore[attr-defined]
    app.connect("autodoc-process-docstring", _before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", _after_napoleon, priority=600)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Every message that the library raises on purpose, read from its code: what, where, when, and the cure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
import re

from fpt_viz import errors

PACKAGE = Path(errors.__file__).parent
CURES = {
    "UnknownNameError": "The message lists the names that there are and the nearest one; `fpt-viz list` lists entries.",
    "ConfigError": "Change the option that the message names to what it says was wanted.",
    "SourceError": "Put the file where the message says, fetch it anew, or name another source; `fpt-viz doctor` looks "
    "at what is there, and [data](data.md) says where data sets come from.",
    "FreezeError": "Of a backbone of your own: let its groups name each parameter once "
    "([your own backbone](../how_to/own_backbone.md)).",
    "CaptureError": "Ask for fewer layers, heads or queries, or for an activation that the family has "
    "([the tap](../tap.md)).",
    "RecordError": "Make the file anew with the command that the message names, or open the kind of file that was "
    "asked for.",
    "RunFolderError": "Resume or overwrite the run, or name another folder.",
    "TrainingError": "Lower the learning rate, or see [traps](../gotchas.md) on zero vectors; the checkpoint before it "
    "is kept.",
    "WorkerError": "The run that failed is named with its own message; mend it, and start the list again: it goes on.",
    "FptVizError": "The message says what to do.",
}
"""Class -> the cure, where the message leaves it open."""


RETURNED = "returned"
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Message:
    """One place in the code that makes an error or a warning."""

    kind: str
    """The class's name."""
    text: str
    """The message, with the expressions that it fills in between braces."""
    path: str
    """The file, from ``fpt_viz/``."""
    line: int
    where: str
    """The function or method that it is in."""
    when: str
    """The condition that leads there, as the code says it; empty where it always does."""
    given: tuple[str, ...] = ()
    """The files and lines that fill in a message which several share."""


def kinds() -> dict[str, str]:
    """Every class of error of the library, with what it is for; wherever it is defined."""
    found = {"FptVizError": (errors.FptVizError.__doc__ or "").strip()}
    defined = [node for path in _files() for node in _nodes(path) if isinstance(node, ast.ClassDef)]
    while fresh := [
        node for node in defined if node.name not in found and {ast.unparse(base) for base in node.bases} & set(found)
    ]:
        found |= {node.name: " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split()) for node in fresh}
    return found


def messages() -> list[Message]:
    """All of them, by file and line; a message that a helper makes has the places that call it."""
    known = set(kinds())
    found = [message for path in _files() for message in sorted(_in_file(path, known), key=lambda one: one.line)]
    return [
        replace(one, when="", given=tuple(_calls_of(one.where.rpartition(".")[2]))) if one.when == RETURNED else one
        for one in found
    ]


@cache
def _files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def _nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text("utf-8"))))


def _in_file(path: Path, known: set[str]) -> Iterator[Message]:
    above: dict[ast.AST, ast.AST] = {}
    for node in _nodes(path):
        above |= dict.fromkeys(ast.iter_child_nodes(node), node)
    for node in _nodes(path):
        if not isinstance(node, ast.Call):
            continue
        name = _called(node)
        is_trap = name == "warn" and "TrapWarning" in ast.unparse(node)
        if name not in known and not is_trap:
            continue
        chain = _chain(node, above)
        within = [one.name for one in reversed(chain) if isinstance(one, SCOPES)]
        yield Message(
            kind="TrapWarning" if is_trap else name,
            text=_text(name, node),
            path=path.relative_to(PACKAGE).as_posix(),
            line=node.lineno,
            where=".".join(within),
            when=RETURNED if isinstance(chain[0], ast.Return) else _condition(node, chain),
        )


def _called(call: ast.Call) -> str:
    """The last name of what is called; empty where it has none."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _chain(node: ast.AST, above: dict[ast.AST, ast.AST]) -> list[ast.AST]:
    chain = []
    while node in above:
        node = above[node]
        chain.append(node)
    return chain


def _condition(node: ast.AST, chain: list[ast.AST]) -> str:
    """The nearest ``if``, ``except`` or ``case`` around ``node``; the negated test where it is in the ``else``."""
    inner: ast.AST = node
    for outer in chain:
        if isinstance(outer, ast.If):
            test = ast.unparse(outer.test)
            return test if inner in outer.body else f"not ({test})"
        if isinstance(outer, ast.ExceptHandler):
            return f"except {ast.unparse(outer.type)}" if outer.type else "except"
        if isinstance(outer, ast.match_case):
            return f"case {ast.unparse(outer.pattern)}"
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef):
            return ""
        inner = outer
    return ""


def _text(name: str, call: ast.Call) -> str:
    if name == "UnknownNameError" and len(call.args) >= 2:
        return f"no {_template(call.args[0])} {{{ast.unparse(call.args[1])}}}. Did you mean ...? There are: ..."
    return _template(call.args[0]) if call.args else ""


def _template(node: ast.expr) -> str:
    """The text of a message, with what is filled in between braces."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"  # type: ignore[attr-defined]
            for part in node.values
        )
    if isinstance(node, ast.BinOp):
        return _template(node.left) + _template(node.right)
    return f"{{{ast.unparse(node)}}}"


def _calls_of(name: str) -> Iterator[str]:
    for path in _files():
        for node in _nodes(path):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and _called(node.exc) == name:
                filled = ", ".join(ast.unparse(one) for one in (*node.exc.args, *node.exc.keywords)[1:])
                yield f"{path.relative_to(PACKAGE).as_posix()}:{node.exc.lineno} {filled}".strip()


def page() -> str:
    """The page as Markdown."""
    found = messages()
    told = kinds() | {"TrapWarning": " ".join((errors.TrapWarning.__doc__ or "").split())}
    order = [*sorted(set(told) - {"FptVizError", "TrapWarning"}), "FptVizError", "TrapWarning"]
    count = sum(message.kind != "TrapWarning" for message in found)
    parts = [
        "# Error catalogue",
        "",
        f"Every error that the library raises on purpose, read from its code: {count} messages. All are kinds of "
        "`FptVizError`, so that `except fpt_viz.errors.FptVizError` catches them, and the command line prints each as "
        "one line. Words in braces are filled in. *When* is the condition in the code: the cause. A message ends with "
        "its cure; where it leaves that open, the line below the class says what to do. Search this page for the words "
        "of your message that are not numbers or names.",
        "",
    ]
    for kind in order:
        of_kind = [message for message in found if message.kind == kind]
        parts += [f"(error-{kind})=", f"## {kind}", "", told[kind], ""]
        if kind in CURES:
            parts += [f"**Cure.** {CURES[kind]}", ""]
        for path in sorted({message.path for message in of_kind}):
            parts += [f"`fpt_viz/{path}`", "", *_entries([one for one in of_kind if one.path == path])]
    return "\n".join(parts) + "\n"


def _entries(found: list[Message]) -> Iterator[str]:
    for one in found:
        when = f"; when {_code(one.when)}" if one.when else ""
        yield f"- {_code(one.text)}"
        yield f"  <br>in {_code(one.where or 'the module')}, line {one.line}{when}"
        for place in one.given:
            yield f"    - {_code(place)}"
    yield ""


def _code(text: str) -> str:
    """``text`` as inline code, whatever ticks are in it."""
    text = " ".join(text.split())
    ticks = "`" * (1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{ticks} {text} {ticks}" if "`" in text else f"`{text}`"

"""Where a saved figure comes from, kept in the file and beside it, and how it is made again.

Beside ``heads.pdf`` stands ``heads.pdf.json``; the same facts, less the file's own checksum, are in its metadata.
Paths are relative to the folder that the figure lies in, and so is the command: run there, it makes the file again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
import hashlib
import html
from importlib.metadata import version
import json
from pathlib import Path
import platform
import re
from typing import Any
from xml.etree import ElementTree as ET

from fpt_viz.errors import RecordError
from fpt_viz.export import numbers
from fpt_viz.export.description import Description
from fpt_viz.export.recipe import UNKNOWN, Made, Recipe, made, relative
from fpt_viz.records import RunRecord, load_run, store
from fpt_viz.records.files import can_load
from fpt_viz.records.run import RESULT
from fpt_viz.records.telemetry import frames_of

KIND = "figure"
SCHEMA = 1
MOST_BYTES = 200_000_000
"""Of a file whose metadata is read."""
_TEXTS = ("command", "call", "no_command", "figure", "sha256", "numbers_sha256")


def of_run(record: RunRecord) -> dict[str, Any]:
    """What a figure keeps of a run that it shows: who it is, and on what it was trained."""
    data = record.data
    told = {
        "config_sha256": record.result.get("files", {}).get("config.toml"),
        "data_revision": data.get("revision"),
        "data": data or None,
        "versions": {name: value for name, value in record.environment.items() if _is_version(value)},
    }
    return record.source | {name: value for name, value in told.items() if value}


def _is_version(value: object) -> bool:
    return isinstance(value, str) and re.match(r"\d+\.\d+", value) is not None


def about(
    figure: Description, path: Path, *, recipe: Recipe | None = None, options: Sequence[str] | None = ()
) -> dict[str, Any]:
    """What is kept in the metadata of the file at ``path``.

    Args:
        figure: What is drawn.
        path: Its file.
        recipe: How the command line makes it; what the figure itself remembers unless given.
        options: Of its page, as the command line says them; None where it cannot.
    """
    known = made(figure) if recipe is None else UNKNOWN
    others = store.changed(known.stamp)
    if others and known.recipe is not None:
        said = f"{relative(others[0], path.parent)} was changed after it was drawn: draw it again"
        shown = (*known.recipe.inputs, *known.recipe.files.values())
        known = replace(known, recipe=None, why_not=said, inputs=shown)
    recipe = recipe or known.recipe
    inputs = [*recipe.inputs, *recipe.files.values()] if recipe else list(known.inputs)
    own = recipe.records if recipe else ()
    told = {
        **_made_by(recipe, known, path, options),
        "inputs": [_input(each, own, path.parent, others) for each in inputs] or None,
        "source": figure.source,
        "numbers_sha256": numbers.sha256(figure),
        "versions": _versions(),
    }
    return {name: value for name, value in told.items() if value is not None}


def _made_by(recipe: Recipe | None, known: Made, path: Path, options: Sequence[str] | None) -> dict[str, str | None]:
    """The command that makes the figure again, or why there is none, and the call that made it."""
    if recipe is not None and options is not None:
        return {"figure": recipe.figure, "command": recipe.command(path, options)}
    page = "the command line knows no such page: save() was given a preset made by hand"
    return {
        "figure": None if recipe is None else recipe.figure,
        "call": known.call or None,
        "no_command": known.why_not or page,
    }


def _input(path: Path, records: Sequence[RunRecord], folder: Path, changed: Sequence[Path]) -> dict[str, Any]:
    """A run by what it says of itself; a file by its checksum and by what the record in it says of itself.

    Of what was ``changed`` since it was drawn, only where it lay.
    """
    told: dict[str, Any] = {"path": relative(path, folder)}
    if any(path in (each, each.parent) for each in changed):
        return told
    own = next((record for record in records if record.path == path), None)
    if own is not None:
        return told | of_run(own)
    if path.is_file():
        told["sha256"] = store.sha256(path)
    try:
        return told | (of_run(load_run(path)) if (path / RESULT).is_file() else _of_record(path))
    except RecordError:  # damaged: the figure does not need it
        return told


def _of_record(path: Path) -> dict[str, Any]:
    """What the record in ``path`` says of its run; all that the run itself says where that lies beside it."""
    if not can_load(path):
        return {}
    captures = list(frames_of(path.parent).values()) if path.is_dir() else []
    source = store.source_of(captures[-1] if captures else path)
    if not (path.parent / RESULT).is_file():
        return source
    try:
        beside = load_run(path.parent)
    except RecordError:  # damaged: the figure does not need it
        return source
    same = all(source.get(name) == beside.source[name] for name in ("run", "step"))
    return of_run(beside) if same else source


@cache
def _versions() -> dict[str, str]:
    names = ("fpt_viz", "matplotlib", "numpy", "plotly")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def sidecar(path: Path) -> Path:
    """Where the facts of the figure at ``path`` stand: ``heads.pdf.json`` beside ``heads.pdf``."""
    return path.with_name(f"{path.name}.json")


def write_sidecar(path: Path, figure: Description, told: Mapping[str, Any], content: bytes) -> None:
    """Write what is known of the figure whose file holds ``content``."""
    facts: dict[str, Any] = {
        "kind": KIND,
        "schema": SCHEMA,
        "file": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "title": figure.title,
        "alt": figure.alt,
        "caption": figure.caption(),
        "caption_latex": figure.caption(latex=True),
        **told,
    }
    store.write_json(sidecar(path), json.loads(json.dumps(facts, default=str)))


def read(path: Path) -> dict[str, Any]:
    """What the figure at ``path`` says of itself: its sidecar where there is one, else its metadata.

    Raises:
        RecordError: There is no such file, or it says nothing.
    """
    if not path.is_file():
        raise RecordError(f"there is no figure {path}")
    beside = sidecar(path)
    if beside.is_file():
        facts = store.read_json(beside)
        if not isinstance(facts, dict) or facts.get("kind") != KIND:
            raise RecordError(f"{beside} does not say how {path.name} was made: it is no file that fpt_viz wrote")
        schema = facts.get("schema", 0)
        if isinstance(schema, int) and schema > SCHEMA:
            raise RecordError(f"{beside} has a newer schema than {SCHEMA}: use a newer fpt_viz")
        return _checked(facts, beside)
    told = _embedded(path)
    if told is None:
        raise RecordError(
            f"{path} says nothing of how it was made, and {beside.name} is not beside it: save it again with "
            "fpt-viz figure"
        )
    return _checked(told, path)


def _checked(facts: dict[str, Any], path: Path) -> dict[str, Any]:
    """``facts``, each of the type that is written; an error names ``path``, which they stand in."""
    inputs = facts.get("inputs", [])
    wrong = [name for name in _TEXTS if not isinstance(facts.get(name, ""), str)]
    wrong += ["schema"] if not isinstance(facts.get("schema", 0), int) else []
    wrong += ["numbers_sha256"] if "numbers_sha256" not in facts else []
    if not isinstance(inputs, list) or not all(isinstance(e, dict) and isinstance(e.get("path"), str) for e in inputs):
        wrong.append("inputs")
    if wrong:
        raise RecordError(f"{path} was altered: {', '.join(wrong)} is not what fpt_viz writes there; save it again")
    return facts


def _embedded(path: Path) -> dict[str, Any] | None:
    """What stands in the metadata of the file, by its kind."""
    if path.stat().st_size > MOST_BYTES:
        return None
    content, suffix = path.read_bytes(), path.suffix.lower().removeprefix(".")
    found: str | None = None
    if suffix == "pdf":
        match = re.search(rb"/Keywords \(((?:[^\\()]|\\.)*)\)", content, re.DOTALL)
        found = re.sub(r"\\(.)", r"\1", match[1].decode("latin-1")) if match else None
    elif suffix == "png":
        from PIL import Image

        with Image.open(path) as picture:
            found = picture.info.get("Source")
    elif suffix == "svg":
        found = next((node.text for node in _nodes(content) if node.text and '"numbers_sha256"' in node.text), None)
    elif suffix == "html":
        match = re.search(rb'<meta name="source" content="([^"]*)">', content)
        found = html.unescape(match[1].decode()) if match else None
    elif suffix in ("eps", "pgf"):
        lines = re.findall(rb"^%(?:% |FptViz)About: (.*)$", content, re.MULTILINE)
        found = b"".join(lines).decode("ascii", "replace") or None
    try:
        told = json.loads(found) if found else None
    except ValueError:
        return None
    return told if isinstance(told, dict) and "numbers_sha256" in told else None


def _nodes(content: bytes) -> list[ET.Element]:
    try:
        return list(ET.fromstring(content).iter())  # noqa: S314 (the user's own file; no external entity is fetched)
    except ET.ParseError:
        return []

"""Where a saved figure comes from, kept in the file and beside it, and how it is made again.

Beside ``heads.pdf`` stands ``heads.pdf.json``; the same facts, less the file's own checksum, are in its metadata.
Paths are relative to the folder that the figure lies in, and so is the command: run there, it makes the file again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
import hashlib
import html
from importlib.metadata import version
import json
import os
from pathlib import Path
import platform
import re
import shlex
from typing import Any
from xml.etree import ElementTree as ET

from fpt_viz.errors import RecordError
from fpt_viz.export import numbers
from fpt_viz.export.description import Description
from fpt_viz.records import RunRecord, store

KIND = "figure"
SCHEMA = 1
MOST_BYTES = 200_000_000
"""Of a file whose metadata is read."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a figure was made, in the words of the command line."""

    figure: str
    """An entry of ``figures``."""
    inputs: tuple[Path, ...]
    """Run folders, or files of arrays."""
    settings: tuple[str, ...] = ()
    """Its options, as ``NAME=VALUE``."""
    records: tuple[RunRecord, ...] = field(default=(), repr=False)
    """The runs that were read."""

    def command(self, path: Path, options: Sequence[str] = ()) -> str:
        """What makes ``path`` again, run in its folder; ``options`` are those of the page."""
        inputs = [relative(each, path.parent) for each in self.inputs]
        settings = [_moved(setting, path.parent) for setting in self.settings]
        words = ["fpt-viz", "figure", self.figure, *inputs, "-o", path.name, *options]
        return shlex.join([*words, *(["--set", *settings] if settings else [])])


def relative(path: Path, folder: Path) -> str:
    """``path`` as seen from ``folder``; whole where they share no drive."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def _moved(setting: str, folder: Path) -> str:
    """A setting whose value is a file of an array, its path as seen from ``folder``."""
    name, _, value = setting.partition("=")
    return f"{name}={relative(Path(value), folder)}" if value.endswith(".npy") else setting


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
    figure: Description, path: Path, *, recipe: Recipe | None = None, options: Sequence[str] = ()
) -> dict[str, Any]:
    """What is kept in the metadata of the file at ``path``."""
    inputs = [] if recipe is None else [_input(each, recipe, path.parent) for each in recipe.inputs]
    told = {
        "figure": None if recipe is None else recipe.figure,
        "command": None if recipe is None else recipe.command(path, options),
        "inputs": inputs or None,
        "source": figure.source,
        "numbers_sha256": numbers.sha256(figure),
        "versions": _versions(),
    }
    return {name: value for name, value in told.items() if value is not None}


def _input(path: Path, recipe: Recipe, folder: Path) -> dict[str, Any]:
    own = next((record for record in recipe.records if record.path == path), None)
    return {"path": relative(path, folder)} | ({"sha256": store.sha256(path)} if own is None else of_run(own))


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
        if facts.get("schema", 0) > SCHEMA:
            raise RecordError(f"{beside} has a newer schema than {SCHEMA}: use a newer fpt_viz")
        return facts
    told = _embedded(path)
    if told is None:
        raise RecordError(
            f"{path} says nothing of how it was made, and {beside.name} is not beside it: save it again with "
            "fpt-viz figure"
        )
    return told


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

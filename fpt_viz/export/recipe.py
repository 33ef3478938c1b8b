"""How a figure is made: the command for it, and the Python call that it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import json
import math
import os
from pathlib import Path
import shlex
import tomllib
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from fpt_viz.export.description import Description
from fpt_viz.records import RunRecord


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a figure was made, in the words of the command line."""

    figure: str
    """An entry of ``figures``."""
    inputs: tuple[Path, ...]
    """Run folders, files of single records, or files of arrays."""
    settings: tuple[str, ...] = ()
    """Its options, as ``NAME=VALUE``."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Options whose value is a file, by name."""
    records: tuple[RunRecord, ...] = field(default=(), repr=False)
    """The runs that were read."""

    def command(self, path: Path, options: Sequence[str] = ()) -> str:
        """What makes ``path`` again, run in its folder; ``options`` are those of the page."""
        inputs = [relative(each, path.parent) for each in self.inputs]
        files = [f"{name}={relative(each, path.parent)}" for name, each in self.files.items()]
        words = ["fpt-viz", "figure", self.figure, *inputs, "-o", path.name, *options]
        settings = [*self.settings, *files]
        return shlex.join([*words, *(["--set", *settings] if settings else [])])


@dataclass(frozen=True, kw_only=True)
class Made:
    """How a figure was made in Python."""

    call: str
    """In words, what is long cut short."""
    recipe: Recipe | None = None
    """The same on the command line, where that can say it."""
    why_not: str = ""
    """Why it cannot."""
    inputs: tuple[Path, ...] = ()
    """The run folders and files that are known to take part, where there is no recipe."""


_MADE: WeakKeyDictionary[Description, Made] = WeakKeyDictionary()
UNKNOWN = Made(call="", why_not="it was put together, or changed, in Python")


def note(figure: Description, made: Made) -> None:
    """Remember how ``figure`` was made; what is made of it by ``replace`` is another figure, and has no such note."""
    _MADE[figure] = made


def made(figure: Description) -> Made:
    """How ``figure`` was made."""
    return _MADE.get(figure, UNKNOWN)


def relative(path: Path, folder: Path) -> str:
    """``path`` as seen from ``folder``; whole where they share no drive."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def as_setting(value: Any) -> str | None:
    """``value`` as ``--set`` reads it; None where that cannot say it."""
    text = _toml(_plain(value))
    if text is None:
        return None
    try:
        read = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None
    return text if repr(read) == repr(_plain(value)) else None


def _plain(value: Any) -> Any:
    """``value`` with numpy's scalars as Python's, and every sequence as a list."""
    if isinstance(value, np.generic):
        return value.item()
    return [_plain(each) for each in value] if isinstance(value, list | tuple | range) else value


def _toml(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else {"nan": "nan", "inf": "inf", "-inf": "-inf"}[repr(value)]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        parts = [_toml(each) for each in value]
        return None if None in parts else f"[{', '.join(part for part in parts if part is not None)}]"
    return None

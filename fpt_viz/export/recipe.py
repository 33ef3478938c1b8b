"""How a figure is made: the command for it, and the Python call that it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
import os
from pathlib import Path
import shlex
from weakref import WeakKeyDictionary

from fpt_viz.export.description import Description
from fpt_viz.export.settings import read_setting
from fpt_viz.records import RunRecord
from fpt_viz.records.store import Stamp


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a figure was made, in the words of the command line.

    Paths are resolved when it is made, so that they name the same files from another working folder.
    """

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(path.resolve() for path in self.inputs))
        object.__setattr__(self, "files", {name: path.resolve() for name, path in self.files.items()})
        runs = tuple(replace(record, path=record.path.resolve()) for record in self.records)
        object.__setattr__(self, "records", runs)

    def command(self, path: Path, options: Sequence[str] = ()) -> str:
        """What makes ``path`` again, run in its folder; ``options`` are those of the page."""
        inputs = [_no_option(relative(each, path.parent)) for each in self.inputs]
        files = [f"{name}={_no_value(relative(each, path.parent))}" for name, each in self.files.items()]
        words = ["fpt-viz", "figure", self.figure, *inputs, "-o", _no_option(path.name), *options]
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
    stamp: Stamp = ()
    """How the files that hold what is shown were when it was read."""


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


def _no_option(name: str) -> str:
    """``name`` so that no parser takes it for an option."""
    return f"./{name}" if name.startswith("-") else name


def _no_value(name: str) -> str:
    """``name`` so that ``--set`` reads it as this text."""
    return name if read_setting(name.strip()) == name else f"./{name}"

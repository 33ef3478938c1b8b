"""Guided notebooks, the records that they open, the pages about these: where they lie, and how a reader gets copies.

A wheel carries them in ``fpt_viz/_shipped``, laid out as in a checkout, so that ``../data/results`` is the same path
from every notebook.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
import filecmp
import os
from pathlib import Path
import shutil
import tempfile

from fpt_viz.errors import ConfigError, SourceError

PACKAGE = Path(__file__).parent
NOTEBOOKS, RESULTS = "notebooks", "data/results"
PAGES = ("data/README.md", "data/RESULTS.md")
"""What is written about the data sets and the records, and named in notebooks."""
FIRST = f"{NOTEBOOKS}/01_train_and_look.ipynb"
"""The notebook to begin with."""


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What a folder holds of ours after copying; each name is of a notebook, page or record, below the folder."""

    folder: Path
    new: list[str] = field(default_factory=list)
    """Copied now."""
    same: list[str] = field(default_factory=list)
    """There already, and the same."""
    kept: list[str] = field(default_factory=list)
    """There already, and not the same: changed by the reader, or of another version. Left as they are."""


def checkout() -> Path | None:
    """The top of the checkout that this package runs from; None for an installed wheel."""
    top = PACKAGE.parent
    return top if (top / FIRST).is_file() and (top / "pyproject.toml").is_file() else None


def source() -> Path:
    """The folder that holds ``notebooks`` and ``data``.

    Raises:
        SourceError: This installation has none.
    """
    packed = PACKAGE / "_shipped"
    found = packed if (packed / FIRST).is_file() else checkout()
    if found is None:
        raise SourceError(f"{PACKAGE} carries no notebooks: install the wheel of fpt_viz anew, or work in a checkout")
    return found


def copy_to(folder: Path) -> Copied:
    """Copy notebooks, pages and records into ``folder``, and write over nothing that is there.

    A notebook or a page is copied as one file, a record (a run, a table) as one folder; each appears whole or not at
    all, so a copy that was cut off is mended by copying again. What is there under the same name stays, whether the
    reader changed it or an older version brought it; to have ours, rename or remove that and copy again.

    Args:
        folder: Made where it is not there.

    Raises:
        ConfigError: ``folder`` is no folder, or cannot be written to.
        SourceError: This installation has nothing to copy.
    """
    ours = source()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: name a folder for the notebooks, such as fpt_viz_lab")
    copied = Copied(folder=folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if folder.resolve() == ours.resolve():
            copied.same.extend(_units(ours))
            return copied
        with tempfile.TemporaryDirectory(prefix=".fpt_viz_", dir=folder) as beside:
            for name in _units(ours):
                _copy(ours / name, folder / name, Path(beside), copied)
    except OSError as error:
        where = getattr(error, "filename", None) or folder
        raise ConfigError(
            f"notebooks cannot be copied to {folder}: {error.strerror or error} ({where}); name another folder: "
            "fpt-viz lab DIR"
        ) from error
    return copied


def _units(ours: Path) -> Iterator[str]:
    """What is copied as one: each notebook, each page, and each folder of records that holds files of its own."""
    yield from (f"{NOTEBOOKS}/{path.name}" for path in sorted((ours / NOTEBOOKS).glob("*.ipynb")))
    yield from (name for name in PAGES if (ours / name).is_file())
    waiting = [ours / RESULTS]
    while waiting:
        for path in sorted(path for path in waiting.pop(0).iterdir() if path.is_dir()):
            if any(inner.is_file() for inner in path.iterdir()):
                yield path.relative_to(ours).as_posix()
            else:
                waiting.append(path)


def _copy(theirs: Path, target: Path, beside: Path, copied: Copied) -> None:
    """Let ``target`` be a copy of ``theirs`` unless something is there; ``beside`` is on the same disk."""
    name = target.relative_to(copied.folder).as_posix()
    if os.path.lexists(target):
        (copied.same if _is_same(theirs, target) else copied.kept).append(name)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = beside / "draft"
    for file in _files(theirs):
        at = draft / file.relative_to(theirs)  # a file is at "." below itself, which is the draft
        at.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, at)  # not its mode: a copy may be written to where an installation may not
    draft.rename(target)
    copied.new.append(name)


def _files(theirs: Path) -> list[Path]:
    """What ``theirs`` is or holds, without what a run in progress leaves in its folder."""
    if theirs.is_file():
        return [theirs]
    found = sorted(path for path in theirs.rglob("*") if path.is_file())
    return [path for path in found if path.suffix not in {".lock", ".part"}]


def _is_same(theirs: Path, target: Path) -> bool:
    """Whether ``target`` holds what ``theirs`` does; what else lies in its folder does not matter."""
    pairs = [(file, target / file.relative_to(theirs)) for file in _files(theirs)]
    return all(there.is_file() and filecmp.cmp(file, there, shallow=False) for file, there in pairs)

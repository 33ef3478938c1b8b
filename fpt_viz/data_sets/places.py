"""Where the files of a data set may lie, in the order in which they are looked for."""

from __future__ import annotations

from collections.abc import Iterable
import os
from pathlib import Path

import platformdirs

from fpt_viz.errors import SourceError

VARIABLE = "FPT_VIZ_DATA"
"""Environment variable that names a folder which holds one folder a data set."""
SYSTEM = Path("/usr/share/datasets")
"""Where Debian's packages put data sets."""


def cache_folder() -> Path:
    """The user's cache of this package; :data:`VARIABLE` is looked at before it."""
    return platformdirs.user_cache_path("fpt_viz")


def folders_of(name: str, data_dir: str | Path | None = None) -> list[Path]:
    """The folders on this machine that may hold the data set ``name``, those that exist, first choice first.

    ``data_dir`` (by default what :data:`VARIABLE` names), the user's cache, then :data:`SYSTEM`; a folder is named as
    the data set, or with hyphens for its underscores.

    Raises:
        SourceError: ``data_dir`` is no folder.
    """
    data_dir = data_dir or os.environ.get(VARIABLE)
    roots = [cache_folder() / "data", SYSTEM]
    if data_dir:
        given = Path(data_dir).expanduser()
        if not given.is_dir():
            raise SourceError(f"{given} is no folder: {VARIABLE} names one that holds a folder a data set ({name}/...)")
        roots.insert(0, given)
    names = dict.fromkeys((name, name.replace("_", "-")))
    return [root / each for root in roots for each in names if (root / each).is_dir()]


def told(data_dir: str | Path | None = None) -> str:
    """The folders that are looked through, for a message after "in no folder that"."""
    given = data_dir or os.environ.get(VARIABLE)
    first = f"{VARIABLE} names ({given})" if given else f"{VARIABLE} names (it is not set)"
    return f"{first}, nor in {cache_folder() / 'data'} or {SYSTEM}"


def wrong_file(path: Path, *, wanted: str, found: str, cure: str) -> SourceError:
    """The error of a file that is not what it should be."""
    return SourceError(f"{path}: wanted {wanted}, found {found}; {cure}")


def file_size(path: Path) -> int:
    """Of the file at ``path``, in bytes; an error where it cannot be looked at."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error


def sorted_names(paths: Iterable[Path]) -> str:
    """The file names in ``paths``, for a message; the first four."""
    names = sorted(path.name for path in paths)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "no file"

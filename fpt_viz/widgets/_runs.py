"""The runs in a folder, as rows of a table: finished ones with their numbers, others with what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
import os
from pathlib import Path
import tomllib
from typing import Any

from fpt_viz.errors import FptVizError
from fpt_viz.records import RunRecord, load_run
from fpt_viz.records.run import ADAPTER, CHECKPOINT, CONFIG, RESULT, STEPS, init_name
from fpt_viz.widgets._curves import Curves, levels_of, plain

MARKS = (CONFIG, RESULT, STEPS, CHECKPOINT, ADAPTER)
"""A folder that holds one of these holds a run, or what is left of one."""
N_POINTS = 300
"""Of one curve in the page."""
BROKEN = (FptVizError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError)
"""What reading a folder of any content may raise; a damaged run is a row and no crash."""


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run folder."""

    path: str
    """Below the folder that was searched; ``.`` for itself."""
    status: str
    """``finished``, ``unfinished`` or ``damaged``."""
    reason: str = ""
    """Why it is not finished."""
    cells: dict[str, Any] = field(default_factory=dict)
    """By column; None where nothing is known."""
    options: dict[str, str] = field(default_factory=dict)
    """The whole config, flat, by dotted name."""
    name: str = ""
    """What sets a finished run apart in a legend."""
    curves: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    levels: list[list[Any]] = field(default_factory=list)


def found(folder: Path) -> list[RunRow]:
    """Every run below ``folder``, by path; links to folders are not followed."""
    rows = []
    for path, trouble in _candidates(folder):
        below = path.relative_to(folder).as_posix()
        rows.append(RunRow(path=below, status="damaged", reason=trouble) if trouble else _row(path, below))
    return sorted(rows, key=lambda row: row.path)


def _candidates(folder: Path) -> Iterator[tuple[Path, str]]:
    """Folders that hold a run, and those that cannot be looked into with the reason."""
    troubles: list[OSError] = []
    for place, inner, names in os.walk(folder, onerror=troubles.append):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if any(mark in names for mark in MARKS):
            yield Path(place), ""
    for trouble in troubles:
        yield Path(trouble.filename), f"the folder cannot be read: {trouble.strerror or trouble}"


def _row(path: Path, below: str) -> RunRow:
    try:
        return _finished(load_run(path), below)
    except BROKEN as error:
        told = str(error) if isinstance(error, FptVizError) else f"{type(error).__name__}: {error}"
    unfinished = (path / CONFIG).exists() and not (path / RESULT).exists()
    config = _config(path)
    cells = _of_config(config)
    n_steps = _lines(path / STEPS)
    if unfinished and config:
        told = f"{n_steps} of at most {cells['n_steps']} steps are saved; {told}"
    return RunRow(
        path=below,
        status="unfinished" if unfinished and config else "damaged",
        reason=told,
        cells={**cells, "n_steps": n_steps},
        options=flat(config),
    )


def _finished(record: RunRecord, below: str) -> RunRow:
    test, config = record.evaluation, record.config
    cells = {
        **_of_config(config),
        "n_steps": record.result["n_steps"],
        "solved": record.steps_to_solve,
        "accuracy": plain(test.accuracy),
        "loss": plain(test.loss),
    }
    told = {"accuracy": plain(test.accuracy), "low": plain(test.interval[0]), "high": plain(test.interval[1])}
    return RunRow(
        path=below,
        status="finished",
        reason=record.note,
        cells=cells,
        options=flat(config),
        name=record.name,
        curves=Curves(record.steps).to_page(N_POINTS),
        evaluation={**told, "split": test.split, "n_examples": test.n_examples},
        levels=levels_of([test]),
    )


def _of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that a config fills, as far as it can be read."""

    def at(*names: str) -> Any:
        value: Any = config
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    trained, init = at("trained"), at("backbone", "init")
    return {
        "task": at("task", "name"),
        "backbone": at("backbone", "name"),
        "init": init_name(init) if isinstance(init, str) else None,
        "trained": ", ".join(map(str, trained)) if isinstance(trained, list) else None,
        "learning_rate": at("train", "learning_rate"),
        "seed": at("train", "seed"),
        "n_steps": at("train", "n_steps"),
    }


def _config(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _lines(path: Path) -> int | None:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return None


def flat(data: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """``data`` by dotted name, in words."""
    words: dict[str, str] = {}
    for name, value in data.items():
        if isinstance(value, Mapping):
            words |= flat(value, f"{above}{name}.")
        else:
            words[f"{above}{name}"] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return words


def differences(rows: list[RunRow]) -> dict[str, list[str | None]]:
    """The options in which ``rows`` are not all alike, one value a row; None where a run does not say."""
    names = dict.fromkeys(name for row in rows for name in row.options)
    values = {name: [row.options.get(name) for row in rows] for name in names}
    return {name: each for name, each in values.items() if len(set(each)) > 1}

"""Numbers and tables as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fpt_viz.cli.answer import Table

if TYPE_CHECKING:
    import pandas as pd


def percent(value: float) -> str:
    """``"84.38 %"``."""
    return f"{100 * value:.2f} %"


def between(interval: Sequence[float]) -> str:
    """``"95 % interval 98.10 to 99.95 %"``, of shares."""
    return f"95 % interval {100 * interval[0]:.2f} to {100 * interval[1]:.2f} %"


def signed(value: float) -> str:
    """``"+0.0312"``; a change that is nothing to four decimals has no sign."""
    rounded = f"{value:+.4f}"
    return "0.0000" if float(rounded) == 0 else rounded


def span(interval: Sequence[float], digits: int = 3) -> str:
    """``"0.551 to 0.602"``."""
    return f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"


def noted(note: str, task: str) -> list[str]:
    """What a reader must know of a task, as lines for people: one, or none where there is nothing."""
    return [f"{task}: {note}"] if note else []


def word(value: Any) -> str:
    """``value`` in a cell of a table: four digits of a float, ``-`` for nothing."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        nested = any(isinstance(item, list | tuple) for item in value)
        return ("; " if nested else ", ").join(map(word, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {word(item)}" for name, item in value.items()) or "-"
    return str(value)


def framed(frame: pd.DataFrame, n_rows: int = 10) -> Table:
    """The first rows of a pandas table."""
    shown = frame.head(n_rows)
    columns = tuple(str(name).replace("_", " ") for name in shown.columns)
    return Table(columns, [[word(value) for value in row] for row in shown.itertuples(index=False)])

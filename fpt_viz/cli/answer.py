"""What a command answers: one JSON object for programs, a few lines and tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
import json
import math
import os
import sys
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows under their column names; numbers should come as text, rounded for reading."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Answer:
    """What is printed at the end of a command that went well."""

    data: Mapping[str, Any]
    """Of ``--json``."""
    shown: Sequence[str | Table] = field(default_factory=tuple)
    """For people: lines of text and tables, in order."""
    exit_code: int = 0

    def print(self, *, as_json: bool) -> None:
        """Print the answer on stdout."""
        if as_json:
            print(json.dumps(plain(self.data), allow_nan=False))
        else:
            _show(self.shown)


def _show(shown: Iterable[str | Table]) -> None:
    terminal = sys.stdout.isatty()
    for part in shown:
        if isinstance(part, Table) and terminal:
            _draw(part)
        else:
            print(part if isinstance(part, str) else _aligned(part))


def _draw(table: Table) -> None:
    """Print ``table`` on a terminal, as wide as that allows."""
    from rich import box, console, table as rich_table

    drawn = rich_table.Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, show_header=any(table.columns))
    for i, name in enumerate(table.columns):
        drawn.add_column(name, justify="right" if _are_numbers(table, i) else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*row)
    console.Console(highlight=False, markup=False, emoji=False).print(drawn)


def _aligned(table: Table) -> str:
    """``table`` in columns of spaces."""
    lines = [table.columns, *table.rows] if any(table.columns) else table.rows
    widths = [max((len(line[i]) for line in lines), default=0) for i in range(len(table.columns))]
    right = [_are_numbers(table, i) for i in range(len(table.columns))]
    told = []
    for line in lines:
        columns = zip(line, widths, right, strict=True)
        told.append(
            "  ".join(cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right in columns)
        )
    return "\n".join(line.rstrip() for line in told)


def _are_numbers(table: Table, column: int) -> bool:
    return all(_is_number(row[column]) for row in table.rows)


def _is_number(text: str) -> bool:
    """Whether ``text`` is a number, alone or in per cent; nothing (``-``) may stand in a column of numbers."""
    try:
        float(text.removesuffix(" %"))
    except ValueError:
        return text == "-"
    return True


def plain(value: Any) -> Any:
    """``value`` as JSON can say it: numbers that are not finite as null, paths as text, tensors and tuples as lists."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

"""Tables for papers and pages: the same cells as LaTeX, Markdown, HTML and CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
import html
from pathlib import Path
from typing import Any

from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.export._latex import breakable, escaped
from fpt_viz.records import store

LONG_CELL = 28
"""Letters; a longer cell is set in lines."""
LINE, LEAST_SHARE = 70, 0.24
"""Letters across a page of one column, and the share of it that columns of long cells have at least."""
SUFFIXES = ("csv", "html", "md", "tex")


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """Cells as text, with what is said above and below them."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[tuple[Any, ...], ...]
    """What the cells were written from, exact, under ``number_columns``; what a csv file holds."""
    number_columns: tuple[str, ...]
    bold: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    """Cells set in bold, by row and column."""
    caption: str = ""
    notes: tuple[str, ...] = ()
    """What stands below: the test behind bold cells, the source of other people's values."""
    label: str = "tab:results"

    def __post_init__(self) -> None:
        for what, names, rows in (
            ("cells", self.columns, self.rows),
            ("numbers", self.number_columns, self.numbers),
        ):
            if any(len(row) != len(names) for row in rows):
                raise ConfigError(f"a table with {len(names)} columns of {what} wants as many in every row")

    def to_latex(self) -> str:
        """A ``table`` in the booktabs style, with its caption and notes; needs the package booktabs."""
        import pandas as pd

        long, last = self._long(), len(self.columns) - 1

        def word(text: str, column: int, *, bold: bool = False) -> str:
            plain = breakable(text) if column in long else escaped(text)
            shown = f"\\textbf{{{plain}}}" if bold else plain
            return f"\\raggedright {shown}" if column in long - {last} else shown  # in the last no row would end

        words = [
            [word(cell, c, bold=(r, c) in self.bold) for c, cell in enumerate(row)] for r, row in enumerate(self.rows)
        ]
        frame = pd.DataFrame(words, columns=[escaped(name) for name in self.columns])
        inner = frame.to_latex(index=False, escape=False, column_format=self._alignment())
        notes = f"\n\\par\\smallskip{{\\footnotesize {escaped(' '.join(self.notes))}}}" if self.notes else ""
        return (
            f"\\begin{{table}}[htbp]\n\\centering\n\\caption{{{escaped(self.caption)}}}\n\\label{{{self.label}}}\n"
            f"{inner.rstrip()}{notes}\n\\end{{table}}\n"
        )

    def _alignment(self) -> str:
        """Words to the left, columns of numbers to the right; long words in lines, so that the table fits the page."""
        long = self._long()
        others = [max(map(len, (name, *(row[c] for row in self.rows)))) for c, name in enumerate(self.columns)]
        taken = sum(letters + 2.5 for c, letters in enumerate(others) if c not in long) / LINE
        wide = f"p{{{(max(LEAST_SHARE, 0.97 - taken) / max(1, len(long))):.2f}\\linewidth}}"
        plain = ["r" if self._numeric(c) else "l" for c in range(len(self.columns))]
        return "".join(wide if c in long else kind for c, kind in enumerate(plain))

    def _long(self) -> set[int]:
        """The columns whose words are set in several lines."""
        return {c for c in range(len(self.columns)) if any(len(row[c]) > LONG_CELL for row in self.rows)}

    def _numeric(self, column: int) -> bool:
        cells = [row[column] for row in self.rows]
        return bool(cells) and all(not cell or cell[0] in "0123456789-+" for cell in cells)

    def to_markdown(self) -> str:
        """A pipe table with its caption above and its notes below."""

        def line(cells: Sequence[str]) -> str:
            return f"| {' | '.join(cells)} |"

        rule = ["---:" if self._numeric(c) else "---" for c in range(len(self.columns))]
        words = [
            [f"**{_plain(cell)}**" if (r, c) in self.bold else _plain(cell) for c, cell in enumerate(row)]
            for r, row in enumerate(self.rows)
        ]
        table = "\n".join([line([_plain(name) for name in self.columns]), line(rule), *map(line, words)])
        return "\n\n".join(part for part in (self.caption, table, *self.notes) if part) + "\n"

    def to_html(self) -> str:
        """A ``table`` element with caption and notes; no style, and nothing that a cell says becomes markup."""
        head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in self.columns)
        body = []
        for r, row in enumerate(self.rows):
            cells = [
                f"<td><strong>{html.escape(cell)}</strong></td>"
                if (r, c) in self.bold
                else f"<td>{html.escape(cell)}</td>"
                for c, cell in enumerate(row)
            ]
            body.append(f"<tr>{''.join(cells)}</tr>")
        notes = "".join(f"<p>{html.escape(note)}</p>\n" for note in self.notes)
        rows = "\n".join(body)
        return (
            f"<table>\n<caption>{html.escape(self.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
            f"<tbody>\n{rows}\n</tbody>\n</table>\n{notes}"
        )

    def to_csv(self) -> str:
        """The numbers behind the cells, exact, one row a row."""
        import pandas as pd

        frame = pd.DataFrame(
            [[_exact(value) for value in row] for row in self.numbers], columns=list(self.number_columns)
        )
        return str(frame.to_csv(index=False, lineterminator="\n"))

    def save(self, path: str | Path) -> Path:
        """Write the table as the suffix of ``path`` says: tex, md, html or csv; the file is whole or not there.

        Raises:
            UnknownNameError: No such file type.
            RecordError: The file cannot be written.
        """
        path = Path(path)
        writers: dict[str, Callable[[], str]] = {
            "csv": self.to_csv,
            "html": self.to_html,
            "md": self.to_markdown,
            "tex": self.to_latex,
        }
        suffix = path.suffix.lower().removeprefix(".")
        if suffix not in writers:
            raise UnknownNameError("file type", suffix, SUFFIXES)
        store.write_bytes(path, writers[suffix]().encode())
        return path


def _exact(value: Any) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def _plain(cell: str) -> str:
    """A cell that no pipe or star of its own can break."""
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("\n", " ")

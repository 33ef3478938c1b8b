"""A notebook as a page: its prose, its code, and what its cells showed, drawn with no kernel and no network."""

from __future__ import annotations

from collections.abc import Iterator
import html
import json
from pathlib import Path
import re
from typing import Any

from site_parts.links import relinked
from site_parts.notebooks import PLOTLY, WIDGET

ANSI = re.compile(r"\x1b\[[0-9;]*m")
NOT_RUN = """:::{note}
Made without running the notebook, so that nothing stands below its cells; `make site` runs it.
:::
"""


def markdown(notebook: Any, stem: str, place: Path | None) -> str:
    """The page of ``notebook`` as Markdown.

    Args:
        notebook: With outputs, or without where ``place`` is None.
        stem: Its file's name.
        place: The folder with its widgets' pages.
    """
    page = f"made/notebooks/{stem}.md"
    cells = list(notebook.cells)
    heading, _, rest = cells[0].source.partition("\n")
    has_plot = any(PLOTLY in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))
    told = f"*A notebook: `make lab` opens it as `notebooks/{stem}.ipynb`, to be run and changed.*"
    parts = ["---", f"plotly: {str(has_plot).lower()}", "---", "", heading, "", told, ""]
    parts += [] if place else [NOT_RUN]
    parts += [relinked(rest, "notebooks", page), ""]
    for cell in cells[1:]:
        if cell.cell_type == "markdown":
            parts += [relinked(cell.source, "notebooks", page), ""]
        elif cell.source.strip():
            parts += [_fenced(cell.source, "ipython3" if re.search(r"^[%!]", cell.source, re.M) else "python"), ""]
            parts += _outputs(cell, stem, place)
    return "\n".join(parts) + "\n"


def _fenced(text: str, language: str) -> str:
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{ticks}{{code-block}} {language}\n{text}\n{ticks}"


def _outputs(cell: Any, stem: str, place: Path | None) -> Iterator[str]:
    said = "".join(output.text for output in cell.outputs if output.output_type == "stream")
    if said.strip():
        yield from (_raw(f'<pre class="cell-output">{html.escape(ANSI.sub("", said).rstrip())}</pre>'), "")
    data = [output.data for output in cell.outputs if "data" in output]
    has_widget = any(WIDGET in one for one in data)
    saved = place / cell.metadata.get("site_page", "none") if place else None
    if has_widget and saved and saved.is_file():
        alt = next((_alt(one["text/html"]) for one in data if "text/html" in one), "") or "A widget"
        yield from (_raw(_framed(f"../../widgets/{stem}/{saved.name}", alt)), "")
        return
    for one in data:
        drawn = _drawn(one)
        if drawn:
            yield from (_raw(drawn), "")


def _drawn(data: dict[str, Any]) -> str:
    """One output as HTML; the richest form that needs no kernel."""
    if PLOTLY in data:
        spec = json.dumps(data[PLOTLY], separators=(",", ":")).replace("<", "\\u003c")
        words = html.escape(str(data.get("text/plain", "A figure")))
        height = int(data[PLOTLY].get("layout", {}).get("height") or 450)
        return (
            f'<div class="plot-card"><div class="plot" role="img" aria-label="{words}" '
            f'style="min-height:{height}px"></div>'
            f'<script type="application/json">{spec}</script><noscript>{words}</noscript></div>'
        )
    if "text/html" in data:
        return f'<div class="cell-html" tabindex="0">{_unindented(str(data["text/html"]))}</div>'
    if "image/svg+xml" in data:
        return f'<div class="cell-html">{_unindented(str(data["image/svg+xml"]))}</div>'
    if "image/png" in data:
        return f'<img class="cell-image" alt="" src="data:image/png;base64,{data["image/png"].strip()}">'
    text = str(data.get("text/plain", ""))
    return f'<pre class="cell-output">{html.escape(ANSI.sub("", text))}</pre>' if text and WIDGET not in data else ""


def _framed(address: str, alt: str) -> str:
    words = html.escape(alt)
    return (
        f'<figure class="widget"><iframe src="{address}" title="{words}" loading="lazy"></iframe>'
        f'<figcaption>A widget as one offline page: what needs Python says so. <a href="{address}">Open it alone</a>'
        f"</figcaption></figure>"
    )


def _alt(text: str) -> str:
    found = re.search(r'alt="([^"]*)"', text)
    return html.unescape(found[1]) if found else ""


def _unindented(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def _raw(text: str) -> str:
    return f"```````{{raw}} html\n{text}\n```````"

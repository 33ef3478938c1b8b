"""Where a file of the repository lies in the site, so that one text serves both."""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path, PurePosixPath
import re

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "made/getting_started.md",
    "CHANGELOG.md": "made/changelog.md",
    "CONTRIBUTING.md": "made/contributing.md",
    "CITATION.cff": "cite.md",
    "data/README.md": "made/data.md",
    "data/RESULTS.md": "made/results.md",
    "benchmarks/README.md": "made/benchmarks.md",
}
"""A file outside of ``docs/`` -> its page there."""
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)


def relinked(text: str, home: str, page: str) -> str:
    """``text`` with its links to files of the repository as the site needs them.

    Pages are linked as pages, example pages as they are, and any other file by its name alone: the reader of the site
    has no checkout, so that there is nothing to open.

    Args:
        text: Markdown.
        home: The folder that its links start from, from the top of the repository.
        page: The page that it becomes, from ``docs/``.
    """
    return outside_fences(text, lambda part: LINK.sub(lambda found: _link(found, home, page), part))


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """``text`` with ``change`` made of all that is no fenced code."""
    parts, last = [], 0
    for fence in FENCE.finditer(text):
        parts += [change(text[last : fence.start()]), fence[0]]
        last = fence.end()
    return "".join([*parts, change(text[last:])])


def _link(found: re.Match[str], home: str, page: str) -> str:
    image, words, target = found.groups()
    path, hash_mark, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", target):
        return found[0]
    named = os.path.normpath(PurePosixPath(home, path))
    if not (ROOT / named).exists():
        return found[0]  # the build says that it leads nowhere
    if image:
        return f"![{words}]({_from(page, os.path.relpath(named, 'docs'))})"
    if named.startswith("docs/examples/"):
        address = _from(page, named.removeprefix("docs/"))
        return f'<a href="{address}">{words.replace("`", "")}</a>'
    if named.startswith("notebooks/") and named.endswith(".ipynb"):
        return f"[{words}]({_from(page, f'made/{named[:-6]}.md')}{hash_mark}{anchor})"
    if named.startswith("docs/") and named.endswith(".md"):
        return f"[{words}]({_from(page, named.removeprefix('docs/'))}{hash_mark}{anchor})"
    if named in PAGES:
        return f"[{words}]({_from(page, PAGES[named])}{hash_mark}{anchor})"
    return words if words.startswith("`") else f"`{named}`" if words == path else f"{words} (`{named}`)"


def _from(page: str, address: str) -> str:
    return os.path.relpath(address, PurePosixPath(page).parent)

"""The JavaScript and styles that come with the package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

MARK = "export default "
"""What a script ends with; the files before it are plain definitions."""


@cache
def text(name: str) -> str:
    """The file ``name`` of ``static/``."""
    return files("fpt_viz.widgets").joinpath("static", name).read_text(encoding="utf-8")


def script(*names: str) -> str:
    """One ES module: the files ``names`` one after the other, of which the last exports what anywidget wants.

    A module that is sent as text cannot import another one, so what several share is put in front.
    """
    return "\n".join(f"// {name}\n{text(name)}" for name in names)

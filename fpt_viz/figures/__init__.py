"""A record or arrays in, a figure out, one file each.

``fpt_viz.figures.head_grid`` is the public object of ``head_grid.py``; ``dir()`` lists all there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fpt_viz import registry

if TYPE_CHECKING:
    from typing import Any

    def __getattr__(name: str) -> Any: ...


registry.namespace("figures")

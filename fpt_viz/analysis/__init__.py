"""Pure functions on arrays and records, one file each; none needs a model.

``fpt_viz.analysis.NAME`` is the public object of ``NAME.py``; ``dir()`` lists all there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fpt_viz import registry

if TYPE_CHECKING:
    from typing import Any

    def __getattr__(name: str) -> Any: ...


registry.namespace("analysis")

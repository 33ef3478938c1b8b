"""The tables and figures of the paper, and of its critics, one file each: which runs, and what is compared with what.

``fpt_viz.experiments.table_1`` is the public object of ``table_1.py``; ``dir()`` lists all there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fpt_viz import registry

if TYPE_CHECKING:
    from typing import Any

    def __getattr__(name: str) -> Any: ...


registry.namespace("experiments")

"""What needs a model and a task: statistics, evaluation and interventions, one file each.

``fpt_viz.measures.head_statistics`` is the public object of ``head_statistics.py``; ``dir()`` lists all there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fpt_viz import registry

if TYPE_CHECKING:
    from typing import Any

    def __getattr__(name: str) -> Any: ...


registry.namespace("measures")

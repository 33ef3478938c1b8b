"""Widgets for notebooks: inspect heads, patches, bits and training by clicking.

``fpt.widgets.AttentionExplorer(source)`` and the others each take what they show (a model, a record, maps, statistics
or arrays) and are named after their class; the file of each is named likewise, ``attention_explorer.py``. All of them
draw with plain JavaScript of this package, which is sent with the widget, and never ask for anything on a network.
"""

from __future__ import annotations

from typing import Any

from fpt_viz import registry


def _class_name(file_name: str) -> str:
    """``AttentionExplorer`` for ``attention_explorer``."""
    return "".join(word.capitalize() for word in file_name.split("_"))


def _public_names() -> list[str]:
    return [_class_name(name) for name in registry.names("widgets")]


def _find(name: str) -> Any:
    by_class = {_class_name(file_name): file_name for file_name in registry.names("widgets")}
    return registry.load("widgets", by_class[name])


registry.publish("fpt_viz.widgets", _public_names, _find)

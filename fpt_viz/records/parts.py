"""The parts of a model that an intervention can take: heads, attention edges and MLPs, as plain tuples and as words.

``(3, 5)`` is head 5 of layer 3, in words ``L3H5``; ``(3, 5, 9, 4)`` the edge of that head by which query token 9 reads
key token 4, ``L3H5:9<4``; ``("mlp", 3)`` the feed-forward layer of layer 3, ``MLP3``. All numbers start at 0.
"""

from __future__ import annotations

import re

from fpt_viz.errors import ConfigError

Head = tuple[int, int]
"""Layer and head."""
Edge = tuple[int, int, int, int]
"""Layer, head, query token and key token."""
Mlp = tuple[str, int]
"""``"mlp"`` and a layer."""
Part = Head | Edge | Mlp

_WORDS = re.compile(r"L(\d+)H(\d+)(?::(\d+)<(\d+))?|MLP(\d+)", re.IGNORECASE)


def layer_of(part: Part) -> int:
    """The layer that ``part`` lies in."""
    return int(part[1] if part[0] == "mlp" else part[0])


def is_head(part: Part) -> bool:
    """Whether ``part`` is a whole head."""
    return len(part) == 2 and part[0] != "mlp"


def words_of(part: Part) -> str:
    """``L3H5``, ``L3H5:9<4`` or ``MLP3``."""
    if part[0] == "mlp":
        return f"MLP{part[1]}"
    edge = f":{part[2]}<{part[3]}" if len(part) == 4 else ""
    return f"L{part[0]}H{part[1]}{edge}"


def part_of(words: str) -> Part:
    """The part that ``words`` names, as :func:`words_of` writes it; upper or lower case.

    Raises:
        ConfigError: They name none.
    """
    found = _WORDS.fullmatch(words.strip())
    if not found:
        raise ConfigError(
            f"{words!r} names no part of a model: write L3H5 for a head, L3H5:9<4 for its edge from query token 9 to "
            "key token 4, MLP3 for a feed-forward layer"
        )
    layer, head, query, key, mlp = (None if number is None else int(number) for number in found.groups())
    if mlp is not None:
        return ("mlp", mlp)
    assert layer is not None and head is not None  # by the pattern
    return (layer, head) if query is None or key is None else (layer, head, query, key)

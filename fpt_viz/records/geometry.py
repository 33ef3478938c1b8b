"""Where each token of a task lies: in which string at which position, or in which box of the image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The places of a task's tokens; one entry a token in each tuple.

    Tokens that lie in strings fill ``groups``, ``group`` and ``position``; tokens that are image patches fill
    ``image_size`` and ``boxes``. The other fields are empty.
    """

    groups: tuple[str, ...] = ()
    """Names of the strings, such as ``("a", "b")``."""
    group: tuple[int, ...] = ()
    """Of each token, the index of its string in ``groups``."""
    position: tuple[int, ...] = ()
    """Of each token, its position in its string."""
    image_size: tuple[int, int] | None = None
    """Height and width of the image, in pixels."""
    boxes: tuple[tuple[int, int, int, int], ...] = ()
    """Of each token, its patch: top, left, height and width, in pixels."""

    def to_json(self) -> dict[str, Any]:
        """Plain data that :meth:`from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Geometry:
        """The geometry that :meth:`to_json` wrote."""
        size = data.get("image_size")
        return cls(
            groups=tuple(data["groups"]),
            group=tuple(data["group"]),
            position=tuple(data["position"]),
            image_size=(size[0], size[1]) if size else None,
            boxes=tuple((b[0], b[1], b[2], b[3]) for b in data["boxes"]),
        )

"""A drawn page without transparency, for file formats that know none."""

from __future__ import annotations

from typing import Any

from matplotlib.collections import Collection
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure as Sheet
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
import numpy as np


def opaque(sheet: Sheet) -> None:
    """Mix every pale colour of ``sheet`` with the white of the page, and lay pictures over each other into one."""
    for axes in sheet.axes:
        _merge(axes.images)
    behind = [text.get_bbox_patch() for text in sheet.findobj(Text)]  # findobj does not look into words
    for artist in [*sheet.findobj(), *(patch for patch in behind if patch is not None)]:
        alpha = artist.get_alpha()
        if not isinstance(alpha, float) or alpha >= 1:
            continue
        artist.set_alpha(None)
        if isinstance(artist, Line2D):
            artist.set_color(_on_white(artist.get_color(), alpha))
        elif isinstance(artist, Patch):
            artist.set_facecolor(_on_white(artist.get_facecolor(), alpha))
        elif isinstance(artist, Collection):
            artist.set_facecolor([_on_white(colour, alpha) for colour in artist.get_facecolor()])
            artist.set_zorder(0.9)  # behind grid and lines, which it would now hide


def _merge(images: Any) -> None:
    """One opaque picture in the place of several that lie over each other."""
    pictures = [image for image in images if isinstance(image, AxesImage)]
    if not pictures:
        return
    merged: Any = None
    for image in pictures:
        painted: Any = np.asarray(image.to_rgba(image.get_array(), norm=True)).astype(np.float64)  # type: ignore[arg-type]
        alpha = painted[..., 3:]
        below = np.ones_like(painted[..., :3]) if merged is None else merged
        merged = painted[..., :3] * alpha + below * (1 - alpha)
    pictures[0].set_data(merged)
    for image in pictures[1:]:
        image.remove()


def _on_white(colour: Any, alpha: float) -> tuple[float, float, float]:
    own = to_rgba(colour)
    share = alpha if own[3] == 1 else own[3]
    red, green, blue = (c * share + (1 - share) for c in to_rgb(own))
    return red, green, blue

"""Images changed at random as in the paper's code: crop with padding, horizontal flip, rotation; a batch at a time.

Lu et al., 2021: kzl/universal-computation, ``datasets/cifar10.py``. What torchvision does image by image on the CPU is
here a few operations on the whole batch, on the device where its pixels lie. Pixels stay unrounded after rotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from jaxtyping import Bool, Float, Int, UInt8
import torch
from torch import Tensor
from torch.nn import functional

PADDING = 4
"""Black pixels added on each side before the crop."""
MAX_DEGREES = 20.0
"""Of the rotation, either way."""


@dataclass(frozen=True, eq=False)
class Changes:
    """What is done to each image of a batch."""

    top: Int[Tensor, " batch"]
    """First row of the crop in the padded image, 0 to 8; 4 moves nothing."""
    left: Int[Tensor, " batch"]
    flip: Bool[Tensor, " batch"]
    """Whether left and right change places after the crop."""
    degrees: Float[Tensor, " batch"]
    """Of the rotation about the centre after the flip, counter-clockwise."""

    def __getitem__(self, part: slice) -> Changes:
        """What is done to some of the images."""
        return Changes(self.top[part], self.left[part], self.flip[part], self.degrees[part])


def drawn(n_images: int, rng: torch.Generator, *, flips: bool) -> Changes:
    """Random changes, on the CPU and on every machine alike."""
    top, left = torch.randint(2 * PADDING + 1, (2, n_images), generator=rng)
    flip = torch.rand(n_images, generator=rng) < 0.5
    degrees = (2 * torch.rand(n_images, generator=rng) - 1) * MAX_DEGREES
    return Changes(top, left, flip & flips, degrees)


def changed(
    pixels: UInt8[Tensor, "batch channel side side"], changes: Changes, patch_size: int
) -> Float[Tensor, "batch channel seq pixel"]:
    """The changed images, already cut into patches: these are points to look at in some order, so order costs nothing.

    Rotation is bilinear; outside of the cropped image all is black.
    """
    device = pixels.device
    side = pixels.shape[-1]
    windows = _cropped(pixels, changes.top.to(device), changes.left.to(device)).float()
    angle = changes.degrees.to(device).deg2rad()
    cos, sin = angle.cos(), angle.sin()
    mirror = 1 - 2 * changes.flip.to(device).float()
    # A point of the result, turned back, is a point of the flipped image, which mirrored is one of the window.
    back = torch.stack([cos * mirror, -sin * mirror, sin, cos], dim=1).view(-1, 2)
    points = (back @ _points(side, patch_size).to(device)).view(len(pixels), 2, -1, patch_size**2)
    return functional.grid_sample(windows, points.permute(0, 2, 3, 1), align_corners=False)


def _cropped(
    pixels: UInt8[Tensor, "batch channel side side"], top: Int[Tensor, " batch"], left: Int[Tensor, " batch"]
) -> UInt8[Tensor, "batch channel side side"]:
    """The window of each padded image: its rows are copied from where they start in memory."""
    batch, channels, side, _ = pixels.shape
    padded = functional.pad(pixels, (PADDING,) * 4)
    stride = side + 2 * PADDING
    first = torch.arange(batch * channels, device=pixels.device).view(batch, channels, 1) * stride**2
    row = torch.arange(side, device=pixels.device) * stride
    start = first + row + (top * stride + left)[:, None, None]
    runs = padded.view(-1).as_strided((padded.numel() - side + 1, side), (1, 1))
    return runs.index_select(0, start.flatten()).view(pixels.shape)


@lru_cache(maxsize=16)
def _points(side: int, patch_size: int) -> Float[Tensor, "2 pixel"]:
    """Horizontal and vertical place of each pixel, patch by patch; the image's edges are at -1 and 1."""
    place = (2 * torch.arange(side) + 1) / side - 1
    vertical, horizontal = torch.meshgrid(place, place, indexing="ij")
    n = side // patch_size
    both = torch.stack([horizontal, vertical]).view(2, n, patch_size, n, patch_size)
    return both.transpose(2, 3).reshape(2, -1)

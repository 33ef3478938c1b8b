"""Handwritten digits of 8 x 8 pixels from scikit-learn: real images that need no download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import torch

from fpt_viz.tasks._patches import Examples, PatchTask
from fpt_viz.tasks._splits import assigned, hashes, split_index

__all__ = ["Digits"]

SIDE = 8
"""Pixels along each side of an image."""
WHITE = 16.0
"""The highest pixel value in the data."""
SHARES = (0.7, 0.15, 0.15)
"""Of the images, by split."""


@dataclass(frozen=True)
class Digits(PatchTask):
    """Which digit is it? An image is a sequence of square patches, row by row; the last token is read out.

    Pixels are 0 to 1. A hash of its pixels decides the split of an image, so that equal images share one; about 70 %
    train, 15 % validate and 15 % test. The paper's image tasks (Lu et al., 2021, https://arxiv.org/abs/2103.05247)
    have the same form, on MNIST and CIFAR-10; no image is altered here.

    Reference:
        E. Alpaydin and C. Kaynak, 1998, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
        https://archive.ics.uci.edu/ml/datasets/Optical+Recognition+of+Handwritten+Digits: its test set of 1,797 images,
        as ``sklearn.datasets.load_digits`` ships it.
    """

    image_shape: ClassVar = (1, SIDE, SIDE)
    class_word: ClassVar = "digit"
    white: ClassVar = WHITE

    patch_size: Literal[1, 2, 4] = 2
    """Pixels along each side of a patch: 64, 16 or 4 tokens."""
    split_seed: int = 0
    """Of the hash that decides which images train, validate and test."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_minimum(split_seed=0)

    def _examples(self, split: str) -> Examples:
        return _images(self.split_seed)[split_index(split)]


@lru_cache(maxsize=4)
def _images(split_seed: int) -> list[Examples]:
    """The images and digits of each split, each image once."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = data.images.astype(np.uint8).reshape(-1, SIDE * SIDE)
    _, first = np.unique(pixels, axis=0, return_index=True)
    pixels, digits = pixels[np.sort(first)], data.target[np.sort(first)].astype(np.int64)
    split = assigned(hashes(pixels, split_seed), SHARES)
    images = torch.from_numpy(pixels).view(-1, 1, SIDE, SIDE)
    rows = [torch.from_numpy(np.flatnonzero(split == i)) for i in range(len(SHARES))]
    return [Examples(images, torch.from_numpy(digits), of_split) for of_split in rows]

"""Handwritten digits of 8 x 8 pixels from scikit-learn: real images that need no download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from jaxtyping import Float, Int, UInt8
import numpy as np
import torch
from torch import Tensor

from fpt_viz.records.geometry import Geometry
from fpt_viz.tasks._splits import assigned, check_wanted, hashes, split_index
from fpt_viz.tasks.base import Batch, Task

__all__ = ["Digits"]

SIDE = 8
"""Pixels along each side of an image."""
WHITE = 16
"""The highest pixel value in the data."""
SHARES = (0.7, 0.15, 0.15)
"""Of the images, by split."""


@dataclass(frozen=True)
class Digits(Task):
    """Which digit is it? An image is a sequence of square patches, row by row; the last token is read out.

    Pixels are 0 to 1. A hash of its pixels decides the split of an image, so that equal images share one; about 70 %
    train, 15 % validate and 15 % test. The paper's image tasks (Lu et al., 2021, https://arxiv.org/abs/2103.05247)
    have the same form, on MNIST and CIFAR-10; no image is altered here.

    Reference:
        E. Alpaydin and C. Kaynak, 1998, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
        https://archive.ics.uci.edu/ml/datasets/Optical+Recognition+of+Handwritten+Digits: its test set of 1,797 images,
        as ``sklearn.datasets.load_digits`` ships it.
    """

    patch_size: Literal[1, 2, 4] = 2
    """Pixels along each side of a patch: 64, 16 or 4 tokens."""
    split_seed: int = 0
    """Of the hash that decides which images train, validate and test."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_minimum(split_seed=0)

    @property
    def n_tokens(self) -> int:
        """The patches of an image."""
        return (SIDE // self.patch_size) ** 2

    @property
    def n_values(self) -> int:
        """The pixels of a patch."""
        return self.patch_size**2

    @property
    def n_readout(self) -> int:
        """The last patch."""
        return 1

    @property
    def output_shape(self) -> tuple[int, ...]:
        """One of ten digits."""
        return (10,)

    @property
    def trivial(self) -> dict[str, float]:
        """Always answering the digit that is most frequent in the test split."""
        _, digits = _images(self.split_seed)[split_index("test")]
        return {"most frequent digit": float(digits.bincount().max()) / len(digits)}

    def sample(self, batch_size: int, rng: torch.Generator, split: str = "train") -> Batch:
        """Random images of a split, with replacement; see :meth:`Task.sample`."""
        images, digits = _images(self.split_seed)[split_index(split)]
        return self._batch(images, digits, torch.randint(len(images), (batch_size,), generator=rng))

    def distinct(self, n_examples: int, split: str, seed: int = 0) -> Batch:
        """Distinct images of a split; see :meth:`Task.distinct`."""
        check_wanted(n_examples)
        images, digits = _images(self.split_seed)[split_index(split)]
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        return self._batch(images, digits, order[:n_examples])

    def n_examples(self, split: str) -> int:
        """Distinct images in a split."""
        return len(_images(self.split_seed)[split_index(split)][0])

    def labels(self, inputs: Float[Tensor, "seq values"]) -> list[str]:
        """The place of each patch, since its pixels fit in no label."""
        return list(self.token_names())

    def token_names(self) -> tuple[str, ...]:
        """``"r2c3"`` for the patch in row 2 and column 3 of patches."""
        n = SIDE // self.patch_size
        return tuple(f"r{row}c{column}" for row in range(n) for column in range(n))

    def geometry(self) -> Geometry:
        """The box of each patch in the image."""
        size = self.patch_size
        corners = [(top, left) for top in range(0, SIDE, size) for left in range(0, SIDE, size)]
        return Geometry(image_size=(SIDE, SIDE), boxes=tuple((top, left, size, size) for top, left in corners))

    def to_patches(self, images: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch seq values"]:
        """Images cut into tokens; the pixels of a patch go row by row."""
        n = SIDE // self.patch_size
        cut = images.reshape(-1, n, self.patch_size, n, self.patch_size)
        return cut.transpose(2, 3).reshape(-1, self.n_tokens, self.n_values)

    def to_image(self, inputs: Float[Tensor, "batch seq values"]) -> Float[Tensor, "batch height width"]:
        """The images that :meth:`to_patches` cut."""
        n = SIDE // self.patch_size
        cut = inputs.reshape(-1, n, n, self.patch_size, self.patch_size)
        return cut.transpose(2, 3).reshape(-1, SIDE, SIDE)

    def _batch(self, images: Tensor, digits: Tensor, index: Tensor) -> Batch:
        pixels = images[index].float() / WHITE
        return Batch(inputs=self.to_patches(pixels), targets=digits[index, None])


@lru_cache(maxsize=4)
def _images(split_seed: int) -> list[tuple[UInt8[Tensor, "image height width"], Int[Tensor, " image"]]]:
    """The images and digits of each split, each image once."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = data.images.astype(np.uint8).reshape(-1, SIDE * SIDE)
    _, first = np.unique(pixels, axis=0, return_index=True)
    pixels, digits = pixels[np.sort(first)], data.target[np.sort(first)].astype(np.int64)
    split = assigned(hashes(pixels, split_seed), SHARES)
    images = torch.from_numpy(pixels).view(-1, SIDE, SIDE)
    return [(images[split == i], torch.from_numpy(digits[split == i])) for i in range(len(SHARES))]

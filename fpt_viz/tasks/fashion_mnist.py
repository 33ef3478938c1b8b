"""Fashion-MNIST: pieces of clothing of 28 x 28 pixels, in MNIST's place and format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fpt_viz.data_sets.images import ImageSet
from fpt_viz.tasks._images import ImageTask

__all__ = ["FashionMnist"]


@dataclass(frozen=True)
class FashionMnist(ImageTask):
    """Which piece of clothing is it? Shown as MNIST is: 49 tokens of 4 x 4 pixels from 0 to 1.

    No task of the paper; it is harder than MNIST, and Debian has a package of it, ``dataset-fashion-mnist``.

    Reference:
        Xiao, Rasul and Vollgraf, 2017, https://arxiv.org/abs/1708.07747.
    """

    image_set: ClassVar = ImageSet(
        name="fashion_mnist",
        repo_id="zalando-datasets/fashion_mnist",
        config="fashion_mnist",
        image_column="image",
        shape=(1, 28, 28),
        n_classes=10,
    )

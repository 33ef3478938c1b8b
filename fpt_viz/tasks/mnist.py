"""MNIST: handwritten digits of 28 x 28 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fpt_viz.data_sets.images import ImageSet
from fpt_viz.tasks._images import ImageTask

__all__ = ["Mnist"]


@dataclass(frozen=True)
class Mnist(ImageTask):
    """Which digit is it? 49 tokens of 4 x 4 pixels from 0 to 1, nothing normalised and nothing changed.

    As in the authors' code; their text speaks of images of 32 x 32 pixels. Augmentation, where it is asked for, mirrors
    no image.

    Reference:
        LeCun, Bottou, Bengio and Haffner, 1998, "Gradient-based learning applied to document recognition";
        Lu et al., 2021, https://arxiv.org/abs/2103.05247; kzl/universal-computation, ``datasets/mnist.py``.
    """

    image_set: ClassVar = ImageSet(
        name="mnist", repo_id="ylecun/mnist", config="mnist", image_column="image", shape=(1, 28, 28), n_classes=10
    )
    class_word: ClassVar = "digit"
    flips: ClassVar = False

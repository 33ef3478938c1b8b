"""CIFAR-10: photographs of 32 x 32 pixels, in colour, or gray and pixel by pixel as CIFAR-10 LRA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fpt_viz.data_sets.images import ImageSet
from fpt_viz.tasks._images import ImageTask

__all__ = ["Cifar10"]

COLOUR = ((0.4913, 0.4821, 0.4465), (0.2452, 0.2428, 0.2606))
"""Mean and standard deviation of red, green and blue over the 50,000 training images, measured on a copy that had gone
through JPEG, not on the originals."""
GRAY = ((0.5,), (0.5,))
"""As in the authors' code."""


@dataclass(frozen=True)
class Cifar10(ImageTask):
    """Which of ten kinds of thing is it? 64 tokens of 4 x 4 pixels in three colours, normalised and augmented.

    ``gray=True, patch_size=1`` is CIFAR-10 LRA: 1,024 tokens of one gray pixel, after Long Range Arena (Tay et al.,
    2021, https://arxiv.org/abs/2011.04006), augmented as the authors' code does.

    Reference:
        Krizhevsky, 2009, "Learning multiple layers of features from tiny images";
        Lu et al., 2021, https://arxiv.org/abs/2103.05247; kzl/universal-computation, ``datasets/cifar10.py``.
    """

    image_set: ClassVar = ImageSet(
        name="cifar10",
        repo_id="uoft-cs/cifar10",
        config="plain_text",
        image_column="img",
        shape=(3, 32, 32),
        n_classes=10,
        cifar_binary=True,
    )

    augment: bool = True
    gray: bool = False
    """Whether images are shown as their luma, from -1 to 1."""

    @property
    def _shows_gray(self) -> bool:
        return self.gray

    @property
    def _normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return GRAY if self.gray else COLOUR

"""An image as a sequence of square patches, row by row, of which the last says the class."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float, Int, UInt8
import torch
from torch import Tensor

from fpt_viz.errors import ConfigError
from fpt_viz.records.geometry import Geometry
from fpt_viz.tasks._corruptions import some_of
from fpt_viz.tasks._splits import check_wanted
from fpt_viz.tasks.base import Batch, Task

AT_ONCE = 256
"""Images worked on together: enough to be fast, few enough to stay in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Examples:
    """The images of a split, which may be some of a larger array."""

    pixels: UInt8[Tensor, "image channel height width"]
    labels: Int[Tensor, " image"]
    rows: Int[Tensor, " example"]
    """Of each example, its image in ``pixels`` and ``labels``."""


@dataclass(frozen=True)
class PatchTask(Task):
    """Which class is the image of? Its last patch is read out."""

    image_shape: ClassVar[tuple[int, int, int]]
    """Channels, height and width; both sides are equal."""
    placed_corruptions: ClassVar = ("occlude",)
    class_word: ClassVar[str] = "class"
    """What a class is called."""
    white: ClassVar[float] = 255.0
    """The highest pixel value in the data."""
    normalisation: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]] = ((0.0,), (1.0,))
    """Mean and standard deviation of each channel, of pixels from 0 to 1, that are taken away and divided by."""

    patch_size: int = 4
    """Pixels along each side of a patch; divides the image's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_minimum(patch_size=1)
        if self.shape[1] % self.patch_size:
            raise ConfigError(f"patch_size of {self.name} must divide {self.shape[1]}, got {self.patch_size}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image as the task shows it."""
        return self.image_shape

    @property
    def n_tokens(self) -> int:
        """The patches of an image."""
        return self._n_side**2

    @property
    def n_values(self) -> int:
        """The pixels of a patch, in each channel."""
        return self.shape[0] * self.patch_size**2

    @property
    def n_readout(self) -> int:
        """The last patch."""
        return 1

    @property
    def output_shape(self) -> tuple[int, ...]:
        """One of ten classes."""
        return (10,)

    @property
    def trivial(self) -> dict[str, float]:
        """Always answering the class that is most frequent in the test split."""
        test = self._examples("test")
        counts = test.labels[test.rows].bincount()
        return {f"most frequent {self.class_word}": float(counts.max()) / len(test.rows)}

    @abstractmethod
    def _examples(self, split: str) -> Examples:
        """The images of a split, each once."""

    def sample(self, batch_size: int, rng: torch.Generator, split: str = "train") -> Batch:
        """Random images of a split, with replacement; see :meth:`Task.sample`."""
        examples = self._examples(split)
        drawn = torch.randint(len(examples.rows), (batch_size,), generator=rng)
        return self._batch(examples, examples.rows[drawn])

    def distinct(self, n_examples: int, split: str, seed: int = 0) -> Batch:
        """Distinct images of a split, as they are; see :meth:`Task.distinct`."""
        check_wanted(n_examples)
        examples = self._examples(split)
        order = torch.randperm(len(examples.rows), generator=torch.Generator().manual_seed(seed))
        return self._batch(examples, examples.rows[order[:n_examples]])

    def n_examples(self, split: str) -> int:
        """Distinct images in a split."""
        return len(self._examples(split).rows)

    def labels(self, inputs: Float[Tensor, "seq values"]) -> list[str]:
        """The place of each patch, since its pixels fit in no label."""
        return list(self.token_names())

    def token_names(self) -> tuple[str, ...]:
        """``"r2c3"`` for the patch in row 2 and column 3 of patches."""
        return tuple(f"r{row}c{column}" for row in range(self._n_side) for column in range(self._n_side))

    def geometry(self) -> Geometry:
        """The box of each patch in the image."""
        size, (_, height, width) = self.patch_size, self.shape
        corners = [(top, left) for top in range(0, height, size) for left in range(0, width, size)]
        return Geometry(image_size=(height, width), boxes=tuple((top, left, size, size) for top, left in corners))

    @property
    def corruptions(self) -> dict[str, str]:
        """Patches become mid-grey (Zeiler and Fergus, 2014, https://arxiv.org/abs/1311.2901); the class stays."""
        return {
            "occlude": "one patch becomes grey, never the last, which is read out, unless it is asked for by position",
            "occlude_quarter": "a quarter of the patches become grey, never the last, which is read out",
            **super().corruptions,
        }

    def _corrupt(self, batch: Batch, how: str, rng: torch.Generator, at: Bool[Tensor, " seq"] | None) -> Batch:
        if how not in ("occlude", "occlude_quarter"):
            return super()._corrupt(batch, how, rng, at)
        may_change = at if at is not None else torch.arange(self.n_tokens) < max(1, self.n_tokens - 1)
        n_changed = 1 if how == "occlude" else -(-self.n_tokens // 4)
        occluded = some_of(may_change.expand(len(batch), -1), n_changed, rng)
        grey = torch.full((1, 1, self.shape[0], self.patch_size**2), self.white / 2)
        self._normalise(grey)
        return Batch(torch.where(occluded[..., None], grey.flatten(2), batch.inputs), batch.targets)

    def token_at(self, row: int, column: int) -> int:
        """The token whose box holds the pixel in that row and column; the inverse of :meth:`geometry`'s boxes."""
        _, height, width = self.shape
        if not (0 <= row < height and 0 <= column < width):
            raise ConfigError(f"an image of {self.name} has {height} x {width} pixels, none at ({row}, {column})")
        return row // self.patch_size * self._n_side + column // self.patch_size

    def to_patches(self, images: Float[Tensor, "batch height width *channels"]) -> Float[Tensor, "batch seq values"]:
        """Images cut into tokens; a token holds its patch row by row, one channel after the other."""
        planes = images.reshape(*images.shape[:3], self.shape[0]).permute(0, 3, 1, 2)
        return self._cut(planes).reshape(len(images), self.n_tokens, self.n_values)

    def to_image(self, inputs: Float[Tensor, "batch seq values"]) -> Float[Tensor, "batch height width *channels"]:
        """The images that :meth:`to_patches` cut, bit for bit; with an axis of channels where there are several."""
        (channels, height, width), n, size = self.shape, self._n_side, self.patch_size
        cut = inputs.reshape(-1, n, n, channels, size, size)
        images = cut.permute(0, 1, 4, 2, 5, 3).reshape(len(inputs), height, width, channels)
        return images if channels > 1 else images.squeeze(-1)

    def to_pixels(self, inputs: Float[Tensor, "batch seq values"]) -> UInt8[Tensor, "batch height width *channels"]:
        """The images of a batch as the data has them, 0 to :attr:`white`; rounded where they were augmented."""
        images = self.to_image(inputs)
        mean, std = (torch.tensor(values, device=inputs.device) for values in self._normalisation)
        of_channels = (images if self.shape[0] > 1 else images[..., None]) * std + mean
        return (of_channels * self.white).round().clamp(0, self.white).to(torch.uint8).view(images.shape)

    @property
    def _normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.normalisation

    @property
    def _n_side(self) -> int:
        return self.shape[1] // self.patch_size

    def _cut(self, planes: Tensor) -> Tensor:
        """``[batch row column channel y x]``, a view: patch (row, column), and in it pixel (y, x)."""
        n, size = self._n_side, self.patch_size
        cut: Tensor = planes.unflatten(3, (n, size)).unflatten(2, (n, size))
        return cut.permute(0, 2, 4, 1, 3, 5)

    def _batch(self, examples: Examples, rows: Tensor) -> Batch:
        channels, _, _ = self.shape
        inputs = torch.empty(len(rows), self.n_tokens, channels, self.patch_size**2)
        for part, out in zip(rows.split(AT_ONCE), inputs.split(AT_ONCE), strict=True):
            cut = self._cut(examples.pixels.index_select(0, part))
            out.view(cut.shape).copy_(cut)
            self._normalise(out)
        return Batch(inputs=inputs.flatten(2), targets=examples.labels[rows, None])

    def _normalise(self, tokens: Float[Tensor, "batch seq channel pixel"]) -> None:
        """Pixels of the data to what the model is shown, in place."""
        tokens.div_(self.white)
        mean, std = self._normalisation
        if any(mean) or set(std) != {1.0}:
            tokens.sub_(torch.tensor(mean)[:, None]).div_(torch.tensor(std)[:, None])

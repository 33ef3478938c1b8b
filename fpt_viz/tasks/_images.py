"""Tasks on published sets of labelled images: where their examples come from, splits, and augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
import os
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Int, UInt8, UInt64
import numpy as np
import torch
from torch import Tensor

from fpt_viz.data_sets import places
from fpt_viz.data_sets.images import ImageSet, Located, load, locate
from fpt_viz.errors import ConfigError
from fpt_viz.tasks import _augment
from fpt_viz.tasks._patches import AT_ONCE, Examples, PatchTask
from fpt_viz.tasks._splits import hashes, split_index
from fpt_viz.tasks.base import Batch

TEST_ORDER = 0
"""Seed of the order of the test images: the same for every ``split_seed``."""


@dataclass(frozen=True)
class ImageTask(PatchTask):
    """Which class is the image of?

    The test split is the published one. Validation images are held out from the published training split: those
    ``n_validation`` whose pixels come first by a hash that ``split_seed`` starts. So membership and order depend on the
    pixels alone, not on files, layout or machine. Of equal images only one is kept, and none in train or validation
    that is also in test; see :meth:`n_left_out`.

    Files are looked for in ``FPT_VIZ_DATA``, the user's cache, ``/usr/share/datasets``, then fetched from the Hub.
    """

    image_set: ClassVar[ImageSet]
    flips: ClassVar[bool] = True
    """Whether augmentation mirrors images."""

    augment: bool = False
    """Whether training images are changed at random each time: crop after padding by 4 pixels, flip where a class keeps
    its meaning, rotation by up to 20 degrees. Validation and test images, and :meth:`distinct`, never are."""
    n_validation: int = 5000
    """Images held out from the published training split."""
    split_seed: int = 0
    """Of the hash that decides which images validate."""
    revision: str = ""
    """Of the Hub's repository: a branch, tag or commit. Empty takes files on this machine, else the Hub's newest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_minimum(n_validation=1, split_seed=0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image as the task shows it."""
        channels, height, width = self.image_set.shape
        return (1 if self._shows_gray else channels, height, width)

    @property
    def _shows_gray(self) -> bool:
        """Whether colour images are shown as their luma."""
        return False

    def source(self) -> dict[str, Any]:
        """What a record says of where the data came from: ``layout``, ``sha256`` by file name, the Hub's commit."""
        return _located(self.image_set, _data_dir(), self.revision).source()

    def n_left_out(self) -> dict[str, int]:
        """Images that are in no split, since an equal one is kept: of the published ``train`` and ``test`` splits."""
        train, validation, test = (len(rows) for rows in self._rows())
        n_published = {split: len(images.labels) for split, images in self._published().items()}
        return {"train": n_published["train"] - train - validation, "test": n_published["test"] - test}

    def sample(self, batch_size: int, rng: torch.Generator, split: str = "train") -> Batch:
        """Random images of a split, with replacement; training images augmented if the task says so.

        The generator decides which images and what is done to them on every machine alike; interpolated pixels may
        differ in their last digits from one processor to another.
        """
        if not self.augment or split != "train":
            return super().sample(batch_size, rng, split)
        examples = self._examples(split)
        rows = examples.rows[torch.randint(len(examples.rows), (batch_size,), generator=rng)]
        changes = _augment.drawn(batch_size, rng, flips=self.flips)
        inputs = torch.empty(batch_size, self.n_tokens, self.shape[0], self.patch_size**2)
        for start in range(0, batch_size, AT_ONCE):
            part = slice(start, start + AT_ONCE)
            pixels = examples.pixels.index_select(0, rows[part])
            inputs[part] = _augment.changed(pixels, changes[part], self.patch_size).transpose(1, 2)
            self._normalise(inputs[part])
        return Batch(inputs=inputs.flatten(2), targets=examples.labels[rows, None])

    def _examples(self, split: str) -> Examples:
        rows = self._rows()[split_index(split)]
        published = self._published()["test" if split == "test" else "train"]
        return Examples(published.pixels, published.labels, rows)

    def _published(self) -> dict[str, Published]:
        return _published(self.image_set, _data_dir(), self.revision, gray=self._shows_gray)

    def _rows(self) -> list[Int[Tensor, " example"]]:
        return _rows(
            self.image_set, _data_dir(), self.revision,
            gray=self._shows_gray, n_validation=self.n_validation, split_seed=self.split_seed,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Published:
    """A published split."""

    pixels: UInt8[Tensor, "image channel height width"]
    labels: Int[Tensor, " image"]
    fingerprints: UInt64[np.ndarray, " image"]


def _data_dir() -> str:
    """What the environment names, absolute, so that what is kept for it is found again from any folder."""
    given = os.environ.get(places.VARIABLE)
    return str(Path(given).expanduser().absolute()) if given else ""


@lru_cache(maxsize=16)
def _located(image_set: ImageSet, data_dir: str, revision: str) -> Located:
    return locate(image_set, data_dir=data_dir or None, revision=revision)


@lru_cache(maxsize=8)
def _published(image_set: ImageSet, data_dir: str, revision: str, *, gray: bool) -> dict[str, Published]:
    """Both published splits; their pixels stay on the disk until they are looked at."""
    located = _located(image_set, data_dir, revision)
    found = {}
    for split in ("train", "test"):
        decoded = load(image_set, located, split, gray=gray)
        labels = torch.from_numpy(decoded.labels.astype(np.int64))
        found[split] = Published(torch.from_numpy(decoded.pixels), labels, decoded.fingerprints)
    return found


@lru_cache(maxsize=16)
def _rows(
    image_set: ImageSet, data_dir: str, revision: str, *, gray: bool, n_validation: int, split_seed: int
) -> list[Int[Tensor, " example"]]:
    """Of train, validation and test, the rows of their images in the published splits."""
    published = _published(image_set, data_dir, revision, gray=gray)
    test = _once(published["test"])
    train = _once(published["train"])
    train = train[~np.isin(published["train"].fingerprints[train], published["test"].fingerprints)]
    if n_validation >= len(train):
        raise ConfigError(
            f"n_validation of {image_set.name} must leave images to train on: got {n_validation} of {len(train)}"
        )
    train = train[_order(published["train"].fingerprints[train], split_seed)]
    test = test[_order(published["test"].fingerprints[test], TEST_ORDER)]
    return [torch.from_numpy(rows) for rows in (train[n_validation:], train[:n_validation], test)]


def _once(published: Published) -> Int[np.ndarray, " row"]:
    """The rows of images that differ; of equal ones, that with the lowest label, whatever their order in the file."""
    order = np.lexsort((published.labels.numpy(), published.fingerprints))
    ordered = published.fingerprints[order]
    rows: Int[np.ndarray, " row"] = order[np.concatenate([[True], ordered[1:] != ordered[:-1]])]
    return rows


def _order(fingerprints: UInt64[np.ndarray, " image"], seed: int) -> Int[np.ndarray, " image"]:
    """The order of images by a hash of their fingerprints, which differ."""
    order: Int[np.ndarray, " image"] = np.argsort(
        hashes(fingerprints.astype("<u8").view(np.uint8).reshape(-1, 8), seed), kind="stable"
    )
    return order

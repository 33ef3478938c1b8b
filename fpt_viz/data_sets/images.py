"""Labelled images of a data set: which files hold them, in each layout that is known, and their decoded arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
import re
from typing import Any

from jaxtyping import Integer, UInt8
import numpy as np

from fpt_viz.data_sets import places
from fpt_viz.data_sets.cifar_binary import read_cifar_binary
from fpt_viz.data_sets.decoded import Decoded, cached, gray_of
from fpt_viz.data_sets.idx import read_idx
from fpt_viz.data_sets.image_parquet import read_image_parquet
from fpt_viz.errors import SourceError
from fpt_viz.records.store import sha256

SPLITS = ("train", "test")
"""As published; a validation split is held out by the task."""
IDX_PREFIX = {"train": "train", "test": "t10k"}
CIFAR_BATCHES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
CIFAR_BINARY_FOLDER, CIFAR_PYTHON_FOLDER = "cifar-10-batches-bin", "cifar-10-batches-py"
IDX_ENDS = ("images-idx3-ubyte", "labels-idx1-ubyte")
SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.parquet$")

Wanted = dict[str, list[tuple[str, Path | None]]]
"""Of each split, the names of its files in a layout, and the files that are there."""


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """A published set of labelled images, and how its files are named."""

    name: str
    repo_id: str
    """On the Hub."""
    config: str
    """Folder of the parquet files in the repository."""
    image_column: str
    shape: tuple[int, int, int]
    """Channels, height and width of every image."""
    n_classes: int
    cifar_binary: bool = False
    """Published as CIFAR's batches too; where False, as IDX files."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """Globs over the parquet files in the repository."""
        return tuple(f"{self.config}/{split}-*.parquet" for split in SPLITS)


@dataclass(frozen=True, kw_only=True)
class Located:
    """The files of an image set."""

    layout: str
    """``parquet``, ``idx`` or ``cifar_binary``."""
    files: dict[str, tuple[Path, ...]]
    """Of each published split, in order; of IDX files the images', then the labels'."""
    revision: str = ""
    """The Hub's commit; empty for files found on this machine."""

    def source(self) -> dict[str, Any]:
        """What a record says of where the data came from: the layout, each file's SHA-256, the revision."""
        files = {path.name: sha256(path) for paths in self.files.values() for path in paths}
        return {"layout": self.layout, "revision": self.revision, "sha256": files}


def locate(image_set: ImageSet, *, data_dir: str | Path | None = None, revision: str = "") -> Located:
    """The files of ``image_set``: on this machine in the order of :func:`places.folders_of`, else from the Hub.

    Args:
        image_set: What to look for.
        data_dir: Looked at first; by default what ``FPT_VIZ_DATA`` names.
        revision: Of the Hub's repository. Only the Hub's files have one: those on this machine are passed over where
            it is given.

    Raises:
        SourceError: A folder holds some of the files only, or pickles; or there are none and the Hub is out of reach.
    """
    for folder in [] if revision else places.folders_of(image_set.name, data_dir):
        located = _located(folder, "parquet", _parquet(image_set, folder))
        if not located and image_set.cifar_binary:
            located = _located(folder, "cifar_binary", _cifar(folder))
        elif not located:
            located = _located(folder, "idx", _idx(folder))
        if located:
            return located
        _refuse_archives(folder)
    from fpt_viz.hub import data_files  # only now: with files on this machine, nothing of the Hub is imported

    try:
        by_name, commit = data_files(image_set.repo_id, image_set.patterns, revision=revision or None)
    except SourceError as error:
        looked = "" if revision else f"{image_set.name} is in no folder that {places.told(data_dir)}; "
        raise SourceError(f"{looked}{error}") from error
    files = {split: _shards([by_name[name] for name in by_name if f"/{split}-" in f"/{name}"]) for split in SPLITS}
    for split in SPLITS:
        if not files[split]:
            raise SourceError(f"{image_set.repo_id} on the Hub has no {image_set.config}/{split}-*.parquet at {commit}")
    return Located(layout="parquet", files=files, revision=commit)


def load(image_set: ImageSet, located: Located, split: str, *, gray: bool = False) -> Decoded:
    """The decoded images of a published split, memory-mapped from the cache where they were decoded before.

    Args:
        image_set: What the files must hold.
        located: From :func:`locate`.
        split: ``"train"`` or ``"test"``.
        gray: Of colour images, their luma.

    Raises:
        SourceError: A file is not what it should be.
    """
    shape = (1, *image_set.shape[1:]) if gray else image_set.shape
    name = f"{image_set.name}{'-gray' if gray else ''}-{split}"

    def decode() -> tuple[UInt8[np.ndarray, "image channel height width"], UInt8[np.ndarray, " image"]]:
        if gray:
            colour = load(image_set, located, split)
            return gray_of(colour.pixels), colour.labels
        return _read(image_set, located, split)

    return cached(name, located.files[split], shape, decode)


def _read(
    image_set: ImageSet, located: Located, split: str
) -> tuple[UInt8[np.ndarray, "image channel height width"], UInt8[np.ndarray, " image"]]:
    """The images and labels in the files of a split, every one checked."""
    files = located.files[split]
    if located.layout == "idx":
        images = read_idx(files[0], image_set.shape[1:])[:, None]
        labels = read_idx(files[1], ())
        if len(images) != len(labels):
            raise places.wrong_file(
                files[1], wanted=f"{len(images):,} labels, one an image of {files[0].name}", found=f"{len(labels):,}",
                cure="take both files from one copy of the data set",
            )  # fmt: skip
        return images, _checked(labels, files[1], image_set.n_classes)
    parts = []
    for path in files:
        if located.layout == "parquet":
            images, found = read_image_parquet(path, image_set.image_column, image_set.shape)
        else:
            images, found = read_cifar_binary(path)
        parts.append((images, _checked(found, path, image_set.n_classes)))
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _checked(labels: Integer[np.ndarray, " image"], path: Path, n_classes: int) -> UInt8[np.ndarray, " image"]:
    wrong = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if len(wrong):
        wanted, found = f"labels from 0 to {n_classes - 1}", f"{labels[wrong[0]]} at row {wrong[0]}"
        raise places.wrong_file(path, wanted=wanted, found=found, cure="fetch the file anew")
    return labels.astype(np.uint8)


def _parquet(image_set: ImageSet, folder: Path) -> Wanted:
    """The Hub's layout: ``plain_text/train-00000-of-00001.parquet``."""
    wanted: Wanted = {}
    for split in SPLITS:
        shards = _shards((folder / image_set.config).glob(f"{split}-*.parquet"))
        wanted[split] = [(path.name, path) for path in shards] or [(f"{image_set.config}/{split}-*.parquet", None)]
    return wanted


def _idx(folder: Path) -> Wanted:
    """The files of MNIST's page: ``train-images-idx3-ubyte`` and so on, or with ``.gz``."""
    return {
        split: [
            (name, _there(folder / name, folder / f"{name}.gz")) for name in (f"{prefix}-{end}" for end in IDX_ENDS)
        ]
        for split, prefix in IDX_PREFIX.items()
    }


def _cifar(folder: Path) -> Wanted:
    """CIFAR-10's binary version, in the folder or in the one that its archive makes."""
    return {
        split: [(name, _there(folder / name, folder / CIFAR_BINARY_FOLDER / name)) for name in names]
        for split, names in CIFAR_BATCHES.items()
    }


def _there(*paths: Path) -> Path | None:
    """The first of ``paths`` that is a file."""
    return next((path for path in paths if path.is_file()), None)


def _shards(paths: Iterable[Path]) -> tuple[Path, ...]:
    """``paths`` in order, all that their names say there are."""
    found = sorted(paths, key=lambda path: path.name)
    numbers = [(int(match[1]), int(match[2])) for path in found if (match := SHARD.search(path.name))]
    if numbers and (len(numbers) < len(found) or numbers != [(i, len(found)) for i in range(len(found))]):
        raise SourceError(
            f"{found[0].parent} has {places.sorted_names(found)}, wanted all {numbers[0][1]} of one set: fetch the "
            "missing files, and remove those of another set"
        )
    return tuple(found)


def _located(folder: Path, layout: str, wanted: Wanted) -> Located | None:
    """The wanted files, if they are all there; None where there is none of them."""
    pairs = [pair for split in SPLITS for pair in wanted[split]]
    have, missing = [path for _, path in pairs if path], [name for name, path in pairs if not path]
    if not have:
        return None
    if missing:
        raise SourceError(
            f"{folder} has {places.sorted_names(have)}, but not {', '.join(missing)}: both splits are needed whole; "
            "fetch the missing files"
        )
    return Located(layout=layout, files={split: tuple(p for _, p in wanted[split] if p) for split in SPLITS})


def _refuse_archives(folder: Path) -> None:
    """An error where ``folder`` holds a download that is not read as it is: a pickle, or a packed archive."""
    pickles = [folder / "cifar-10-python.tar.gz", folder / CIFAR_PYTHON_FOLDER, folder / "data_batch_1"]
    for path in pickles:
        if path.exists():
            raise SourceError(
                f"{path} is the Python version of CIFAR-10: its files are pickles, which can run code when read, and "
                "are refused. Take the binary version (cifar-10-binary.tar.gz, unpacked here) or the Hub's parquet"
            )
    packed = folder / "cifar-10-binary.tar.gz"
    if packed.exists():
        raise SourceError(f"{packed} is packed: unpack it where it lies (tar -xzf {packed.name})")

"""Small sets of images, written as the published ones are: with struct, gzip and Pillow, apart from what reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
import gzip
import hashlib
import io
from pathlib import Path
import struct

import numpy as np
from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq

PARQUET = {"mnist": ("mnist", "image"), "fashion_mnist": ("fashion_mnist", "image"), "cifar10": ("plain_text", "img")}
"""Folder and column of images in the repositories on the Hub."""
SHAPES = {"mnist": (28, 28), "fashion_mnist": (28, 28), "cifar10": (32, 32, 3)}


@dataclass
class Made:
    """Images of both splits, as ``[image height width]`` or with a last axis of colours, and their labels.

    The pixels are noise, the same on every machine.
    """

    name: str
    n_train: int = 30
    n_test: int = 20
    seed: int = 0
    images: dict[str, np.ndarray] = field(init=False)
    labels: dict[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        self.images, self.labels = {}, {}
        for split, n in (("train", self.n_train), ("test", self.n_test)):
            shape = (n, *SHAPES[self.name])
            noise = hashlib.shake_256(f"{self.name} {split} {self.seed}".encode()).digest(int(np.prod(shape)))
            self.images[split] = np.frombuffer(noise, np.uint8).reshape(shape).copy()
            self.labels[split] = (np.arange(n) * 7 % 10).astype(np.uint8)


def write_idx(made: Made, root: Path, *, zipped: bool = False, folder: str = "") -> Path:
    """The four IDX files of ``made`` in a folder below ``root``."""
    place = root / (folder or made.name)
    place.mkdir(parents=True, exist_ok=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = made.images[split], made.labels[split]
        contents = {
            f"{prefix}-images-idx3-ubyte": struct.pack(">IIII", 2051, *images.shape) + images.tobytes(),
            f"{prefix}-labels-idx1-ubyte": struct.pack(">II", 2049, len(labels)) + labels.tobytes(),
        }
        for name, content in contents.items():
            if zipped:
                (place / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (place / name).write_bytes(content)
    return place


def write_cifar_binary(made: Made, root: Path, *, folder: str = "") -> Path:
    """The six batches of CIFAR-10's binary version."""
    place = root / "cifar10" / folder
    place.mkdir(parents=True, exist_ok=True)
    for i, rows in enumerate(np.array_split(np.arange(made.n_train), 5), 1):
        (place / f"data_batch_{i}.bin").write_bytes(_records(made, "train", rows))
    (place / "test_batch.bin").write_bytes(_records(made, "test", np.arange(made.n_test)))
    return place


def _records(made: Made, split: str, rows: np.ndarray) -> bytes:
    return b"".join(
        bytes([made.labels[split][row]]) + b"".join(made.images[split][row, :, :, c].tobytes() for c in range(3))
        for row in rows
    )


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    """``image`` as the bytes of a PNG or JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def write_parquet(made: Made, root: Path, *, n_shards: int = 1, kind: str = "PNG", compression: str = "snappy") -> Path:
    """The parquet files of ``made`` in the Hub's layout."""
    config, column = PARQUET[made.name]
    place = root / made.name / config
    place.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        for shard, rows in enumerate(np.array_split(np.arange(len(made.labels[split])), n_shards)):
            path = place / f"{split}-{shard:05}-of-{n_shards:05}.parquet"
            pq.write_table(table_of(made, split, rows, column, kind), path, compression=compression, row_group_size=16)
    return place


def table_of(made: Made, split: str, rows: np.ndarray, column: str, kind: str = "PNG") -> pa.Table:
    """The rows of one parquet file."""
    images = [{"bytes": encoded(made.images[split][row], kind), "path": f"{row}.png"} for row in rows]
    labels = pa.array([int(made.labels[split][row]) for row in rows], pa.int64())
    kind_of_image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({column: pa.array(images, kind_of_image), "label": labels})


def write_small_sets(root: Path) -> None:
    """Of each image set, enough for the default options of its task, in the format that is quickest to write."""
    for seed, name in enumerate(("mnist", "fashion_mnist")):
        write_idx(Made(name, n_train=5600, n_test=400, seed=seed), root)
    write_cifar_binary(Made("cifar10", n_train=5600, n_test=400, seed=2), root)

"""Decoded images in the user's cache: decoded once, then memory-mapped, as long as the source files are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import hashlib
import logging
from pathlib import Path
from typing import Any

from jaxtyping import UInt8, UInt64
import numpy as np
from numpy.typing import NDArray
import PIL

from fpt_viz.data_sets.places import cache_folder
from fpt_viz.records.store import replacing, sha256

VERSION = 1
"""Raised when what is kept changes."""
LUMA = (19595, 38470, 7471)
"""ITU-R 601-2 weights of red, green and blue, in 65,536ths; as Pillow's conversion to "L"."""

logger = logging.getLogger("fpt_viz")


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images as arrays. They may lie on the disk: what is written to them stays in memory and is never saved."""

    pixels: UInt8[np.ndarray, "image channel height width"]
    labels: UInt8[np.ndarray, " image"]
    fingerprints: UInt64[np.ndarray, " image"]
    """BLAKE2b of an image's pixels, 64 bits: equal images have equal ones, whatever file they come from."""


def cached(
    name: str,
    files: Sequence[Path],
    shape: tuple[int, int, int],
    decode: Callable[[], tuple[UInt8[np.ndarray, "image channel height width"], UInt8[np.ndarray, " image"]]],
) -> Decoded:
    """What ``decode`` gives, from the cache where it was kept for files of the same content.

    Reads ``files`` once for their SHA-256 (0.1 s for 100 MB). Where the cache cannot be written, says so in the log and
    keeps the arrays in memory.

    Args:
        name: Begins the name of the file in the cache.
        files: What is decoded.
        shape: Of an image.
        decode: Called where the cache has nothing.
    """
    key = hashlib.sha256(f"{VERSION} {shape} Pillow {PIL.__version__}".encode())
    for path in files:
        key.update(sha256(path).encode())
    path = cache_folder() / "decoded" / f"{name}-{key.hexdigest()[:20]}.npy"
    kind = np.dtype([("fingerprint", "<u8"), ("label", "u1"), ("pixels", "u1", shape)])
    records: NDArray[Any] | None = _mapped(path, kind)
    if records is None:
        pixels, labels = decode()
        records = np.empty(len(pixels), kind)
        records["pixels"], records["label"] = pixels, labels
        records["fingerprint"] = fingerprints_of(pixels)
        try:
            with replacing(path) as part, part.open("wb") as file:
                np.lib.format.write_array(file, records, allow_pickle=False)
        except OSError as error:
            logger.warning("decoded images stay in memory: %s could not be written (%s)", path, error)
        else:
            mapped = _mapped(path, kind)
            records = records if mapped is None else mapped
    return Decoded(records["pixels"], records["label"], records["fingerprint"])


def fingerprints_of(pixels: UInt8[np.ndarray, "image channel height width"]) -> UInt64[np.ndarray, " image"]:
    """See :attr:`Decoded.fingerprints`; 3 microseconds an image."""
    whole = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    digests = b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in whole)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def gray_of(pixels: UInt8[np.ndarray, "image 3 height width"]) -> UInt8[np.ndarray, "image 1 height width"]:
    """The luma of colour images, rounded as Pillow does."""
    gray = np.empty((len(pixels), 1, *pixels.shape[2:]), np.uint8)
    for start in range(0, len(pixels), 1024):  # in parts, since each needs four times its size
        part = pixels[start : start + 1024].astype(np.uint32)
        luma = sum(weight * part[:, channel] for channel, weight in enumerate(LUMA))
        gray[start : start + 1024, 0] = (luma + 0x8000) >> 16
    return gray


def _mapped(path: Path, kind: np.dtype[np.void]) -> NDArray[Any] | None:
    """The records at ``path``; None where there are none, or others than ``kind``."""
    try:
        records = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return records if records.dtype == kind and records.ndim == 1 and len(records) else None

"""Reader of IDX files, the format of MNIST: a header that says type and sizes, then bytes; gzipped or not.

LeCun, Cortes and Burges, "The MNIST database of handwritten digits", section "file formats".
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path
import struct
import zlib

from jaxtyping import UInt8
import numpy as np

from fpt_viz.data_sets.places import file_size, wrong_file
from fpt_viz.errors import SourceError

UNSIGNED_BYTE = 8
"""The type code of the third byte."""
DEFLATE_LIMIT = 1032
"""Bytes that one byte of a gzip file can unpack to, at most (zlib's documentation)."""
CURE = "fetch the file anew"


def read_idx(path: Path, item_shape: tuple[int, ...]) -> UInt8[np.ndarray, "*shape"]:
    """The items of an IDX file of unsigned bytes; each has ``item_shape``, which is empty for labels.

    The header is checked against the size of the file before anything is allocated. A ``.gz`` file is unpacked to the
    length that the IDX header promises and not a byte more than shows whether it ends there.

    Raises:
        SourceError: The file cannot be read, or is no IDX file of such items, whole and not empty.
    """
    n_packed = file_size(path)
    zipped = path.suffix == ".gz"
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            head = file.read(4 + 4 * (1 + len(item_shape)))
            shape = _shape(head, path, item_shape)
            n_wanted = math.prod(shape)
            n_possible = DEFLATE_LIMIT * n_packed if zipped else n_packed - len(head)
            if n_wanted > n_possible or (not zipped and n_wanted != n_possible):
                found = f"{n_packed:,} bytes, which hold {'at most ' if zipped else ''}{max(n_possible, 0):,}"
                raise wrong_file(path, wanted=f"{n_wanted:,} bytes after the header", found=found, cure=CURE)
            content = file.read(n_wanted)
            more = file.read(1)  # at the end of a .gz file, this also compares its checksum
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path} cannot be read: {error}; {CURE}") from error
    if len(content) != n_wanted or more:
        found = "more" if more else f"{len(content):,}"
        raise wrong_file(path, wanted=f"{n_wanted:,} bytes after the header", found=found, cure=CURE)
    return np.frombuffer(content, np.uint8).reshape(shape)


def _shape(head: bytes, path: Path, item_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the whole array, which the header says."""
    n_axes = 1 + len(item_shape)
    magic = bytes((0, 0, UNSIGNED_BYTE, n_axes))
    if head[:4] != magic or len(head) != 4 + 4 * n_axes:
        kind = f"the header of an IDX file with {n_axes} axes of bytes ({magic.hex()})"
        raise wrong_file(path, wanted=kind, found=head[:4].hex() or "an empty file", cure=CURE)
    shape = struct.unpack(f">{n_axes}I", head[4:])
    if shape[0] == 0 or shape[1:] != item_shape:
        wanted = f"one or more items of shape {item_shape}"
        raise wrong_file(path, wanted=wanted, found=f"{shape[0]} of shape {shape[1:]}", cure=CURE)
    return shape

"""Reader of the binary version of CIFAR-10: records of a label and 32 x 32 pixels, red, green, then blue.

Krizhevsky, 2009, "Learning multiple layers of features from tiny images"; the version for C programs.
"""

from __future__ import annotations

from pathlib import Path

from jaxtyping import UInt8
import numpy as np

from fpt_viz.data_sets.places import file_size, wrong_file
from fpt_viz.errors import SourceError

SHAPE = (3, 32, 32)
N_RECORD = 1 + 3 * 32 * 32
"""Bytes of a label and its image."""
CURE = "unpack cifar-10-binary.tar.gz anew"


def read_cifar_binary(path: Path) -> tuple[UInt8[np.ndarray, "image 3 32 32"], UInt8[np.ndarray, " image"]]:
    """The images and labels in one batch file; labels are not checked here.

    Raises:
        SourceError: The file cannot be read, is empty, or is no whole number of records.
    """
    n_bytes = file_size(path)
    if n_bytes == 0 or n_bytes % N_RECORD:
        wanted = f"one or more records of {N_RECORD:,} bytes"
        raise wrong_file(path, wanted=wanted, found=f"{n_bytes:,} bytes", cure=CURE)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    records = np.frombuffer(content, np.uint8, count=n_bytes // N_RECORD * N_RECORD).reshape(-1, N_RECORD)
    return records[:, 1:].reshape(-1, *SHAPE), records[:, 0]

"""Reader of the Hub's parquet files of images: a column of encoded images (PNG or JPEG) and one of labels."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
import contextlib
import io
import itertools
import os
from pathlib import Path
from typing import BinaryIO
import warnings

from jaxtyping import Integer, UInt8
import numpy as np
from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq

from fpt_viz.data_sets.parquet_pages import Chunk, MalformedPageError, pages, row_groups
from fpt_viz.data_sets.places import file_size, wrong_file
from fpt_viz.errors import SourceError

MIN_ENCODED = 64
"""Bytes of the smallest encoded image: a PNG of one pixel has 67, a JPEG more. A row of the file has at least these."""
MAX_OVERHEAD = 4096
"""Bytes that an encoded image may have beyond twice its pixels, and its row beyond that: headers, tables, its path."""
BATCH = 64
"""Rows unpacked at a time: with a dictionary, each of them can be as large as the whole dictionary."""
MAX_DICTIONARY = 1 << 22
"""Bytes of a dictionary; writers stop at a quarter of that."""
ENCODINGS = {0, 2, 3, 5, 8}
"""Of pages: plain, dictionary (two numbers), runs, differences of whole numbers. Shared prefixes can grow at will."""
MODES = {1: "L", 3: "RGB"}
MAX_THREADS = 4
JPEG_FRAMES = {0xC0, 0xC1, 0xC2}
"""Kinds of segment that begin a JPEG's frame with its size: baseline, extended and progressive, Huffman coded."""
JPEG_BEFORE_FRAME = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}
"""Kinds of segment that may stand before it: tables, comments and what programs add."""
CURE = "fetch the file anew"

Part = tuple[UInt8[np.ndarray, "image channel height width"], Integer[np.ndarray, " image"]]


def read_image_parquet(
    path: Path, image_column: str, shape: tuple[int, int, int]
) -> tuple[UInt8[np.ndarray, "image channel height width"], Integer[np.ndarray, " image"]]:
    """The images, decoded, and labels of a file; labels are not checked here.

    What the file says of itself is compared with its size, and with its rows times the size of an image, before it is
    unpacked; an image's size is read from its header before it is decoded. About 0.07 ms of processor time an image,
    on as many threads as there are processors, up to four.

    Args:
        path: The file.
        image_column: Name of the column with ``{bytes, path}``; the labels' is ``label``.
        shape: Channels, height and width of every image.

    Raises:
        SourceError: The file cannot be read or is no such file.
    """
    n_row = 2 * int(np.prod(shape)) + 2 * MAX_OVERHEAD
    try:
        n_rows = _check_sizes(path, n_row)
        with pq.ParquetFile(path, memory_map=False, page_checksum_verification=True) as file:
            _check_columns(path, file.schema_arrow, image_column)
            batches = _batches(path, file, image_column, n_rows=n_rows, n_row=n_row)
            parts = list(_all_decoded(path, batches, image_column, shape))
    except (OSError, pa.ArrowException, ValueError, OverflowError, MemoryError) as error:
        raise SourceError(f"{path} cannot be read as parquet: {_first_line(error)}; {CURE}") from error
    images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    return images, labels


def _check_columns(path: Path, schema: pa.Schema, image_column: str) -> None:
    wanted = f"columns {image_column} {{bytes, path}} and label"
    image = schema.field(image_column).type if image_column in schema.names else None
    if image is None or not pa.types.is_struct(image) or image.get_field_index("bytes") < 0:
        raise wrong_file(path, wanted=wanted, found=", ".join(schema.names[:8]) or "none", cure=CURE)
    if not pa.types.is_binary(image.field("bytes").type):
        raise wrong_file(path, wanted="images as bytes", found=str(image.field("bytes").type), cure=CURE)
    if "label" not in schema.names or not pa.types.is_integer(schema.field("label").type):
        raise wrong_file(path, wanted=wanted, found=", ".join(schema.names[:8]), cure=CURE)


def _check_sizes(path: Path, n_row: int) -> int:
    """The rows of the file; checks their sizes, for which footer and page headers are enough."""
    n_file = file_size(path)
    try:
        with path.open("rb") as raw:
            groups = row_groups(raw)
            n_rows = sum(group.n_rows for group in groups)
            if not 0 < n_rows * MIN_ENCODED <= n_file:
                most = f"1 to {n_file // MIN_ENCODED:,} rows, as many as {n_file:,} bytes can hold"
                raise wrong_file(path, wanted=most, found=f"{n_rows:,}", cure=CURE)
            for group in groups:
                n_unpacked = sum(_unpacked(path, raw, chunk) for chunk in group.chunks)
                if n_unpacked > group.n_rows * n_row + MAX_OVERHEAD:
                    found = f"{n_unpacked:,} for {group.n_rows:,} rows"
                    raise wrong_file(path, wanted=f"at most {n_row:,} bytes a row", found=found, cure=CURE)
    except MalformedPageError as error:
        raise wrong_file(path, wanted="a parquet file of whole pages", found=str(error), cure=CURE) from error
    return n_rows


def _unpacked(path: Path, raw: BinaryIO, chunk: Chunk) -> int:
    """The bytes that a column of a row group unpacks to, as its page headers say."""
    found = list(pages(raw, chunk.start, chunk.n_packed))
    odd = {page.encoding for page in found} - ENCODINGS
    large = max((page.n_unpacked for page in found if page.is_dictionary), default=0)
    if odd or large > MAX_DICTIONARY:
        wanted = f"plain pages, or dictionaries of at most {MAX_DICTIONARY:,} bytes, in column {chunk.name}"
        what = f"encoding {min(odd)}" if odd else f"{large:,} bytes"
        raise wrong_file(path, wanted=wanted, found=what, cure="write it anew with pyarrow's defaults")
    return sum(page.n_unpacked for page in found)


def _batches(
    path: Path, file: pq.ParquetFile, image_column: str, *, n_rows: int, n_row: int
) -> Iterator[pa.RecordBatch]:
    """The rows, some at a time, no more of them and no larger than the footer says."""
    n_read = 0
    for batch in file.iter_batches(BATCH, columns=[f"{image_column}.bytes", "label"], use_threads=False):
        n_read += batch.num_rows
        if n_read > n_rows or batch.nbytes > batch.num_rows * n_row:
            raise wrong_file(path, wanted=f"{n_rows:,} rows of at most {n_row:,} bytes", found="more", cure=CURE)
        yield batch
    if n_read != n_rows:
        raise wrong_file(path, wanted=f"{n_rows:,} rows", found=f"{n_read:,}", cure=CURE)


def _all_decoded(
    path: Path, batches: Iterator[pa.RecordBatch], image_column: str, shape: tuple[int, int, int]
) -> Iterator[Part]:
    """The images and labels of all rows, in order; some batches at a time, one a thread."""
    n_threads = min(os.cpu_count() or 1, MAX_THREADS)  # decoding lets the others run, reading headers does not
    with warnings.catch_warnings(), ThreadPoolExecutor(n_threads) as pool:
        warnings.simplefilter("ignore")  # of odd metadata in an image: its pixels are what counts
        while some := list(itertools.islice(batches, 4 * n_threads)):
            yield from pool.map(lambda batch: _decoded(path, batch, image_column, shape), some)


def _decoded(path: Path, batch: pa.RecordBatch, image_column: str, shape: tuple[int, int, int]) -> Part:
    """The images and labels of some rows."""
    batch.validate(full=True)
    encoded, labels = batch.column(image_column).field("bytes"), batch.column("label")
    if encoded.null_count or labels.null_count or batch.column(image_column).null_count:
        raise wrong_file(path, wanted="an image and a label in each row", found="an empty one", cure=CURE)
    channels, height, width = shape
    pixels = [_pixels(path, image, (width, height), MODES[channels]) for image in encoded.to_pylist()]
    images = np.frombuffer(b"".join(pixels), np.uint8).reshape(batch.num_rows, height, width, channels)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels.to_numpy()


def _pixels(path: Path, encoded: bytes, size: tuple[int, int], mode: str) -> bytes:
    """One image, decoded; its header must promise ``size`` and ``mode``."""
    if _promised(encoded) == (*size, mode):
        with contextlib.suppress(ValueError):  # whatever is wrong is found, and said, below
            return Image.frombytes(mode, size, encoded, "jpeg", (mode, "")).tobytes()
    try:
        with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as image:
            if image.size != size or image.mode != mode:
                wanted = f"{mode} images of {size[0]} x {size[1]}"
                raise wrong_file(path, wanted=wanted, found=f"{image.mode} of {image.size}", cure=CURE)
            return image.tobytes()
    except SourceError:
        raise
    except Exception as error:  # a damaged image fails in many ways inside Pillow
        raise wrong_file(path, wanted="whole PNG or JPEG images", found=_first_line(error), cure=CURE) from error


def _promised(encoded: bytes) -> tuple[int, int, str] | None:
    """Width, height and mode of a JPEG as its header says; None for all that is not plainly one.

    In a third of the time that Pillow takes for its header, which is a third of all.
    """
    if encoded[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 10 <= len(encoded) and encoded[at] == 0xFF:  # a segment: its mark, its kind, its length, its content
        kind, length = encoded[at + 1], int.from_bytes(encoded[at + 2 : at + 4])
        if kind in JPEG_FRAMES:
            height, width = int.from_bytes(encoded[at + 5 : at + 7]), int.from_bytes(encoded[at + 7 : at + 9])
            mode = MODES.get(encoded[at + 9])
            return (width, height, mode) if mode and encoded[at + 4] == 8 else None
        if kind not in JPEG_BEFORE_FRAME or length < 2:
            return None
        at += 2 + length
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

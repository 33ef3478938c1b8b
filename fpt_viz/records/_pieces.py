"""Files whose large tensors are written part by part, so that they never need to be in memory as a whole.

:func:`fpt_viz.records.store.reading` reads them; :mod:`fpt_viz.records._chunks` says what stands in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fpt_viz.errors import RecordError
from fpt_viz.records import store
from fpt_viz.records._chunks import CHUNK_BYTES, SUFFIX, Place, beginning_of, digests_in, n_chunks, places_in, raw

Put = Callable[[str, int, Tensor], None]
"""Writes values of a large tensor: its name, the place of the first value in it, and the values."""
MAX_HEADER_BYTES = 100_000_000
"""What safetensors reads as a header."""


@contextlib.contextmanager
def writing(
    path: Path,
    tensors: Mapping[str, Tensor],
    kind: str,
    fields: Mapping[str, Any],
    *,
    large: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
) -> Iterator[Put]:
    """As :func:`fpt_viz.records.store.write_tensors`, for tensors that the block puts into the file in parts.

    Args:
        path: The file; it is there, whole, when the block has ended well.
        tensors: Those that are at hand.
        kind: Of the record.
        fields: All else.
        large: Type and shape of each of the others; what the block does not put is 0.
    """
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()} | dict(large)
    places = {name: Place(dtype, shape, 0) for name, (dtype, shape) in large.items()}
    layout |= {name + SUFFIX: (torch.uint8, (n_chunks(place.n_bytes), 32)) for name, place in places.items()}
    header = {**store.header_of(kind, fields, store.PIECES_SCHEMA), "sha256": "0" * 64}
    beginning = beginning_of(layout, header)
    n_header = len(beginning) - 8
    if n_header > MAX_HEADER_BYTES:
        raise RecordError(
            f"{path} would need a header of {n_header:,} bytes, of which safetensors reads {MAX_HEADER_BYTES:,}: "
            "keep fewer examples in one file, or shorter labels"
        )
    if path.is_dir():
        raise RecordError(f"{path} is a folder, wanted the name of a file")
    in_block: OSError | None = None
    try:
        with store.replacing(path) as part, part.open("rb+") as file:
            file.write(beginning)
            places = places_in(file)
            file.truncate(max(place.offset + place.n_bytes for place in places.values()))

            def put(name: str, first: int, tensor: Tensor) -> None:
                try:
                    file.seek(places[name].offset + first * places[name].dtype.itemsize)
                    file.write(raw(tensor))
                except OSError as error:
                    raise _unwritten(path, error) from error

            for name, tensor in tensors.items():
                put(name, 0, tensor)
            try:
                yield put
            except OSError as error:
                in_block = error
                raise
            digests = {name + SUFFIX: digests_in(file, places[name]) for name in large}
            for name, tensor in digests.items():
                put(name, 0, tensor)
            known: dict[str, Tensor | Place] = {**tensors, **digests, **{name: places[name] for name in large}}
            header["sha256"] = store._digest(known, header)
            file.seek(0)
            file.write(beginning_of(layout, header))
    except OSError as error:
        if error is in_block:  # not ours to explain
            raise
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> RecordError:
    return RecordError(f"{path} could not be written ({error.strerror or error}); what was there is kept")


def write_in_pieces(
    path: Path, tensors: Mapping[str, Tensor], kind: str, fields: Mapping[str, Any], *, schema: int | None = None
) -> None:
    """As :func:`fpt_viz.records.store.write_tensors`, but tensors over a MiB so that parts of them can be read."""
    large = {name: tensor for name, tensor in tensors.items() if tensor.nbytes > CHUNK_BYTES}
    if not large:
        store.write_tensors(path, tensors, kind, fields, schema=schema)
        return
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in large.items()}
    small = {name: tensor for name, tensor in tensors.items() if name not in large}
    with writing(path, small, kind, fields, large=layout) as put:
        for name, tensor in large.items():
            put(name, 0, tensor)

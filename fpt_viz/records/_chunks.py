"""Large tensors of a record, checked and read in pieces, so that a file may be larger than memory.

A large tensor stands in its file beside ``NAME.sha256``, a digest of each MiB of its bytes. The record's own checksum
is over these digests, so that a piece can be checked alone, and all of it without more than one MiB in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
import hashlib
from io import BufferedRandom, BufferedReader
import json
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from fpt_viz.errors import RecordError

CHUNK_BYTES = 1 << 20
"""What one digest covers."""
SUFFIX = ".sha256"
"""Of the name of a large tensor, that of its digests."""

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def raw(tensor: Tensor) -> memoryview:
    """The bytes of ``tensor``, copied only where it is strided or on another device."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a safetensors file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    """Of its first byte in the file."""

    @property
    def n_bytes(self) -> int:
        """Of all of it."""
        return prod(self.shape) * self.dtype.itemsize


def places_in(file: BufferedReader | BufferedRandom) -> dict[str, Place]:
    """Each tensor of the safetensors file, by name; the file is known to be whole."""
    file.seek(0)
    n_bytes = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(n_bytes))
    return {
        name: Place(_DTYPES[told["dtype"]], tuple(told["shape"]), 8 + n_bytes + told["data_offsets"][0])
        for name, told in header.items()
        if name != "__metadata__" and told["dtype"] in _DTYPES
    }


def beginning_of(tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """The beginning of a safetensors file of ``tensors``: what its library writes, widest types first."""
    told: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name in sorted(tensors, key=lambda name: (-tensors[name][0].itemsize, name)):
        dtype, shape = tensors[name]
        n_bytes = prod(shape) * dtype.itemsize
        told[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [at, at + n_bytes]}
        at += n_bytes
    text = json.dumps(told, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


@dataclass
class ChunkedTensor:
    """A large tensor in an open file, of which any part can be read and checked."""

    file: BufferedReader | BufferedRandom
    path: Path
    """For errors."""
    place: Place
    digests: Tensor
    """``[chunk 32]``, which were checked themselves."""
    n_read: int = 0
    """Bytes read so far."""
    _last: tuple[int, bytes] = field(default=(-1, b""), repr=False)

    def check(self) -> None:
        """Read all of it, and raise where it is not what was written."""
        for index in range(n_chunks(self.place.n_bytes)):
            self._chunk(index)

    def rows(self, indices: list[tuple[int, ...]]) -> Tensor:
        """The parts at ``indices`` of the leading axes, stacked: ``[index, *rest]``."""
        depth = len(indices[0]) if indices else 0
        rest = self.place.shape[depth:]
        n_bytes = prod(rest) * self.place.dtype.itemsize
        found = torch.empty(len(indices), *rest, dtype=self.place.dtype)
        into = raw(found)
        for n, index in enumerate(indices):
            place = 0
            for size, i in zip(self.place.shape[:depth], index, strict=True):
                place = place * size + i
            at = n * n_bytes
            for piece in self._bytes(place * n_bytes, (place + 1) * n_bytes):
                into[at : at + len(piece)] = piece
                at += len(piece)
        return found

    def _bytes(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from ``start`` to ``stop`` of the tensor."""
        while start < stop:
            index, inside = divmod(start, CHUNK_BYTES)
            piece = self._chunk(index)[inside : inside + stop - start]
            yield piece
            start += len(piece)

    def _chunk(self, index: int) -> bytes:
        """One chunk, checked; the last one is kept."""
        if self._last[0] != index:
            at = index * CHUNK_BYTES
            self.file.seek(self.place.offset + at)
            wanted = min(CHUNK_BYTES, self.place.n_bytes - at)
            piece = self.file.read(wanted)
            self.n_read += len(piece)
            whole = len(piece) == wanted and index < len(self.digests)
            if not whole or hashlib.sha256(piece).digest() != bytes(self.digests[index].tolist()):
                raise RecordError(
                    f"{self.path} was altered: its content does not match its checksum. Restore it, or make it again."
                )
            self._last = index, piece
        return self._last[1]


def digests_in(file: BufferedRandom, place: Place) -> Tensor:
    """``[chunk 32]``: the SHA-256 of each MiB of the tensor that was written at ``place``."""
    found = bytearray()
    for at in range(0, place.n_bytes, CHUNK_BYTES):
        file.seek(place.offset + at)
        found += hashlib.sha256(file.read(min(CHUNK_BYTES, place.n_bytes - at))).digest()
    return torch.frombuffer(found, dtype=torch.uint8).view(-1, 32)


def n_chunks(n_bytes: int) -> int:
    """How many digests a tensor of so many bytes has."""
    return -(-n_bytes // CHUNK_BYTES)

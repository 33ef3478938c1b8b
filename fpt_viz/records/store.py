"""How records reach the disk and come back: atomic writes, checksums, and errors that name the file.

Tensors go to safetensors, whose header carries the rest as JSON; tables go to JSON. Nothing is ever pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
from dataclasses import dataclass
import hashlib
import json
import os
from pathlib import Path
import tempfile
import threading
from typing import Any, NamedTuple, TypeVar
import weakref

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
import torch
from torch import Tensor

from fpt_viz.errors import RecordError
from fpt_viz.records._chunks import SUFFIX, ChunkedTensor, Place, n_chunks, places_in, raw

Noted = TypeVar("Noted")
Stamp = tuple[tuple[Path, tuple[int, int, int] | None], ...]
"""Of files: size, time of the last change and inode of each; None for one that is not there."""
SCHEMA_VERSION = 1
"""Raised when a saved file's meaning changes; a reader refuses a newer one."""
PIECES_SCHEMA = 2
"""Of files whose large tensors have a digest for each piece, or whose attention weights are packed."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well.

    Written, flushed to the disk, then renamed: after a full disk or a kill, ``path`` is whole, old or new.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        part.chmod(0o644)
        found = _stat(part)  # the same once it is renamed
        part.replace(path)
        _LAST.file = path.resolve(), found
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically; an error names the file and keeps what was there."""
    try:
        with replacing(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise RecordError(f"{path} could not be written ({error.strerror or error}); what was there is kept") from error


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON, atomically, keys in the order given, numbers exact."""
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The JSON in ``path``."""
    try:
        return json.loads(_read(path))
    except ValueError as error:
        raise RecordError(f"{path} is not whole: {error}. Restore it, or make it again.") from error


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    kind: str,
    fields: Mapping[str, Any],
    *,
    schema: int | None = None,
) -> None:
    """Write ``tensors`` and the JSON ``fields`` of a record of ``kind`` into one safetensors file, atomically.

    ``schema`` is the file's, :data:`SCHEMA_VERSION` unless told.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = header_of(kind, fields, schema or SCHEMA_VERSION)
    header["sha256"] = _digest(whole, header)
    write_bytes(path, save(whole, metadata=header))


def header_of(kind: str, fields: Mapping[str, Any], schema: int) -> dict[str, str]:
    """What the file of a record says of it, but for the checksum."""
    return {"kind": kind, "schema": str(schema), "fields": json.dumps(fields, allow_nan=False)}


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and fields that :func:`write_tensors` wrote for a record of ``kind``.

    All bytes are checked. Tensors are mapped from the file, so that they may be larger than memory.
    """
    with reading(path, kind) as stored:
        for large in stored.large.values():
            large.check()
        return {**stored.tensors, **{name: stored.mapped(name) for name in stored.large}}, stored.fields


@dataclass
class Stored:
    """An open file of tensors whose header and small tensors were checked."""

    fields: dict[str, Any]
    tensors: dict[str, Tensor]
    """But for the large ones."""
    large: dict[str, ChunkedTensor]
    """Checked as they are read."""
    mapped: Callable[[str], Tensor]
    """A large tensor as it lies in the file, unchecked and unread."""


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Iterator[Stored]:
    """The file of a record of ``kind``, of which the large tensors can be read in parts within the block."""
    if not path.is_file():
        raise RecordError(f"{path} is missing")
    _LAST.file = path.resolve(), _stat(path)
    with contextlib.ExitStack() as undo:
        try:
            content, file = undo.enter_context(path.open("rb")), undo.enter_context(safe_open(path, "pt"))
            header = file.metadata() or {}
            names = set(file.keys())
            split = {name for name in names if name + SUFFIX in names}
            tensors = {name: file.get_tensor(name) for name in sorted(names - split)}
            fields = json.loads(header.get("fields", "{}"))
            version = int(header.get("schema", SCHEMA_VERSION))
            places = places_in(content) if split else {}
        except (SafetensorError, ValueError, OSError) as error:
            raise RecordError(f"{path} is truncated or altered: {error}. Restore it, or make it again.") from error
        if header.get("kind") != kind:
            raise RecordError(f"{path} holds {header.get('kind') or 'tensors of another program'}, wanted {kind}")
        if version > PIECES_SCHEMA:
            raise RecordError(
                f"{path} has schema {version}, newer than {SCHEMA_VERSION} and {PIECES_SCHEMA}: use a newer fpt_viz"
            )
        unlike = {name for name in split if not _are_digests(tensors.get(name + SUFFIX), places.get(name))}
        if unlike or header.get("sha256") != _digest({**tensors, **{n: places[n] for n in split}}, header):
            raise RecordError(
                f"{path} was altered: its content does not match its checksum. Restore it, or make it again."
            )
        if not isinstance(fields, dict):
            raise RecordError(f"{path} is no whole {kind} file: it has no fields, but {fields!r:.60}")
        large = {name: ChunkedTensor(content, path, places[name], tensors.pop(name + SUFFIX)) for name in split}
        yield Stored(fields, tensors, large, file.get_tensor)


def _are_digests(found: Tensor | None, place: Place | None) -> bool:
    """Whether ``found`` is of the type and shape of the digests of the large tensor at ``place``."""
    if found is None or place is None:
        return False
    return found.dtype == torch.uint8 and tuple(found.shape) == (n_chunks(place.n_bytes), 32)


def kind_of(path: Path) -> str:
    """What the record in the file ``path`` says it is; empty where it says nothing."""
    return str(_said(path).get("kind", ""))


def source_of(path: Path) -> dict[str, Any]:
    """Where the record in the file ``path`` says that it comes from; reads no tensor, checks no checksum."""
    said = _said(path)
    try:
        fields = json.loads(said["fields"]) if isinstance(said.get("fields"), str) else said
    except ValueError as error:
        raise RecordError(f"{path} is truncated or altered: {error}. Restore it, or make it again.") from error
    source = fields.get("source") if isinstance(fields, dict) else None
    return source if isinstance(source, dict) else {}


def _said(path: Path) -> dict[str, Any]:
    """All of a JSON file, the header of another."""
    if path.suffix == ".json":
        content = read_json(path)
        return content if isinstance(content, dict) else {}
    if not path.is_file():
        raise RecordError(f"{path} is missing")
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, ValueError, OSError) as error:
        raise RecordError(f"{path} is truncated or altered: {error}. Restore it, or make it again.") from error


class _Note(NamedTuple):
    """Which file or folder holds a record."""

    of: weakref.ref[Any]
    path: Path
    stamp: Stamp
    versions: tuple[int | None, ...]
    """Of the record's tensors."""


_NOTES: dict[int, _Note] = {}
"""By the record's id, since records are compared by their fields and many cannot be hashed; copies know nothing."""
_LAST = threading.local()
"""The file that this thread read or wrote last, and how it was before reading."""


def note(record: Noted, path: Path, stamp: Stamp | None = None) -> Noted:
    """Let ``record`` know that ``path`` holds it, for :func:`file_of`; a copy of it knows nothing.

    Args:
        record: As it was just read or written.
        path: Its file or folder.
        stamp: How what holds it was before it was read; as :func:`read_tensors`, :func:`read_json` or a writer found
            it where that was the last of this thread, else as it is now.
    """
    whole, key = path.resolve(), id(record)
    last, found = getattr(_LAST, "file", (None, None))
    stamp = stamp or (((whole, found),) if last == whole else stamp_of(whole))

    def forget(of: weakref.ref[Any]) -> None:
        if key in _NOTES and _NOTES[key].of is of:
            del _NOTES[key]

    _NOTES[key] = _Note(weakref.ref(record, forget), whole, stamp, _versions(record))
    return record


def noted(record: object) -> tuple[Path, Stamp] | None:
    """The file or folder that holds ``record`` and its stamp, if neither has changed since it was read or written.

    A change of a tensor in place is seen where PyTorch makes it, not through an array of numpy that shares its memory.
    """
    found = _NOTES.get(id(record))
    if found is None or found.of() is not record or found.versions != _versions(record) or changed(found.stamp):
        return None
    return found.path, found.stamp


def file_of(record: object) -> Path | None:
    """The file or folder that ``record`` was read from or written to, if nobody has changed either since."""
    found = noted(record)
    return None if found is None else found[0]


def stamp_of(*paths: Path) -> Stamp:
    """How ``paths`` are now; of a folder, also what lies directly in it."""
    whole = [path.resolve() for path in paths]
    inside = [each for folder in whole if folder.is_dir() for each in sorted(folder.iterdir())]
    return tuple((each, _stat(each)) for each in (*whole, *inside))


def changed(stamp: Stamp) -> list[Path]:
    """The files of ``stamp`` that are others now, or gone."""
    return [path for path, was in stamp if was is None or _stat(path) != was]


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _versions(record: object) -> tuple[int | None, ...]:
    """How often each tensor of ``record`` was changed in place; None where PyTorch does not count."""
    tensors = (value for value in vars(record).values() if isinstance(value, Tensor))
    return tuple(None if tensor.is_inference() else tensor._version for tensor in tensors)


def tensor_sha256(tensor: Tensor) -> str:
    """The SHA-256 of the bytes of ``tensor``, wherever it lies and however it is strided."""
    return hashlib.sha256(raw(tensor)).hexdigest()


def _digest(tensors: Mapping[str, Tensor | Place], header: Mapping[str, str]) -> str:
    """One checksum over the names, shapes and bytes of ``tensors`` and over the rest of ``header``.

    Of a large tensor, which is given by its place, the digests of its pieces are among ``tensors``.
    """
    rest = {name: text for name, text in header.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(tensors):
        found = tensors[name]
        digest.update(f"{name} {found.dtype} {tuple(found.shape)}".encode())
        if isinstance(found, Tensor):
            digest.update(tensor_sha256(found).encode())
    return digest.hexdigest()


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """``content`` with the checksum of itself, which :func:`unsealed` checks."""
    return {**content, "sha256": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


def unsealed(content: Any, path: Path) -> dict[str, Any]:
    """What was given to :func:`sealed`; an error names ``path`` where it is something else."""
    if not isinstance(content, dict) or "sha256" not in content:
        raise RecordError(f"{path} carries no checksum: it is no whole file of fpt_viz")
    rest = {name: value for name, value in content.items() if name != "sha256"}
    if sealed(rest) != content:
        raise RecordError(f"{path} was altered: its content does not match its checksum. Restore it, or make it again.")
    return rest


def sha256(path: Path) -> str:
    """The SHA-256 of the file at ``path``, in hexadecimal; reads it once."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}") from error


def _read(path: Path) -> str:
    _LAST.file = path.resolve(), _stat(path)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecordError(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from error

"""What the pages of a parquet file would unpack to, read from its footer and page headers alone.

Each page says its own size, and a reader allocates what it says; here the sizes are known before anything is unpacked.
Both are in Thrift's compact protocol: https://github.com/apache/parquet-format,
https://github.com/apache/thrift/blob/master/doc/specs. (pyarrow's own view of a column in a damaged footer can end the
process: an exception of C++ that nothing catches.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import os
from typing import Any, BinaryIO

MAGIC = b"PAR1"
N_LOOK = 1 << 16
"""Bytes read for one page header; statistics of a page may repeat two of its values."""
ENCODING_FIELD = {5: 2, 7: 2, 8: 4}
"""Field of a page header that says of which kind the page is -> field in it that says its encoding."""
DICTIONARY_HEADER = 7
MAX_DEPTH = 8
"""Structures inside structures; a page header has three."""
BOOLEANS, BYTE, NUMBERS, DOUBLE, BINARY, LISTS, STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12
"""Thrift's compact type codes."""


class MalformedPageError(ValueError):
    """Bytes that are no footer or page header, or pages that do not fill their column."""


@dataclass(frozen=True)
class Chunk:
    """A column of a row group."""

    name: str
    """Such as ``img.bytes``."""
    start: int
    """Of its first page in the file."""
    n_packed: int


@dataclass(frozen=True)
class RowGroup:
    """Some rows of the file."""

    n_rows: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Page:
    """What a page header says."""

    n_unpacked: int
    n_packed: int
    n_header: int
    encoding: int
    """Of its values; as numbered in the format."""
    is_dictionary: bool


def row_groups(file: BinaryIO) -> list[RowGroup]:
    """What the footer of ``file`` says of its rows.

    Raises:
        MalformedPageError: There is no such footer, or it has rows in other files or outside of this one.
    """
    n_file = file.seek(0, os.SEEK_END)
    file.seek(max(0, n_file - 8))
    tail = file.read(8)
    n_footer = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or n_footer > n_file - 12:
        raise MalformedPageError("no footer")
    file.seek(n_file - 8 - n_footer)
    footer = _Compact(file.read(n_footer)).struct()
    try:
        groups = [RowGroup(group[3], tuple(map(_chunk, group[1]))) for group in footer[4]]
        if footer[3] != sum(group.n_rows for group in groups) or min(group.n_rows for group in groups) < 0:
            raise MalformedPageError(f"{footer[3]} rows that are not those of the row groups")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedPageError(f"a footer without {error}") from error
    for chunk in (chunk for group in groups for chunk in group.chunks):
        if chunk.start < 4 or chunk.n_packed < 0 or chunk.start + chunk.n_packed > n_file:
            where = f"{chunk.n_packed:,} bytes from {chunk.start:,} on"
            raise MalformedPageError(f"{where} for column {chunk.name} in a file of {n_file:,}")
    return groups


def _chunk(column: dict[int, Any]) -> Chunk:
    """A column chunk of the footer: fields of ``ColumnMetaData`` by their number."""
    about = column[3]
    start = min(about[9], about[11]) if about.get(11) else about[9]  # data_page_offset, dictionary_page_offset
    return Chunk(b".".join(about[3]).decode("utf-8", "replace"), int(start), int(about[7]))


def pages(file: BinaryIO, start: int, n_bytes: int) -> Iterator[Page]:
    """The pages in ``n_bytes`` of ``file`` from ``start`` on, which they fill exactly.

    Raises:
        MalformedPageError: They do not, or there are bytes that are no page header.
    """
    position, end = start, start + n_bytes
    while position < end:
        file.seek(position)
        page = page_header(file.read(min(N_LOOK, end - position)))
        position += page.n_header + page.n_packed
        if position > end:
            raise MalformedPageError(f"a page ends {position - end} bytes after its column")
        yield page


def page_header(content: bytes) -> Page:
    """The page header that ``content`` begins with."""
    reader = _Compact(content)
    fields = reader.struct()
    kinds = [kind for kind in ENCODING_FIELD if isinstance(fields.get(kind), dict)]
    sizes = [fields.get(field) for field in (2, 3)]  # uncompressed_page_size, compressed_page_size
    encoding = fields[kinds[0]].get(ENCODING_FIELD[kinds[0]]) if len(kinds) == 1 else None
    unpacked, packed, encoding = (value if isinstance(value, int) else -1 for value in (*sizes, encoding))
    if min(unpacked, packed, encoding) < 0:
        raise MalformedPageError("a page header without sizes or kind")
    return Page(unpacked, packed, reader.position, encoding, is_dictionary=kinds == [DICTIONARY_HEADER])


class _Compact:
    """A reader of Thrift's compact protocol that keeps whole numbers, structures, and lists of structures or texts."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.position = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Field number -> value of the fields that are kept; the others are passed over."""
        if depth > MAX_DEPTH:
            raise MalformedPageError("structures lie too deep")
        found: dict[int, Any] = {}
        field = 0
        while (head := self._byte()) != 0:
            kind, step = head & 15, head >> 4
            field = field + step if step else self._zigzag()
            if kind in NUMBERS:
                found[field] = self._zigzag()
            elif kind == STRUCT:
                found[field] = self.struct(depth + 1)
            elif kind in LISTS:
                found[field] = self._list(depth + 1)
            else:
                self._skip(kind, in_list=False)
        return found

    def _list(self, depth: int) -> list[Any]:
        """The items of a list of structures or texts; of another one, None for each."""
        head = self._byte()
        kind, n_items = head & 15, head >> 4 if head >> 4 < 15 else self._varint()
        if n_items > len(self.content) - self.position:
            raise MalformedPageError("a list longer than what it is in")
        if kind == STRUCT:
            return [self.struct(depth) for _ in range(n_items)]
        if kind == BINARY:
            return [self._binary() for _ in range(n_items)]
        for _ in range(n_items):
            self._skip(kind, in_list=True)
        return [None] * n_items

    def _skip(self, kind: int, *, in_list: bool) -> None:
        if kind in BOOLEANS:
            self.position += in_list
        elif kind == BYTE:
            self.position += 1
        elif kind in NUMBERS:
            self._varint()
        elif kind == DOUBLE:
            self.position += 8
        elif kind == BINARY:
            self._binary()
        else:
            raise MalformedPageError(f"a field of type {kind}")

    def _binary(self) -> bytes:
        n_bytes = self._varint()
        start, self.position = self.position, self.position + n_bytes
        return self.content[start : self.position]

    def _byte(self) -> int:
        if self.position >= len(self.content):
            raise MalformedPageError("a structure that has no end")
        self.position += 1
        return self.content[self.position - 1]

    def _varint(self) -> int:
        value, shift = 0, 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise MalformedPageError("a number of more than 64 bits")
        return value | byte << shift

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

"""How many bytes come out of Arrow messages and Parquet pages, as they themselves say, before they are unpacked.

pyarrow makes room for what a compressed buffer or page declares, and then unpacks it. A body of some kilobytes can
declare gigabytes and hold them, so what they declare is added up first. Sources: the IPC format of Arrow
(Message.fbs, in FlatBuffers), and parquet.thrift (FileMetaData and PageHeader, in Thrift's compact protocol).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

BUFFER_BYTES: Final = 16

# Headers of messages (Message.fbs, MessageHeader).
_DICTIONARY, _BATCH = 2, 3


class Malformed(Exception):
    """The bytes are not what they claim to be."""


# -- Arrow IPC -----------------------------------------------------------------------------------


def body_bytes(metadata: Any) -> int:
    """How long the body of a message is, as its FlatBuffer says, which nobody has looked at yet.

    Raises:
        Malformed: it says nothing, or a negative size.
    """
    head = memoryview(metadata)
    try:
        at = _field(head, _root(head), 3)
        size = 0 if at is None else int(struct.unpack_from("<q", head, at)[0])
    except (struct.error, IndexError):
        raise Malformed("the metadata of a message end too soon") from None
    if size < 0:
        raise Malformed("a message has a negative size")
    return size


def dictionary_of(metadata: Any) -> tuple[int, bool]:
    """Of a message that brings a dictionary, and that pyarrow has verified: which, and whether it adds to it."""
    head = memoryview(metadata)
    dictionary = _table(head, _root(head), 2)
    if dictionary is None:
        raise Malformed("a dictionary is missing")
    number, adds = _field(head, dictionary, 0), _field(head, dictionary, 2)
    return (0 if number is None else int(struct.unpack_from("<q", head, number)[0])), adds is not None and bool(
        head[adds]
    )


def message_bytes(metadata: Any, body: Any) -> int:
    """What the buffers of a message take, once they are unpacked.

    Args:
        metadata: its FlatBuffer, which pyarrow has verified; `body`: its buffers. Both support the buffer protocol.

    Raises:
        Malformed: a buffer lies outside of the body, or has a negative size.
    """
    head, content = memoryview(metadata), memoryview(body if body is not None else b"")
    try:
        message = _root(head)
        kind = _field(head, message, 1)
        batch = _table(head, message, 2)
        if kind is None or batch is None:
            return 0
        if head[kind] == _DICTIONARY:
            batch = _table(head, batch, 1)
        elif head[kind] != _BATCH:
            return 0
        if batch is None or _field(head, batch, 3) is None:  # no compression
            return len(content)
        buffers = _table(head, batch, 2)
        total = 0
        for index in range(_unsigned(head, buffers) if buffers is not None else 0):
            start, size = struct.unpack_from("<qq", head, buffers + 4 + index * BUFFER_BYTES)  # type: ignore[operator]
            if size:
                if start < 0 or not 8 <= size <= len(content) - start:
                    raise Malformed("a compressed buffer lies outside of its message")
                (unpacked,) = struct.unpack_from("<q", content, start)
                if unpacked < -1:
                    raise Malformed("a compressed buffer has a negative size")
                total += size if unpacked == -1 else unpacked  # -1: this one is not compressed
        return total
    except (struct.error, IndexError):
        raise Malformed("the metadata of a message end too soon") from None


def _root(buffer: memoryview) -> int:
    return _unsigned(buffer, 0)


def _unsigned(buffer: memoryview, at: int) -> int:
    return int(struct.unpack_from("<I", buffer, at)[0])


def _field(buffer: memoryview, table: int, number: int) -> int | None:
    """Where a field of a table lies, None where it has its default."""
    fields = table - int(struct.unpack_from("<i", buffer, table)[0])
    (size,) = struct.unpack_from("<H", buffer, fields)
    if 4 + 2 * number >= size:
        return None
    (offset,) = struct.unpack_from("<H", buffer, fields + 4 + 2 * number)
    return table + offset if offset else None


def _table(buffer: memoryview, table: int, number: int) -> int | None:
    """Where the table or vector lies that a field points at."""
    at = _field(buffer, table, number)
    return None if at is None else at + _unsigned(buffer, at)


# -- Parquet -------------------------------------------------------------------------------------

# The end of a file: the length of its footer, and these four letters. The footer is read here, too: pyarrow's own
# description of a column chunk ends the process where some of its numbers contradict each other.
_PARQUET: Final = b"PAR1"
# Footers grow with columns and row groups, pages with rows; each takes microseconds to look at.
_FOOTER_BYTES: Final = 1024 * 1024
_MOST_PAGES: Final = 20_000

# FileMetaData.row_groups, RowGroup.columns, ColumnChunk.meta_data, and of ColumnMetaData what follows.
_ROW_GROUPS, _COLUMNS, _META_DATA = 4, 1, 3
_TYPE, _VALUES, _CHUNK_BYTES, _DATA_OFFSET, _DICTIONARY_OFFSET = 1, 5, 7, 9, 11
# What a value takes, by its type; truths a byte once they are decoded, and texts the number that stands for one.
_VALUE_BYTES: Final = {0: 1, 1: 4, 2: 8, 3: 8, 4: 4, 5: 8, 6: 4}
_LARGEST_BYTES: Final = 16
# PageHeader: its fields, and of the headers of data pages (versions 1 and 2) and dictionary pages the encoding.
_UNPACKED, _PACKED = 2, 3
_ENCODING: Final = {5: 2, 7: 2, 8: 4}
# Texts that each repeat the beginning of the one before: kilobytes can hold gigabytes, and no header says so.
_DELTA_BYTE_ARRAY: Final = 7


def parquet_bytes(body: bytes) -> int:
    """What a Parquet file takes, once it is unpacked: of each column chunk its pages, or its values if that is more.

    Raises:
        Malformed: no Parquet; a page ends outside of its column chunk, or is coded so that its size cannot be known.
    """
    footer_bytes = int.from_bytes(body[-8:-4], "little")
    start = len(body) - 8 - footer_bytes
    if len(body) < 12 or body[-4:] != _PARQUET or start < 4:
        raise Malformed("it does not end as Parquet does")
    if footer_bytes > _FOOTER_BYTES:
        raise Malformed(f"its footer is longer than {_FOOTER_BYTES} bytes")
    total = pages = 0
    for chunk in _chunks(Compact(body, start, len(body) - 8).struct()):
        sizes = list(islice(_pages(body, chunk), _MOST_PAGES - pages + 1))
        pages += len(sizes)
        if pages > _MOST_PAGES:
            raise Malformed(f"it has more than {_MOST_PAGES} pages")
        # A few bytes can say that a value is repeated, so that values take more than the pages they are in.
        total += max(sum(sizes), _size(chunk.get(_VALUES)) * _VALUE_BYTES.get(_size(chunk.get(_TYPE)), _LARGEST_BYTES))
    return total


def _chunks(footer: dict[int, Any]) -> Iterator[dict[int, Any]]:
    for group in _structs(footer.get(_ROW_GROUPS)):
        for column in _structs(group.get(_COLUMNS)):
            yield from _structs([column.get(_META_DATA)])


def _structs(found: Any) -> list[dict[int, Any]]:
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Malformed("its footer is not one of Parquet")
    return found


def _pages(body: bytes, chunk: dict[int, Any]) -> Iterator[int]:
    """The unpacked size of each page of a column chunk."""
    if _size(chunk.get(_VALUES)) == 0:  # then no page is read, and none need be there
        return
    at = _size(chunk.get(_DATA_OFFSET))
    dictionary = chunk.get(_DICTIONARY_OFFSET)
    if isinstance(dictionary, int) and 0 < dictionary < at:
        at = dictionary
    end = at + _size(chunk.get(_CHUNK_BYTES))
    if end > len(body):
        raise Malformed("a column chunk lies outside of the file")
    while at < end:
        reader = Compact(body, at, end)
        header = reader.struct()
        for kind, encoding in _ENCODING.items():
            about = header.get(kind)
            if isinstance(about, dict) and about.get(encoding) == _DELTA_BYTE_ARRAY:
                raise Malformed("a column is coded as DELTA_BYTE_ARRAY; write it with another encoding")
        yield _size(header.get(_UNPACKED))
        at = reader.at + _size(header.get(_PACKED))


def _size(found: Any) -> int:
    if type(found) is not int or found < 0:
        raise Malformed("a size in it is none")
    return found


class Compact:
    """Reads structs in Thrift's compact protocol from `at` on, and no further than `end`."""

    _DEPTH: Final = 16

    def __init__(self, content: bytes, at: int, end: int) -> None:
        self.at = at
        self._content = content
        self._end = end

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Fields by number: integers, truths, structs and lists; of texts and floats only that they are there.

        Raises:
            Malformed: the content ends within the struct, or is none.
        """
        fields: dict[int, Any] = {}
        number = 0
        while kind_and_step := self._byte():
            step = kind_and_step >> 4
            number = number + step if step else self._integer()
            kind = kind_and_step & 15
            # Beside a field the kind itself is a truth; in a list a truth takes a byte.
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > self._DEPTH:
            raise Malformed("it is nested too deeply")
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:  # 16, 32 and 64 bits
                return self._integer()
            case 7:
                return self._skip(8)
            case 8:
                return self._skip(self._unsigned())
            case 9 | 10:
                return self._list(depth)
            case 12:
                return self.struct(depth)
        raise Malformed("it holds what Parquet does not have")

    def _list(self, depth: int) -> list[Any]:
        size_and_kind = self._byte()
        size = size_and_kind >> 4
        if size == 15:
            size = self._unsigned()
        if size > self._end - self.at:  # each element takes a byte at least
            raise Malformed("a list is longer than what holds it")
        return [self._value(size_and_kind & 15, depth + 1) for _ in range(size)]

    def _byte(self) -> int:
        if self.at >= self._end:
            raise Malformed("it ends too soon")
        self.at += 1
        return self._content[self.at - 1]

    def _integer(self) -> int:
        zigzag = self._unsigned()
        return (zigzag >> 1) ^ -(zigzag & 1)

    def _unsigned(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise Malformed("a number in it does not end")

    def _skip(self, size: int) -> None:
        self.at += size
        if self.at > self._end:
            raise Malformed("it ends too soon")


_TRUE, _FALSE = 1, 2

"""Rows as an Arrow IPC stream: record batches in, and for each of them one out (or several, of a very long one).

The answer has the columns of `columnar/reply_table.py`, and `error`: null where a row was answered, and else the same
JSON that an NDJSON stream has there, beside nulls. Its schema stands before its first row, so it is taken from the
model's answer to its own example. What ends the stream before its time is a last batch of one row, whose error names
no row.

Nothing is believed before it was looked at, as in `columnar/arrow.py`: each message is measured, packed and unpacked,
before pyarrow reads it, and each batch is validated.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Final

import numpy as np

from service.core.contracts import HeldVersion
from service.core.deadline import Deadline
from service.core.errors import UnreadableRequest
from service.core.futures import Done
from service.core.messages import InferReply
from service.core.table import Table
from service.protocols.columnar.arrow import (
    arrow_columns,
    arrow_library,
    check_schema,
    check_size,
    decode_table,
    reading,
)
from service.protocols.columnar.arrow_arrays import arrow_array
from service.protocols.columnar.sizes import dictionary_of, message_bytes
from service.protocols.http import HttpRequest
from service.protocols.native import decode_records
from service.protocols.streaming.cuts import Messages
from service.protocols.streaming.rows import Outcome, Refused, RowStream, Steps

# Longer batches are answered in several.
ROWS: Final = 16_384
ERROR: Final = "error"
_MESSAGE: Final = "a message of the Arrow stream"


class ArrowStream(RowStream[Any]):
    """A part is a pyarrow.RecordBatch.

    Raises:
        UnsupportedMediaType: pyarrow is not installed.
    """

    def __init__(self, held: HeldVersion, outputs: tuple[str, ...], http: HttpRequest) -> None:
        super().__init__(held, outputs, http)
        self._pa = arrow_library()
        self._most_bytes = http.max_bytes
        self._most_rows = ROWS if held.merges else held.max_rows
        self._messages = Messages(http.max_bytes)
        self._reader = _Reader(self._pa)
        self._dictionaries: dict[int, int] = {}  # bytes of each that pyarrow keeps
        self._sink = io.BytesIO()
        self._schema: Any = None
        self._writer: Any = None

    def take(self, piece: bytes) -> Iterator[Future[bytes]]:
        for message in self._messages.cut(piece):
            batch = reading("Arrow stream", self._pa, lambda: self._batch(message))  # noqa: B023  called at once
            if self._writer is None:
                yield from self._begin()
            if batch is not None:
                yield from self.answer(batch, self._most_rows) if batch.num_rows else [Done(self.write([]))]

    def end(self) -> Iterator[Future[bytes]]:
        self._messages.require_end()
        if self._writer is None:
            raise UnreadableRequest("the body is empty; an Arrow stream was expected")
        yield Done(self._written(closes=True))

    def last(self, refused: Refused) -> Iterator[Future[bytes]]:
        if self._writer is None:
            try:
                yield from self._begin()
            except Exception:  # nobody knows then what columns there would be
                self._open([])
        yield Done(self.write([refused]) + self._written(closes=True))

    def size(self, part: Any) -> int:
        return int(part.num_rows)

    def between(self, part: Any, start: int, end: int) -> Any:
        return part.slice(start, end - start)

    def joined(self, parts: Sequence[Any]) -> Any:
        return parts[0] if len(parts) == 1 else self._pa.concat_batches(parts)

    def read(self, part: Any) -> Table:
        return decode_table(self._pa, self._pa.Table.from_batches([part]), self.signature, self._most_bytes)

    def write(self, outcomes: Sequence[Outcome]) -> bytes:
        """A record batch of so many rows."""
        parts = [self._columns(one) for one in outcomes]
        arrays = [self._joined([part[place] for part in parts], field.type) for place, field in enumerate(self._schema)]
        self._writer.write_batch(self._pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        return self._written()

    # -- in --------------------------------------------------------------------------------------

    def _batch(self, content: bytes) -> Any:
        """The record batch that the message holds; None where it holds none."""
        message = self._pa.ipc.read_message(self._pa.py_buffer(content))
        unpacked = message_bytes(message.metadata, message.body)
        if message.type == "dictionary":
            number, adds = dictionary_of(message.metadata)
            self._dictionaries[number] = unpacked + (self._dictionaries.get(number, 0) if adds else 0)
            unpacked = sum(self._dictionaries.values())
        check_size(unpacked, self._most_bytes, _MESSAGE)
        if not self._reader.is_open:
            check_schema(self._reader.open(content), self.signature)
            return None
        if message.type == "dictionary":
            return self._reader.keep(content)
        batch = self._reader.read(content)
        # Of nulls and truths, more than bytes may come.
        check_size(batch.num_rows * batch.num_columns, self._most_bytes, _MESSAGE)
        batch.validate(full=True)
        return batch

    # -- out -------------------------------------------------------------------------------------

    def _begin(self) -> Steps[None]:
        """Open the answer: with the schema that the answer to the model's example has."""
        self._deadline = Deadline.after(self._http.deadline.seconds)
        reply = yield from self.ask(decode_records([self.held.served.example], self.signature))
        if not isinstance(reply, InferReply):
            raise reply
        self._open([self._pa.field(name, array.type) for name, array in arrow_columns(self._pa, reply).items()])

    def _open(self, fields: Sequence[Any]) -> None:
        self._schema = self._pa.schema([*fields, self._pa.field(ERROR, self._pa.string())])
        self._writer = self._pa.ipc.new_stream(self._sink, self._schema)

    def _columns(self, outcome: Outcome) -> list[Any]:
        if isinstance(outcome, Refused):
            error = np.array([outcome.item().decode()], dtype=object)
            return [*(self._pa.nulls(1, field.type) for field in list(self._schema)[:-1]), arrow_array(self._pa, error)]
        columns = list(arrow_columns(self._pa, outcome).values())
        return [*columns, self._pa.nulls(len(columns[0]), self._pa.string())]

    def _joined(self, arrays: Sequence[Any], kind: Any) -> Any:
        # The dtype of an answer may differ from that of the example's: float32 from float64, by the engine.
        fitting = [array if array.type == kind else array.cast(kind) for array in arrays]
        if len(fitting) == 1:
            return fitting[0]
        return self._pa.concat_arrays(fitting) if fitting else self._pa.nulls(0, kind)

    def _written(self, *, closes: bool = False) -> bytes:
        """What was written since last asked."""
        if closes:
            self._writer.close()
        content = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return content


class _Reader:
    """pyarrow's reader of a stream, over messages that are complete before it is asked for what they hold."""

    def __init__(self, pa: Any) -> None:
        self._pa = pa
        self._content = bytearray()
        self._stream: Any = None

    @property
    def is_open(self) -> bool:
        return self._stream is not None

    def open(self, message: bytes) -> Any:
        """The schema, with which a stream begins."""
        self.keep(message)
        options = self._pa.ipc.IpcReadOptions(use_threads=False)
        self._stream = self._pa.ipc.open_stream(self._pa.PythonFile(_File(self._content), mode="r"), options=options)
        return self._stream.schema

    def keep(self, message: bytes) -> None:
        """A dictionary, which is read with the next batch."""
        self._content += message

    def read(self, message: bytes) -> Any:
        """A record batch."""
        self.keep(message)
        return self._stream.read_next_batch()


class _File:
    """As much of a file as pyarrow needs."""

    closed = False

    def __init__(self, content: bytearray) -> None:
        self._content = content

    def read(self, size: int) -> bytes:
        part = bytes(memoryview(self._content)[:size])
        del self._content[:size]
        return part

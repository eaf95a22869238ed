"""Rows as JSON lines: a record or a list of values per line in, an answer or an error per line out.

    {"age": 41, "city": "Graz"}          {"prediction":"stays"}
    {"age": "x"}                         {"error":{"type":…,"title":…,"status":422,"detail":…,"row":1,"errors":[…]}}
    [23, "Linz"]                         {"prediction":"leaves"}

Answers are those of the native dialect to one record, but for the model and its version, which are in headers. Blank
lines are no rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from itertools import chain
from typing import Final

import orjson

from service.core.contracts import HeldVersion
from service.core.errors import RequestTooLarge, UnreadableRequest
from service.core.futures import Done
from service.core.messages import InferReply
from service.core.signature import Signature
from service.core.table import Matrix, Table
from service.protocols.columnar.text import write_lines
from service.protocols.http import HttpRequest
from service.protocols.json_body import read_json
from service.protocols.native import decode_instances
from service.protocols.number_rows import read_number_rows
from service.protocols.streaming.cuts import Lines
from service.protocols.streaming.rows import Outcome, Refused, RowStream
from service.protocols.values import NeedsExactParse

# Of one line. A row of a thousand columns takes some twenty kilobytes.
LINE_BYTES: Final = 1024 * 1024
# Computed together: more gain next to nothing, and would keep an event loop from others.
ROWS: Final = 512


class NdjsonStream(RowStream[list[bytes]]):
    """A part is a list of lines."""

    def __init__(self, held: HeldVersion, outputs: tuple[str, ...], http: HttpRequest) -> None:
        super().__init__(held, outputs, http)
        self._line_bytes = min(LINE_BYTES, http.max_bytes)
        self._lines = Lines(self._line_bytes)
        # How many lines come together is chance: where the rows of a request matter to each other, each is a request.
        self._most = ROWS if held.merges else 1

    def take(self, piece: bytes) -> Iterator[Future[bytes]]:
        return self.answer(self._lines.cut(piece), self._most)

    def end(self) -> Iterator[Future[bytes]]:
        return self.answer(self._lines.rest(), self._most)

    def size(self, part: list[bytes]) -> int:
        return len(part)

    def between(self, part: list[bytes], start: int, end: int) -> list[bytes]:
        return part[start:end]

    def joined(self, parts: Sequence[list[bytes]]) -> list[bytes]:
        return list(chain.from_iterable(parts))

    def read(self, part: list[bytes]) -> Table:
        if max(map(len, part)) > self._line_bytes:
            raise RequestTooLarge(f"the line is longer than {self._line_bytes} bytes")
        return read_line(part[0], self.signature) if len(part) == 1 else read_lines(part, self.signature)

    def write(self, outcomes: Sequence[Outcome]) -> bytes:
        return b"".join(write_lines(one) if isinstance(one, InferReply) else _item(one) for one in outcomes)

    def last(self, refused: Refused) -> Iterator[Future[bytes]]:
        yield Done(_item(refused))


def read_line(line: bytes, signature: Signature) -> Table:
    """The row of one line. Raises what `read_json` and `decode_instances` do."""
    return read_json(line, lambda row, exact: decode_instances([row], signature, exact=exact), what="the line")


def read_lines(lines: Sequence[bytes], signature: Signature) -> Table:
    """The rows of several lines, each of which holds exactly one.

    Raises:
        UnreadableRequest: a line is not JSON, or is to be looked at alone.
        InvalidRequest, InvalidRows: JSON, but wrong for this model, or rows of two kinds.
    """
    if (matrix := _number_lines(lines, signature)) is not None:
        return matrix
    try:
        return decode_instances(list(map(orjson.loads, lines)), signature)
    except (orjson.JSONDecodeError, NeedsExactParse):
        raise UnreadableRequest("a line is not JSON, or has a number of many digits") from None


def _number_lines(lines: Sequence[bytes], signature: Signature) -> Matrix | None:
    """The short way for lists of numbers, from the lines to one array; None where the long way must look."""
    if not all(line.startswith(b"[") and line.endswith(b"]") for line in lines):
        return None
    found = read_number_rows(b'{"instances":[' + b",".join(lines) + b"]}", signature)
    # Of numbers there are as many brackets as rows. So where there are as many rows as lines, the bracket that opens a
    # line is its only one, and what is between it and the one that closes it is of this line.
    if found is None or found[1] is not None or len(found[0]) != len(lines):
        return None
    return Matrix(found[0])


def _item(refused: Refused) -> bytes:
    return b'{"error":' + refused.item() + b"}\n"

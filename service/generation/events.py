"""Events of a stream, out of bytes as they come.

Source: server-sent events as in the HTML standard, 9.2.6, but for two things: no line and no event is of any length,
and what is no UTF-8 is refused rather than mended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from service.core.errors import UpstreamFailed

MEDIA_TYPE: Final = "text/event-stream"
# No chunk of a language model comes near it.
MAX_EVENT_BYTES: Final = 256 * 1024

# Keeps the connection open; readers skip it.
HEARTBEAT: Final = b":\n\n"

_END: Final = re.compile(rb"\r\n|\n|\r")
_BOM: Final = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """`name` is "message" where the stream gives none. Lines of `data` are joined by newlines."""

    name: str
    data: str


class EventReader:
    """Takes time linear in the bytes, however they are cut, and holds one line and one event at most."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_event_bytes
        self._line = bytearray()  # of which no end came yet
        self._is_first = True
        self._after_return = False  # a newline that follows belongs to it
        self._name = b""
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Events that are complete with `chunk`, each before the rest is looked at; to be taken before the next chunk.

        One whose empty line never comes is none.

        Raises:
            UpstreamFailed: a line or an event is too long, or an event is no UTF-8.
        """
        if self._after_return and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_return = False
        *lines, rest = _END.split(chunk)
        if lines:
            lines[0] = bytes(self._line) + lines[0]
            self._line.clear()
            self._after_return = chunk.endswith(b"\r")
        self._line += rest
        for line in lines:
            if (event := self._read(line)) is not None:
                yield event
        self._require(len(self._line))

    def _read(self, line: bytes) -> Event | None:
        if self._is_first:
            line = line.removeprefix(_BOM)
            self._is_first = False
        if not line:
            return self._event()
        name, _, value = line.partition(b":")  # a comment has no name
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data_bytes += len(value) + 1
            self._data.append(value)
        elif name == b"event":
            self._name = value
        self._require(len(line))
        return None

    def _event(self) -> Event | None:
        name, data = self._name, self._data
        self._name, self._data, self._data_bytes = b"", [], 0
        if not data:
            return None
        try:
            return Event(name.decode() or "message", b"\n".join(data).decode())
        except UnicodeDecodeError:
            raise UpstreamFailed("the language model sent what is no UTF-8") from None

    def _require(self, line_bytes: int) -> None:
        if max(line_bytes, self._data_bytes) > self._max_bytes:
            raise UpstreamFailed(f"the language model sent a line or an event of more than {self._max_bytes} bytes")


def event(data: bytes, name: bytes = b"") -> bytes:
    """`data` as an event of a stream of ours."""
    head = b"event: %s\n" % name if name else b""
    return head + b"data: %s\n\n" % data.replace(b"\n", b"\ndata: ")

"""What a worker of gunicorn's, with threads, knows of a connection: what has come of its next request.

Until the request is there, the worker's loop reads; then gunicorn's parser decides what the bytes mean.
"""

from __future__ import annotations

import re
import socket
import time
from enum import Enum, auto
from typing import Any, Final, Protocol

from gunicorn import util
from gunicorn.http import errors, message, parser
from gunicorn.http.body import Body, ChunkedReader
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn

from service.core.errors import HeadersTooLarge, NotReceived, RequestTooLarge, UnreadableRequest
from service.entrypoints.limits import IN_PIECES, MAX_CHUNKS, SMALL_BODY_BYTES, HttpLimits

READ_BYTES: Final = 64 * 1024
# No chunk is as large; other readers cut such a number off.
CHUNK_BYTES: Final = 2**64

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r\n", re.IGNORECASE)
_EXPECTS: Final = re.compile(rb"\r\nexpect:", re.IGNORECASE)


class Worker(Protocol):
    cfg: Any
    limits: HttpLimits

    def linger(self, conn: Connection) -> None: ...


class Progress(Enum):
    READING = auto()
    READY = auto()
    CLOSED = auto()


class Connection(TConn):  # type: ignore[misc]
    """`received` is what the loop has read of the next request."""

    def __init__(self, worker: Worker, accepted: socket.socket, client: Any, server: Any) -> None:
        super().__init__(worker.cfg, accepted, client, server)
        self._worker = worker
        limits = worker.limits
        self.parser = Parser(worker.cfg, accepted, client, limits)
        self.data_ready = True  # when a thread gets it
        self.received = bytearray()
        self._limit = limits.max_url_bytes + limits.max_headers_bytes
        self._headers_end = -1
        self._wanted = 0  # bytes of headers and body, once they are known

    def close(self, graceful: bool = False) -> None:
        """gunicorn's own waits for the caller, for seconds, in the loop that all connections share."""
        if graceful:
            self._worker.linger(self)
        else:
            util.close(self.sock)

    @property
    def has_headers(self) -> bool:
        return self._headers_end >= 0

    @property
    def peer(self) -> str:
        """The address of the other end; empty where it has none."""
        return self.client if isinstance(self.client, str) else str(self.client[0])

    def receive(self) -> Progress:
        """Raises HeadersTooLarge and UnreadableRequest where it makes no sense to read on."""
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return Progress.READING
        except OSError:
            return Progress.CLOSED
        if not data:  # the app says what is missing
            return Progress.READY if self.has_headers else Progress.CLOSED
        self.received += data
        if not self.has_headers:
            self._headers_end = self.received.find(b"\r\n\r\n")
            if not self.has_headers:
                return self._without_headers()
            self._wanted = self._headers_end + 4 + self._small_body_bytes()
        return Progress.READY if len(self.received) >= self._wanted else Progress.READING

    def hand_over(self) -> None:
        """To the parser, which decides what the bytes mean."""
        self.parser.unreader.unread(bytes(self.received))
        self.clear()

    def clear(self) -> None:
        """For the next request."""
        self.received.clear()
        self._headers_end = -1

    def _without_headers(self) -> Progress:
        if len(self.received) > self._limit:
            raise HeadersTooLarge(f"more than {self._limit} bytes of URL and headers")
        if not (self.received[:1].isalpha() or self.received[:1] == b"\r"):  # TLS, for one
            raise UnreadableRequest("these bytes are no request of HTTP/1.1")
        # A line without CR never ends the headers; the parser refuses it.
        has_bare_lf = self.received.count(b"\n") != self.received.count(b"\r\n")
        return Progress.READY if has_bare_lf else Progress.READING

    def _small_body_bytes(self) -> int:
        """How much to wait for; nothing where the length is unknown, large, or the caller waits itself."""
        end = self._headers_end + 2
        length = _LENGTH.search(self.received, 0, end)
        if length is None or int(length[1]) > SMALL_BODY_BYTES or _EXPECTS.search(self.received, 0, end):
            return 0
        return int(length[1])


class Parser(parser.RequestParser):  # type: ignore[misc]
    def __init__(self, cfg: Any, source: socket.socket, address: Any, limits: HttpLimits) -> None:
        super().__init__(cfg, source, address)
        self.unreader = Unreader(source, limits.write_timeout_s)
        self._limits = limits

    def __next__(self) -> Any:
        self.unreader.expect("head", self._limits.headers_timeout_s)
        message = super().__next__()
        self.unreader.expect("body", self._limits.body_timeout_s)
        self.unreader.sock.settimeout(self._limits.write_timeout_s)
        return message


class Unreader(SocketUnreader):  # type: ignore[misc]
    """Reads within deadlines; what is written to the socket meanwhile has one of its own."""

    def __init__(self, source: socket.socket, write_timeout_s: float) -> None:
        super().__init__(source)
        self._write_timeout_s = write_timeout_s

    def expect(self, part: str, seconds: float) -> None:
        """From now on, what is read belongs to this part of a request."""
        self._part, self._seconds, self._until = part, seconds, time.monotonic() + seconds
        self.is_in_pieces = False  # the app answers the body while it comes

    def read_in_pieces(self) -> None:
        self.is_in_pieces = True

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Raises NotReceived."""
        left = self._seconds if self.is_in_pieces else self._until - time.monotonic()
        if left <= 0:
            raise NotReceived(self._part, self._seconds)
        self.sock.settimeout(left)
        try:
            data: bytes = super().chunk(size_hint)
        except TimeoutError:
            raise NotReceived(self._part, self._seconds) from None
        self.sock.settimeout(self._write_timeout_s)
        return data


class Request(message.Request):  # type: ignore[misc]
    def set_body_reader(self) -> None:
        super().set_body_reader()
        for name, value in self.headers:
            if name == "TRANSFER-ENCODING":
                if value.lower() != "chunked":
                    raise errors.UnsupportedTransferCoding(value)
                self.body = Body(Chunks(self, self.unreader))
        if isinstance(self.unreader, Unreader):
            setattr(self.body, IN_PIECES, self.unreader.read_in_pieces)


class Chunks(ChunkedReader):  # type: ignore[misc]
    _chunks = 0

    def parse_chunk_size(self, unreader: Any, data: Any = None) -> Any:
        size, rest = super().parse_chunk_size(unreader, data)
        if size >= CHUNK_BYTES:
            raise errors.InvalidChunkSize(b"a number beyond 64 bits")
        self._chunks += 1
        if self._chunks > MAX_CHUNKS and not getattr(unreader, "is_in_pieces", False):
            raise RequestTooLarge(f"the body comes in more than {MAX_CHUNKS} chunks")
        return size, rest


Parser.mesg_class = Request

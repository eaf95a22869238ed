"""gunicorn's workers, and what they leave to a proxy.

Errors are problem details in all of them. Under threads, a request takes a thread only when it is there: until then
the one loop reads it, within deadlines. So callers that are slow cannot hold the threads of others.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import selectors
import socket
import time
from collections import OrderedDict
from enum import Enum, auto
from functools import partial
from typing import Any, Final

from gunicorn import util
from gunicorn.http import errors
from gunicorn.http.body import Body, ChunkedReader
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers import gthread

from service.core.errors import (
    HeadersTooLarge,
    NotOffered,
    NotReceived,
    RequestTooLarge,
    TandemError,
    TargetTooLong,
    UnreadableRequest,
)
from service.entrypoints.drain import DRAIN
from service.entrypoints.limits import IN_PIECES, MAX_CHUNKS, HttpLimits
from service.entrypoints.refusals import refuse

# Bodies up to this size are there before a thread is taken. Larger ones would be held twice.
SMALL_BODY_BYTES: Final = 64 * 1024
READ_BYTES: Final = 64 * 1024
# No chunk is as large; other readers cut such a number off.
CHUNK_BYTES: Final = 2**64
# What is left of a refused body may still come for so long, so that the connection can be used again.
UNREAD_S: Final = 0.5
# A caller has so long to end a connection that we have ended.
LINGER_S: Final = 2.0

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r\n", re.IGNORECASE)
_EXPECTS: Final = re.compile(rb"\r\nexpect:", re.IGNORECASE)


def worker_of(name: str, limits: HttpLimits) -> type[Any]:
    """gunicorn's worker class `name`, mended."""
    if name == "gthread":
        return type("ThreadWorker", (ThreadWorker,), {"limits": limits})
    base: type[Any] = util.load_class(name)
    return type(base.__name__, (_Problems, base), {})


class _Problems:
    """What gunicorn answers itself, as problem details. Whoever is connected for long is told when it stops."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        os.kill(os.getpid(), DRAIN)
        super().handle_exit(sig, frame)  # type: ignore[misc]

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        if not isinstance(exc, errors.ParseException | TandemError):
            self.log.exception("error handling a request")  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            util.write_nonblock(client, refuse(_meaning(exc)))


def _meaning(exc: BaseException) -> BaseException:
    match exc:
        case errors.LimitRequestLine():
            return TargetTooLong("the URL is too long")
        case errors.LimitRequestHeaders():
            return HeadersTooLarge("the headers are too large, or too many")
        case errors.UnsupportedTransferCoding():
            return NotOffered("Transfer-Encoding: a body comes whole or chunked, coded in no other way")
        case errors.InvalidRequestMethod():
            return NotOffered("this method is not known here")
        case errors.ParseException():
            return UnreadableRequest("these bytes are no request of HTTP/1.1")
    return exc


class _Progress(Enum):
    READING = auto()
    READY = auto()
    CLOSED = auto()


class ThreadWorker(_Problems, gthread.ThreadWorker):  # type: ignore[misc]
    """A loop that reads requests, and threads that answer them."""

    limits: HttpLimits

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Connections that the loop reads, and since when: those without all their headers, and those without all of
        # their body. Each in the order in which they began, which is that of their deadlines.
        self._heads: OrderedDict[_Connection, float] = OrderedDict()
        self._bodies: OrderedDict[_Connection, float] = OrderedDict()
        # Connections of ours that are at an end, whose callers have not closed theirs.
        self._leaving: OrderedDict[_Connection, float] = OrderedDict()

    def accept(self, listener: socket.socket) -> None:
        try:
            accepted, client = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self.log.warning("no more files can be opened: connections wait")
                time.sleep(0.01)  # they stay readable: without a pause, the loop would do nothing else
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                raise
            return
        self.nr_conns += 1
        if self.nr_conns > self.limits.max_connections:
            self._make_room()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read(_Connection(self, accepted, client, listener.getsockname()))

    def on_client_socket_readable(self, conn: _Connection, client: socket.socket) -> None:
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._read(conn)

    def murder_pending(self) -> None:
        """Called by gunicorn's loop every second, and while it stops."""
        silence_s = self.limits.headers_timeout_s
        if not self.alive:
            silence_s = min(silence_s, gthread.STOP_KEEPALIVE_LINGER)
        for waiting, seconds, part in (
            (self._heads, silence_s, "head"),
            (self._bodies, self.limits.body_timeout_s, "body"),
        ):
            until = time.monotonic() - seconds
            while waiting and (oldest := next(iter(waiting.items())))[1] <= until:
                conn = oldest[0]
                self._drop(conn, NotReceived(part, seconds) if conn.received else None)
        while self._leaving and next(iter(self._leaving.values())) <= time.monotonic() - LINGER_S:
            self._leave(next(iter(self._leaving)))

    def linger(self, conn: _Connection) -> None:
        """Say that no more comes, and wait for the caller to say so, too (RFC 9112, 9.6).

        Were the connection closed with bytes of the caller's unread, it might lose the end of the answer.
        """
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            util.close(conn.sock)
            return
        conn.sock.setblocking(False)
        self._leaving[conn] = time.monotonic()
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_leaving, conn))

    def _on_leaving(self, conn: _Connection, _: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                if conn.sock.recv(READ_BYTES):
                    return
            except ConnectionError:
                pass
            self._leave(conn)

    def _leave(self, conn: _Connection) -> None:
        del self._leaving[conn]
        self.poller.unregister(conn.sock)
        util.close(conn.sock)

    def handle_request(self, req: Any, conn: _Connection) -> Any:
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            self.log.info("an answer was not taken within %g s", self.limits.write_timeout_s)
            with contextlib.suppress(OSError):
                conn.sock.shutdown(socket.SHUT_RD)  # `linger` then takes the caller's side for closed
            raise StopIteration from None  # gunicorn's word for closing the connection

    def _keepalive_after(self, conn: _Connection, keepalive: bool) -> bool:
        """As gunicorn's own, which waits on the thread for five seconds for a body that was refused unread."""
        conn.parser.unreader.expect("rest", UNREAD_S)
        try:
            return keepalive and bool(conn.parser.finish_body(max_bytes=READ_BYTES))
        except NotReceived:
            return False

    def _read(self, conn: _Connection) -> None:
        """Take what has come; hand the connection to a thread, or wait for more."""
        conn.sock.setblocking(False)
        if not self._advance(conn):
            self._heads[conn] = time.monotonic()
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_readable, conn))

    def _on_readable(self, conn: _Connection, _: socket.socket) -> None:
        if conn in self._heads and conn.has_headers:  # they came with the packet before
            del self._heads[conn]
            self._bodies[conn] = time.monotonic()
        if self._advance(conn):
            self._forget(conn)

    def _advance(self, conn: _Connection) -> bool:
        """Whether the loop is done with it."""
        try:
            progress = conn.receive()
        except TandemError as error:
            self._close(conn, error)
            return True
        if progress is _Progress.READY:
            conn.hand_over()
            self.enqueue_req(conn)
        elif progress is _Progress.CLOSED:
            self._close(conn, None)
        return progress is not _Progress.READING

    def _make_room(self) -> None:
        """For a new connection, by closing the one that has said nothing for longest."""
        if self._heads:
            self._drop(next(iter(self._heads)), None)
        elif self.keepalived_conns:
            conn = self.keepalived_conns.popleft()
            self.poller.unregister(conn.sock)
            self._close(conn, None)

    def _drop(self, conn: _Connection, error: TandemError | None) -> None:
        self._forget(conn)
        self._close(conn, error)

    def _forget(self, conn: _Connection) -> None:
        with contextlib.suppress(KeyError, ValueError):  # a socket that is closed is registered no more
            self.poller.unregister(conn.sock)
        self._heads.pop(conn, None)
        self._bodies.pop(conn, None)

    def _close(self, conn: _Connection, error: TandemError | None) -> None:
        if error is not None:
            with contextlib.suppress(OSError):
                conn.sock.send(refuse(error))
        self.nr_conns -= 1
        conn.close()


class _Connection(gthread.TConn):  # type: ignore[misc]
    """`received` is what the loop has read of the next request."""

    def __init__(self, worker: ThreadWorker, accepted: socket.socket, client: Any, server: Any) -> None:
        super().__init__(worker.cfg, accepted, client, server)
        self._worker = worker
        limits = worker.limits
        self.parser = _Parser(worker.cfg, accepted, client, limits)
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

    def receive(self) -> _Progress:
        """Raises HeadersTooLarge and UnreadableRequest where it makes no sense to read on."""
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return _Progress.READING
        except OSError:
            return _Progress.CLOSED
        if not data:  # the app says what is missing
            return _Progress.READY if self.has_headers else _Progress.CLOSED
        self.received += data
        if not self.has_headers:
            self._headers_end = self.received.find(b"\r\n\r\n")
            if not self.has_headers:
                return self._without_headers()
            self._wanted = self._headers_end + 4 + self._small_body_bytes()
        return _Progress.READY if len(self.received) >= self._wanted else _Progress.READING

    def hand_over(self) -> None:
        """To the parser, which decides what the bytes mean."""
        self.parser.unreader.unread(bytes(self.received))
        self.received.clear()
        self._headers_end = -1

    def _without_headers(self) -> _Progress:
        if len(self.received) > self._limit:
            raise HeadersTooLarge(f"more than {self._limit} bytes of URL and headers")
        if not (self.received[:1].isalpha() or self.received[:1] == b"\r"):  # TLS, for one
            raise UnreadableRequest("these bytes are no request of HTTP/1.1")
        # A line without CR never ends the headers; the parser refuses it.
        has_bare_lf = self.received.count(b"\n") != self.received.count(b"\r\n")
        return _Progress.READY if has_bare_lf else _Progress.READING

    def _small_body_bytes(self) -> int:
        """How much to wait for; nothing where the length is unknown, large, or the caller waits itself."""
        end = self._headers_end + 2
        length = _LENGTH.search(self.received, 0, end)
        if length is None or int(length[1]) > SMALL_BODY_BYTES or _EXPECTS.search(self.received, 0, end):
            return 0
        return int(length[1])


class _Parser(RequestParser):  # type: ignore[misc]
    def __init__(self, cfg: Any, source: socket.socket, address: Any, limits: HttpLimits) -> None:
        super().__init__(cfg, source, address)
        self.unreader = _Unreader(source, limits.write_timeout_s)
        self._limits = limits

    def __next__(self) -> Any:
        self.unreader.expect("head", self._limits.headers_timeout_s)
        message = super().__next__()
        self.unreader.expect("body", self._limits.body_timeout_s)
        self.unreader.sock.settimeout(self._limits.write_timeout_s)
        return message


class _Unreader(SocketUnreader):  # type: ignore[misc]
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


class _Request(Request):  # type: ignore[misc]
    def set_body_reader(self) -> None:
        super().set_body_reader()
        for name, value in self.headers:
            if name == "TRANSFER-ENCODING":
                if value.lower() != "chunked":
                    raise errors.UnsupportedTransferCoding(value)
                self.body = Body(_Chunks(self, self.unreader))
        if isinstance(self.unreader, _Unreader):
            setattr(self.body, IN_PIECES, self.unreader.read_in_pieces)


class _Chunks(ChunkedReader):  # type: ignore[misc]
    _chunks = 0

    def parse_chunk_size(self, unreader: Any, data: Any = None) -> Any:
        size, rest = super().parse_chunk_size(unreader, data)
        if size >= CHUNK_BYTES:
            raise errors.InvalidChunkSize(b"a number beyond 64 bits")
        self._chunks += 1
        if self._chunks > MAX_CHUNKS and not getattr(unreader, "is_in_pieces", False):
            raise RequestTooLarge(f"the body comes in more than {MAX_CHUNKS} chunks")
        return size, rest


_Parser.mesg_class = _Request

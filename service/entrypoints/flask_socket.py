"""A session over a WebSocket, under WSGI servers that hand over the connection: gunicorn with threads, or with gevent.

One thread (or greenlet) reads, writes, pings and ends it, and waits for all of that at once; what frames mean is the
business of wsproto. The library simple-websocket, which also takes gunicorn's connections, is not used: it writes what
fits into the system's buffer and drops the rest, keeps all messages that come, and has no deadline for writing.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from io import StringIO
from typing import TYPE_CHECKING, Final

from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError

from service.entrypoints.limits import SocketLimits
from service.protocols.socket import MAX_IN_FLIGHT, PARTING_S, Close, Session

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

READ_BYTES: Final = 64 * 1024


def connection_of(environ: WSGIEnvironment) -> socket.socket | None:
    """The connection of a request, where this server hands it over, and has others to answer other requests."""
    return environ.get("gunicorn.socket") if environ.get("wsgi.multithread") else None


def converse(session: Session, connection: socket.socket, key: str, limits: SocketLimits) -> None:
    """Until the session ends; `connection` is then at its end, too. `key` is Sec-WebSocket-Key of the handshake."""
    try:
        with _Conversation(session, connection, limits) as conversation:
            conversation.run(key)
    except OSError:  # the caller has left
        pass
    finally:
        session.close()


class _Conversation:
    def __init__(self, session: Session, connection: socket.socket, limits: SocketLimits) -> None:
        self._session = session
        self._connection = connection
        self._limits = limits
        self._protocol = WSConnection(ConnectionType.SERVER)
        self._message, self._message_bytes = StringIO(), 0  # what came of one
        self._in_flight = 0
        self._answers: deque[str] = deque()  # filled by any thread
        self._unsent = bytearray()  # one answer at most, and a few bytes of pings and the like
        self._unsent_since = 0.0
        self._next_ping = time.monotonic() + limits.ping_s
        self._awaits_pong = False
        self._has_come = False  # something that was not looked at yet: a pong may be in it
        self._is_closing = False  # that was said, or is about to be
        self._is_broken = False  # nobody knows where another frame would begin
        self._is_over = False
        self._ends_at = 0.0
        self._woken, self._waker = socket.socketpair()
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> _Conversation:
        for each in (self._connection, self._woken, self._waker):
            each.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def run(self, key: str) -> None:
        self._accept(key)
        while not self._is_over:
            self._write()
            self._read_messages()
            self._wait()
            self._keep_time()

    def _accept(self, key: str) -> None:
        asked = {
            "Host": "localhost", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
        }  # fmt: skip
        self._protocol.initiate_upgrade_connection([(n.encode(), v.encode()) for n, v in asked.items()], "/")
        for _ in self._protocol.events():  # the request, as wsproto sees it
            pass
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._session.headers.items()]
        self._send(AcceptConnection(extra_headers=headers))

    # Reading.

    @property
    def _reads(self) -> bool:
        """Not while too many are in flight, nor when all that is left is to answer them."""
        return self._is_closing or (self._in_flight < MAX_IN_FLIGHT and self._session.ending is None)

    def _read_messages(self) -> None:
        """What has come: as many messages as may be in flight. The rest stays in the parser, and in the system."""
        if self._is_broken:
            return
        self._has_come = False
        events = self._protocol.events()
        while self._reads and (event := next(events, None)) is not None:
            self._handle(event)
            if self._is_broken or self._is_over:
                return

    def _handle(self, event: Event) -> None:
        match event:
            case CloseConnection():
                self._take_close(event)
            case Pong():
                self._awaits_pong = False
            case Ping() if not self._unsent and not self._is_closing:  # else they would pile up
                self._send(event.response())
            case BytesMessage() if not self._is_closing:
                self._end(Close.NOT_TEXT)
            case TextMessage() if not self._is_closing:
                self._take_text(event)

    def _take_text(self, event: TextMessage) -> None:
        self._message_bytes += len(event.data.encode())
        if self._message_bytes > self._limits.max_message_bytes:
            self._end(Close.TOO_LARGE)
            return
        self._message.write(event.data)
        if event.message_finished:
            text = self._message.getvalue()
            self._message, self._message_bytes = StringIO(), 0
            self._in_flight += 1
            self._session.feed(text).add_done_callback(self._answered)

    def _take_close(self, event: CloseConnection) -> None:
        if self._protocol.state is ConnectionState.OPEN:  # it sent no close, but broke the protocol
            self._is_broken = True
            self._say(event)
            return
        with contextlib.suppress(LocalProtocolError):  # it answers ours
            self._send(event.response())
        self._is_over = True

    # Writing.

    def _answered(self, answer: Future[str]) -> None:
        if not answer.cancelled():
            self._answers.append(answer.result())
            with contextlib.suppress(OSError):  # it is awake, or at its end
                self._waker.send(b"\0")

    def _write(self) -> None:
        """Raises OSError where the caller takes nothing any more."""
        while True:
            if not self._unsent and self._answers and not self._is_closing:
                self._in_flight -= 1
                self._send(TextMessage(data=self._answers.popleft()))
            if not self._unsent:
                return
            try:
                del self._unsent[: self._connection.send(self._unsent)]
            except BlockingIOError:
                return

    def _send(self, event: Event) -> None:
        if not self._unsent:
            self._unsent_since = time.monotonic()
        self._unsent += self._protocol.send(event)

    def _say(self, event: CloseConnection) -> None:
        self._send(event)
        self._is_closing = True
        self._ends_at = time.monotonic() + PARTING_S

    def _end(self, close: Close) -> None:
        self._say(CloseConnection(code=close.code, reason=close.reason))

    # Waiting.

    def _wait(self) -> None:
        """Until something is to be done, or due."""
        if self._is_over:
            self._write()
            return
        timeout = max(0.0, self._due() - time.monotonic())
        with self._watching():
            ready = self._selector.select(timeout)
        for key, events in ready:
            if key.fileobj is self._woken:
                self._woken.recv(READ_BYTES)
            elif events & selectors.EVENT_READ:
                self._receive()

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        """The connection is looked at for as much as there is to do with it, which may be nothing."""
        events = selectors.EVENT_READ if self._reads else 0
        events |= selectors.EVENT_WRITE if self._unsent else 0
        if events:
            self._selector.register(self._connection, events)
        yield
        if events:
            self._selector.unregister(self._connection)

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = self._connection.recv(READ_BYTES)
            if not data:
                self._is_over = True
            elif not self._is_broken:
                self._protocol.receive_data(data)
                self._has_come = True

    def _due(self) -> float:
        due = [self._session.due, self._next_ping]
        if self._unsent:
            due.append(self._unsent_since + self._limits.write_timeout_s)
        if self._is_closing:
            due.append(self._ends_at)
        return min(due)

    def _keep_time(self) -> None:
        now = time.monotonic()
        if self._unsent and now >= self._unsent_since + self._limits.write_timeout_s:
            self._is_over = True
        if self._is_closing:
            self._is_over |= now >= self._ends_at
            self._next_ping = self._ends_at
            return
        if now >= self._session.due:
            self._session.tick()
        if now >= self._next_ping and not self._has_come:
            self._ping(now)
        ending = self._session.ending
        # Where the service stops, what was taken is answered before.
        if ending is not None and (ending is not Close.STOPPING or not self._in_flight):
            self._end(ending)

    def _ping(self, now: float) -> None:
        self._next_ping = now + self._limits.ping_s
        if not self._reads:  # an answer could not come
            return
        if self._awaits_pong:
            self._end(Close.NO_PONG)
        elif not self._unsent:
            self._awaits_pong = True
            self._send(Ping())

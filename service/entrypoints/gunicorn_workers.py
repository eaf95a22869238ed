"""gunicorn's workers, and what they leave to a proxy.

Errors are problem details in all of them. Under threads, a request takes a thread only when it is there: until then
the one loop reads it, within deadlines. So callers that are slow cannot hold the threads of others.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time
from collections import OrderedDict
from functools import partial
from typing import Any, Final

from gunicorn import util
from gunicorn.http import errors
from gunicorn.workers import gthread

from service.core.errors import (
    HeadersTooLarge,
    NotOffered,
    NotReceived,
    TandemError,
    TargetTooLong,
    UnreadableRequest,
)
from service.core.futures import Done
from service.entrypoints.drain import DRAIN
from service.entrypoints.flask_waiting import has_left
from service.entrypoints.gunicorn_connections import READ_BYTES, Connection, Progress
from service.entrypoints.gunicorn_replies import telling, whole
from service.entrypoints.limits import HttpLimits
from service.entrypoints.refusals import refuse

# What is left of a refused body may still come for so long, so that the connection can be used again.
UNREAD_S: Final = 0.5
# How often the arbiter is told that a worker lives. It waits for 30 s; gunicorn's own loop says so every second, too.
NOTIFY_S: Final = 0.5
# A caller has so long to end a connection that we have ended.
LINGER_S: Final = 2.0


def worker_of(name: str, limits: HttpLimits) -> type[Any]:
    """gunicorn's worker class `name`, mended."""
    if name == "gthread":
        return type("ThreadWorker", (ThreadWorker,), {"limits": limits})
    base: type[Any] = util.load_class(name)
    return type(base.__name__, (_Alone if name == "sync" else _Mended, base), {})


class _Mended:
    """What gunicorn answers itself, as problem details. Whoever is connected for long is told when it stops."""

    wsgi: Any

    def load_wsgi(self) -> None:
        super().load_wsgi()  # type: ignore[misc]
        self.wsgi = whole(self.wsgi)

    def handle_exit(self, sig: int, frame: Any) -> None:
        os.kill(os.getpid(), DRAIN)
        super().handle_exit(sig, frame)  # type: ignore[misc]

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        if not isinstance(exc, errors.ParseException | TandemError):
            self.log.exception("error handling a request")  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            util.write_nonblock(client, refuse(_meaning(exc)))


class _Alone(_Mended):
    """A worker of one thread, which the arbiter takes for hung, and kills, when an answer takes its `timeout`.

    So what waits for others, or comes in pieces, says that it lives.
    """

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.wsgi = telling(self.wsgi, self.notify)  # type: ignore[attr-defined]


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


class ThreadWorker(_Mended, gthread.ThreadWorker):  # type: ignore[misc]
    """A loop that reads requests and answers those that came whole, and threads that answer all others."""

    limits: HttpLimits

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Connections that the loop reads, and since when: those without all their headers, and those without all of
        # their body. Each in the order in which they began, which is that of their deadlines.
        self._heads: OrderedDict[Connection, float] = OrderedDict()
        self._bodies: OrderedDict[Connection, float] = OrderedDict()
        self._notifies_at = 0.0
        # Connections of ours that are at an end, whose callers have not closed theirs.
        self._leaving: OrderedDict[Connection, float] = OrderedDict()

    def load_wsgi(self) -> None:
        from service.entrypoints.gunicorn_whole import WholeRequests  # only now: gevent wants to be there first

        super().load_wsgi()
        self._whole = WholeRequests(self, self.app.wsgi().wsgi_app)

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
        self._read(Connection(self, accepted, client, listener.getsockname()))

    def notify(self) -> None:
        """gunicorn's own tells the arbiter each time round, by touching a file."""
        now = time.monotonic()
        if now >= self._notifies_at:
            self._notifies_at = now + NOTIFY_S
            super().notify()

    def on_client_socket_readable(self, conn: Connection, client: socket.socket) -> None:
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

    def linger(self, conn: Connection) -> None:
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

    def _on_leaving(self, conn: Connection, _: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                if conn.sock.recv(READ_BYTES):
                    return
            except ConnectionError:
                pass
            self._leave(conn)

    def _leave(self, conn: Connection) -> None:
        del self._leaving[conn]
        self.poller.unregister(conn.sock)
        util.close(conn.sock)

    def handle_request(self, req: Any, conn: Connection) -> Any:
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            self._not_taken(conn)
            raise StopIteration from None  # gunicorn's word for closing the connection

    def _not_taken(self, conn: Connection) -> None:
        self.log.info("an answer was not taken within %g s", self.limits.write_timeout_s)
        with contextlib.suppress(OSError):
            conn.sock.shutdown(socket.SHUT_RD)  # `linger` then takes the caller's side for closed

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        """As gunicorn's own, which waits on the thread for five seconds for a body that was refused unread."""
        conn.parser.unreader.expect("rest", UNREAD_S)
        try:
            return keepalive and bool(conn.parser.finish_body(max_bytes=READ_BYTES))
        except NotReceived:
            return False

    def _read(self, conn: Connection) -> None:
        """Take what has come; hand the connection to a thread, or wait for more."""
        conn.sock.setblocking(False)
        if not self._advance(conn):
            self._heads[conn] = time.monotonic()
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_readable, conn))

    def _on_readable(self, conn: Connection, _: socket.socket) -> None:
        if conn in self._heads and conn.has_headers:  # they came with the packet before
            del self._heads[conn]
            self._bodies[conn] = time.monotonic()
        self._advance(conn)

    def _advance(self, conn: Connection) -> bool:
        """Whether the loop is done with it."""
        try:
            progress = conn.receive()
        except TandemError as error:
            self._drop(conn, error)
            return True
        if progress is Progress.READY:
            self._forget(conn)
            if not self._whole.take(conn):
                conn.hand_over()
                self.enqueue_req(conn)
        elif progress is Progress.CLOSED:
            self._drop(conn, None)
        return progress is not Progress.READING

    # Of requests that came whole.

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        for key, _ in self.poller.select(self._whole.wait_s(timeout)):
            if self._is_awaited(key):
                key.data(key.fileobj)
        self._whole.end_turn()

    def _is_awaited(self, key: selectors.SelectorKey) -> bool:
        """Whether what came is still waited for: an earlier event of this turn may have ended its connection."""
        try:
            return self.poller.get_key(key.fileobj) is key
        except (KeyError, ValueError):
            return False

    @property
    def keeps_alive(self) -> bool:
        """Whether a connection outlives its answer, as gunicorn has it."""
        return bool(self.alive) and len(self.keepalived_conns) < self.max_keepalived

    def write(self, conn: Connection, answer: bytes, *, keep_alive: bool) -> None:
        """The loop waits for nobody: what is not taken at once is written by a thread."""
        try:
            sent = conn.sock.send(answer)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.hang_up(conn)
            return
        if sent == len(answer):
            self.finish_request(conn, Done(keep_alive))
        else:
            rest = self.tpool.submit(self._write_rest, conn, answer[sent:], keep_alive)
            rest.add_done_callback(partial(self.method_queue.defer, self.finish_request, conn))

    def _write_rest(self, conn: Connection, rest: bytes, keep_alive: bool) -> bool:
        conn.sock.settimeout(self.limits.write_timeout_s)
        try:
            conn.sock.sendall(rest)
        except TimeoutError:
            self._not_taken(conn)
            return False
        except OSError:  # the caller has left
            return False
        return keep_alive

    def hang_up(self, conn: Connection, error: TandemError | None = None) -> None:
        """End the connection at once, with a refusal where there is one."""
        if error is not None:
            with contextlib.suppress(OSError):
                conn.sock.send(refuse(error))
        self.nr_conns -= 1
        conn.close()

    def watch(self, conn: Connection) -> None:
        """While its answer is computed: does the caller leave?"""
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_impatient, conn))

    def unwatch(self, conn: Connection) -> None:
        with contextlib.suppress(KeyError):  # what came was the next request
            self.poller.unregister(conn.sock)

    def _on_impatient(self, conn: Connection, _: socket.socket) -> None:
        self.poller.unregister(conn.sock)
        if has_left(conn.sock):
            self._whole.leave(conn)
            self.hang_up(conn)

    def _make_room(self) -> None:
        """For a new connection, by closing the one that has said nothing for longest."""
        if self._heads:
            self._drop(next(iter(self._heads)), None)
        elif self.keepalived_conns:
            conn = self.keepalived_conns.popleft()
            self.poller.unregister(conn.sock)
            self.hang_up(conn)

    def _drop(self, conn: Connection, error: TandemError | None) -> None:
        self._forget(conn)
        self.hang_up(conn, error)

    def _forget(self, conn: Connection) -> None:
        if conn not in self._heads and conn not in self._bodies:
            return
        with contextlib.suppress(KeyError, ValueError):  # a socket that is closed is registered no more
            self.poller.unregister(conn.sock)
        self._heads.pop(conn, None)
        self._bodies.pop(conn, None)

"""HTTP under gunicorn's threads, of requests that come whole: the loop that reads them answers them, too.

To hand a request to a thread and back takes longer than a short prediction, and threads that read, compute and write
take the interpreter from each other. What is not short is computed by the service's own threads meanwhile, as under an
event loop, and its answer comes back here. What is unusual gets a thread of gunicorn's.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from gunicorn.http.wsgi import SERVER
from gunicorn.util import http_date
from werkzeug.http import HTTP_STATUS_CODES

from service.entrypoints.flask_waiting import has_left
from service.entrypoints.gunicorn_connections import Connection
from service.entrypoints.turns import LONG_BYTES, Turns
from service.entrypoints.whole import Destination, Whole
from service.observability.logs import write_by_turns
from service.protocols.http import HttpReply, HttpRequest, Reply

if TYPE_CHECKING:
    from service.assembly import Tandem

_log = logging.getLogger("tandem")


class Worker(Protocol):
    """What of gunicorn's worker is used here."""

    @property
    def method_queue(self) -> Any: ...

    @property
    def keeps_alive(self) -> bool: ...

    def write(self, conn: Connection, answer: bytes, *, keep_alive: bool) -> None: ...

    def hang_up(self, conn: Connection) -> None: ...

    def watch(self, conn: Connection) -> None: ...

    def unwatch(self, conn: Connection) -> None: ...


class App(Protocol):
    """What is asked of Flask's side."""

    @property
    def tandem(self) -> Tandem: ...

    def is_watched(self) -> bool:
        """Whether anybody wants to see requests before they are answered, or afterwards."""
        ...


class WholeRequests:
    """What the loop of a worker answers. To be made and used on its thread."""

    def __init__(self, worker: Worker, app: App) -> None:
        self._worker = worker
        self._app = app
        self._whole = Whole(app.tandem.api, app.tandem.paths, Turns(lambda: self))
        self._soon: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        # Requests whose answers others compute, and when the first of them is late, or earlier.
        self._waiting: dict[Connection, HttpRequest] = {}
        self._late_at = math.inf
        # What others have computed.
        self._computed: deque[tuple[Connection, HttpRequest, Future[Reply]]] = deque()
        self._is_called = False
        app.tandem.loop.reads(self)
        write_by_turns(app.tandem.loop.here)

    def take(self, conn: Connection) -> bool:
        """Answer the request that `conn` has received, now or later. False where nothing was done."""
        received = bytes(conn.received)
        if self._app.is_watched() or (head := self._whole.head(received)) is None:
            return False
        if len(received) != head.request_bytes:  # another one is behind it, or the rest will not come
            return False
        conn.clear()
        http = self._whole.request(head, received, conn.peer)
        if len(http.body) > LONG_BYTES:
            self._whole.turns.add(lambda: self._take_turn(conn, head.to, http))
        else:
            self._answer(conn, head.to, http)
        return True

    def leave(self, conn: Connection) -> None:
        """The caller did not wait for the answer."""
        self._whole.api.gone(self._waiting.pop(conn))

    # The turns of the loop.

    def call_soon(self, call: Callable[..., object], *arguments: Any) -> None:
        """See `core.loop.Turning`."""
        self._soon.append((call, arguments))

    def wait_s(self, most_s: float) -> float:
        """How long the loop may wait for others to speak."""
        return 0.0 if self._soon else max(0.0, min(most_s, self._late_at - time.monotonic()))

    def end_turn(self) -> None:
        """What had come was read."""
        soon, self._soon = self._soon, []
        for call, arguments in soon:
            try:
                call(*arguments)
            except Exception:  # as of an event loop: one call keeps nobody else from theirs
                _log.exception("a call of the loop failed")
        if self._late_at <= (now := time.monotonic()):
            for conn, http in list(self._waiting.items()):
                if http.deadline.at <= now:
                    self._end(conn, self._whole.api.too_late(http))
            self._late_at = min((http.deadline.at for http in self._waiting.values()), default=math.inf)

    # The answers.

    def _take_turn(self, conn: Connection, to: Destination, http: HttpRequest) -> None:
        if has_left(conn.sock):
            self._whole.api.gone(http)
            self._worker.hang_up(conn)
        else:
            self._answer(conn, to, http)

    def _answer(self, conn: Connection, to: Destination, http: HttpRequest) -> None:
        reply = self._whole.answer(to, http)  # no route that streams is asked here
        if isinstance(reply, Future):
            self.call_soon(self._look, conn, http, reply)
        else:
            self._end(conn, reply)

    def _look(self, conn: Connection, http: HttpRequest, future: Future[Reply]) -> None:
        """All that came in this turn was read, and what is short was computed."""
        if future.done():
            self._end(conn, future.result())
            return
        self._waiting[conn] = http
        self._late_at = min(self._late_at, http.deadline.at)
        self._worker.watch(conn)
        future.add_done_callback(partial(self._come, conn, http))

    def _come(self, conn: Connection, http: HttpRequest, future: Future[Reply]) -> None:
        """On the thread that computed it. One call brings all that is there by then."""
        self._computed.append((conn, http, future))
        if not self._is_called:
            self._is_called = True
            self._worker.method_queue.defer(self._end_computed)

    def _end_computed(self) -> None:
        self._is_called = False
        while self._computed:
            conn, http, future = self._computed.popleft()
            if self._waiting.get(conn) is http:  # else it was too late, or the caller has left
                self._end(conn, future.result())

    def _end(self, conn: Connection, reply: Reply) -> None:
        if self._waiting.pop(conn, None) is not None:
            self._worker.unwatch(conn)
        keep_alive = reply.headers.pop("connection", "") != "close" and self._worker.keeps_alive
        self._worker.write(conn, _written(cast(HttpReply, reply), keep_alive=keep_alive), keep_alive=keep_alive)


@lru_cache(maxsize=64)
def _start(status: int, keep_alive: bool, second: int) -> str:
    """What gunicorn begins all answers of a second with."""
    connection = "keep-alive" if keep_alive else "close"
    return (
        f"HTTP/1.1 {status} {HTTP_STATUS_CODES[status]}\r\n"
        f"Server: {SERVER}\r\nDate: {http_date()}\r\nConnection: {connection}\r\n"
    )


def _written(reply: HttpReply, *, keep_alive: bool) -> bytes:
    """The bytes that gunicorn would write."""
    head = _start(reply.status, keep_alive, int(time.monotonic())) + f"Content-Type: {reply.content_type}\r\n"
    for name, value in reply.headers.items():
        head += f"{name}: {value}\r\n"
    return f"{head}Content-Length: {len(reply.body)}\r\n\r\n".encode("latin-1") + reply.body

"""Between an entry point and a handler: method, request id, errors, and the line in the access log.

An entry point reads bytes, calls `Api.answer`, waits if a future comes back, and writes
bytes. All that decides what is written happens here, once for both frameworks.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Final

from service.core.contracts import Server
from service.core.deadline import Deadline
from service.core.errors import (
    DeadlinePassed,
    MethodNotAllowed,
    Overloaded,
    RequestTooLarge,
    UnknownRoute,
    UnreadableRequest,
    shorten,
)
from service.core.futures import settle
from service.protocols.coding import uncoded
from service.protocols.http import HttpReply, HttpRequest
from service.protocols.route import Dialect, Route, require_allowed, route_of
from service.protocols.status import problem_reply

# What a caller may choose as its request id: safe in a header and in a log line.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:@=+/-]{1,128}", re.ASCII)

TIMEOUT_HEADER: Final = "x-request-timeout-ms"
# What the log says of a request whose caller did not wait for the answer (nginx's number for it).
CLIENT_GONE: Final = 499

# Called once per request: the request, the reply, what it took, and the error behind it if any.
Record = Callable[[HttpRequest, HttpReply, float, BaseException | None], None]


class Api:
    """The route table over one server. Safe to call from any thread.

    Args:
        max_body_bytes: larger bodies are refused; entry points stop reading there.
        timeout_s: how long an entry point waits for a future at most, before it calls `too_late`.
        record: writes the access log.
        model_control: whoever reaches the service may change what it serves.
        dialects: those whose prefix decides how a path without a route is refused.
    """

    def __init__(
        self,
        server: Server,
        *,
        max_body_bytes: int,
        timeout_s: float,
        record: Record,
        model_control: bool = False,
        dialects: Sequence[Dialect] = (),
    ) -> None:
        self.server = server
        self.max_body_bytes = max_body_bytes
        self.timeout_s = timeout_s
        self._record = record
        self._model_control = model_control
        self._prefixes = [(dialect.prefix, dialect.problem) for dialect in dialects if dialect.prefix]

    def answer(self, methods: Mapping[str, Route], http: HttpRequest) -> HttpReply | Future[HttpReply]:
        """The reply, or a future of it. Neither raises; the future holds a reply whatever happened."""
        started = time.perf_counter()
        try:
            http.max_bytes = self.max_body_bytes
            http.deadline = self._deadline(http.headers.get(TIMEOUT_HEADER))
            route = route_of(methods, http.method)
            if route is None:
                raise MethodNotAllowed(http.method, allowed_methods(methods))
            require_allowed(route.scope, model_control=self._model_control)
            if "content-encoding" in http.headers:
                http.body = uncoded(http.body, http.headers["content-encoding"], self.max_body_bytes)
            reply = route.handler(self.server, http)
        except Exception as error:
            return self._finish(http, _problem(http, error), started, error)
        if not isinstance(reply, Future):
            return self._finish(http, reply, started, None)

        def finish(done: Future[HttpReply]) -> HttpReply:
            error = done.exception()
            written = done.result() if error is None else _problem(http, error)
            return self._finish(http, written, started, error)

        return finish(reply) if reply.done() else settle(reply, finish)

    def not_found(self, http: HttpRequest) -> HttpReply:
        http.problem = next((write for prefix, write in self._prefixes if http.path.startswith(prefix)), None)
        return self._refuse(http, UnknownRoute())

    def wrong_method(self, methods: Mapping[str, Route], http: HttpRequest) -> HttpReply:
        return self._refuse(http, MethodNotAllowed(http.method, allowed_methods(methods)))

    def too_large(self, http: HttpRequest) -> HttpReply:
        return self._refuse(http, RequestTooLarge(f"the body is larger than {self.max_body_bytes} bytes"))

    def cut_off(self, http: HttpRequest) -> HttpReply:
        return self._refuse(http, UnreadableRequest("the body broke off before its end"))

    def too_late(self, http: HttpRequest) -> HttpReply:
        """For a future that was not done by `http.deadline`; what is not computed yet never will be."""
        http.deadline.cancel()
        return self._refuse(http, DeadlinePassed(http.deadline.seconds))

    def overloaded(self, http: HttpRequest) -> HttpReply:
        return self._refuse(http, Overloaded("every thread that may wait for predictions does"))

    def gone(self, http: HttpRequest) -> None:
        """The caller hung up: what is not computed yet never will be."""
        http.deadline.cancel()
        self._finish(http, HttpReply(CLIENT_GONE, b""), time.perf_counter(), None)

    def _deadline(self, asked_ms: str | None) -> Deadline:
        """By when to answer. A caller may ask for less than the service allows, not for more."""
        if asked_ms is None:
            return Deadline.after(self.timeout_s)
        if not (asked_ms.isascii() and asked_ms.isdigit() and len(asked_ms) <= 9 and int(asked_ms) > 0):
            raise UnreadableRequest(f"{TIMEOUT_HEADER}: expected whole milliseconds from 1, got {shorten(asked_ms)}")
        return Deadline.after(min(int(asked_ms) / 1000, self.timeout_s))

    def _refuse(self, http: HttpRequest, error: Exception) -> HttpReply:
        return self._finish(http, _problem(http, error), time.perf_counter(), error)

    def _finish(self, http: HttpRequest, reply: HttpReply, started: float, error: BaseException | None) -> HttpReply:
        reply.headers["x-request-id"] = http.request_id
        reply.headers.setdefault("cache-control", "no-store")
        reply.headers["x-content-type-options"] = "nosniff"
        if not http.answered:  # else it comes after the deadline, and nobody waits for it
            http.answered = True
            self._record(http, reply, time.perf_counter() - started, error)
        return reply


def _problem(http: HttpRequest, error: BaseException) -> HttpReply:
    return (http.problem or problem_reply)(error, http.request_id)


def allowed_methods(methods: Mapping[str, Route]) -> list[str]:
    return sorted({*methods, *(["HEAD"] if "GET" in methods else [])})


def request_id(given: str | None) -> str:
    """The caller's own id where it is fit for a log line, else a fresh one."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()

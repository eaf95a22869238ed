"""Between an entry point and a handler: method, request id, errors, and the line in the access log.

An entry point reads bytes, calls `Api.answer`, waits if a future comes back, and writes
bytes. All that decides what is written happens here, once for both frameworks.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Final, TypeVar, cast

from service.core.callers import ANYBODY, Caller
from service.core.contracts import Server
from service.core.deadline import Deadline
from service.core.errors import (
    DeadlinePassed,
    MethodNotAllowed,
    Overloaded,
    ReplyTooLarge,
    RequestError,
    RequestTooLarge,
    Unavailable,
    UnknownRoute,
    UnreadableRequest,
    shorten,
)
from service.core.futures import settle
from service.core.loop import Loop
from service.core.timing import Timing
from service.guards.cors import cors_fields, is_preflight, preflight_fields
from service.guards.guard import Guard
from service.guards.hosts import require_host
from service.guards.places import Places
from service.guards.view import seen_by
from service.protocols.coding import uncoded
from service.protocols.framing import STRICT, Framing
from service.protocols.http import DuplexReply, HttpReply, HttpRequest, Reply, StreamReply
from service.protocols.route import Dialect, Route, Scope, require_allowed, route_of
from service.protocols.status import problem_reply

# What a caller may choose as its request id: safe in a header and in a log line.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:@=+/-]{1,128}", re.ASCII)
# Ids of ours tell requests apart, and are no secret. The system would be asked for each, and a thread that asks it may
# lose the interpreter to one that computes.
_ids: Final = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)

TIMEOUT_HEADER: Final = "x-request-timeout-ms"
TEXT: Final = "text/plain; charset=utf-8"
# What the log says of a request whose caller did not wait for the answer (nginx's number for it).
CLIENT_GONE: Final = 499
# What it says of a WebSocket, once that is closed.
SWITCHED: Final = 101

R = TypeVar("R", bound=Reply)

# Streams at a time, where nobody says how many.
PLACES: Final = 64

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
        max_reply_bytes: larger answers are refused once they are written.
        framing: the limits of URLs and headers.
        guard: knows who may ask; without one everybody may.
        require_room: raises Overloaded where a prediction would be turned away, whatever it asks for.
        places: for answers that come in pieces, and WebSockets.
        loop: on which such answers are made.
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
        guard: Guard | None = None,
        max_reply_bytes: int = 2**31,
        framing: Framing = STRICT,
        require_room: Callable[[], None] = lambda: None,
        places: Places | None = None,
        loop: Loop | None = None,
    ) -> None:
        self.server = server
        self.is_closing = False  # every answer is then the last of its connection
        self.max_body_bytes = max_body_bytes
        self.timeout_s = timeout_s
        self._record = record
        # Requests that came and are not answered: what makes and ends them are single steps, which take no lock.
        self.under_way: set[int] = set()
        self._loop = loop
        self.places = places or Places(PLACES)
        self._max_reply_bytes = max_reply_bytes
        self._framing = framing
        self._model_control = model_control
        self._guard = guard
        self._require_room = require_room
        self._prefixes = [(dialect.prefix, dialect.problem) for dialect in dialects if dialect.prefix]

    @property
    def loop(self) -> Loop:
        """Of a service that answers in pieces."""
        if self._loop is None:
            raise RuntimeError("an answer in pieces needs an event loop")
        return self._loop

    @property
    def admission_may_wait(self) -> bool:
        """Whether `admit` may ask another machine, for which an event loop should not wait."""
        return self._guard is not None and self._guard.may_wait

    @property
    def origins(self) -> tuple[str, ...]:
        """Those whose pages may ask."""
        return self._guard.origins if self._guard is not None else ()

    def knows(self, http: HttpRequest) -> bool:
        """Whether the caller of `http`, which was let in, would be known now. Counts nothing that was asked."""
        return self._guard is None or self._guard.knows(http.headers, http.peer)

    def admit(self, methods: Mapping[str, Route], http: HttpRequest) -> HttpReply | None:
        """Decides, before the body is read, whether `http` is to be answered: None, or else the reply.

        It decides by the route that was found, and by nothing else that the request says of where it goes. Where
        there is none (no `methods`, or not the one asked with), only who may ask learns so.
        """
        guard, route = self._guard, route_of(methods, http.method)
        caller = ANYBODY
        try:
            if guard is not None:
                require_host(http.headers.get("host"), guard.hosts)
                http.told = cors_fields(http.headers, guard.origins) if guard.origins else {}
                if guard.origins and is_preflight(http.method, http.headers, guard.origins):
                    reply = HttpReply(200, b"", TEXT, preflight_fields(allowed_methods(methods)))
                    return self._finish(http, reply, time.perf_counter(), None)
                scope = None if route is None else route.scope
                caller = guard.admit(scope, http.headers, http.peer, http.told)
            if route is None:
                raise MethodNotAllowed(http.method, allowed_methods(methods)) if methods else UnknownRoute
            require_allowed(route.scope, model_control=self._model_control)
            if route.streams:
                self.places.take(http, self.name_of(caller, http))
            elif route.needs_room:
                self._require_room()
        except Exception as error:
            return self._refuse(http, error)
        http.caller = caller
        return None

    def answer(self, methods: Mapping[str, Route], http: HttpRequest) -> Reply | Future[Reply]:
        """The reply, or a future of it. Neither raises; the future holds a reply whatever happened.

        Whoever writes one that is no HttpReply says `streamed` when it has.
        """
        started = http.started_at
        if http.caller is None and (refused := self.admit(methods, http)) is not None:
            return refused
        try:
            http.max_bytes = self.max_body_bytes
            route = route_of(methods, http.method)
            if route is None:
                raise MethodNotAllowed(http.method, allowed_methods(methods))
            http.deadline = self._deadline(http.headers.get(TIMEOUT_HEADER), route.timeout_s or self.timeout_s)
            http.deadline.timing = Timing()
            if route.scope is not Scope.METRICS:  # a scrape would see itself
                self.under_way.add(id(http))
            if "content-encoding" in http.headers and not route.reads_pieces:
                http.body = uncoded(http.body, http.headers["content-encoding"], self.max_body_bytes)
            reply = route.handler(seen_by(self.server, http.caller), http)
        except Exception as error:
            return self._finish(http, _problem(http, error), started, error)
        if not isinstance(reply, Future):
            return self._finish(http, reply, started, None)

        def finish(done: Future[Reply]) -> Reply:
            error = Unavailable("the service is stopping") if done.cancelled() else done.exception()
            if error is not None:
                return self._finish(http, _problem(http, error), started, error)
            came = done.result()
            if isinstance(came, HttpReply) and len(came.body) > self._max_reply_bytes:
                error = ReplyTooLarge(len(came.body), self._max_reply_bytes)
                return self._finish(http, _problem(http, error), started, error)
            return self._finish(http, came, started, None)

        promised = cast(Future[Reply], reply)
        return finish(promised) if promised.done() else settle(promised, finish)

    def streamed(self, http: HttpRequest, reply: StreamReply | DuplexReply) -> None:
        """All of `reply` was written, or what makes it gave up."""
        error = reply.error if isinstance(reply, StreamReply) else reply.duplex.error
        self._note(http, HttpReply(reply.status, b""), http.started_at, error)

    def closed(self, http: HttpRequest) -> None:
        """The WebSocket that `http` opened is at its end."""
        self._note(http, HttpReply(SWITCHED, b""), http.started_at, None)

    def refuse(self, http: HttpRequest, error: Exception) -> HttpReply:
        """For what was admitted, and is not to be answered all the same."""
        return self._refuse(http, error)

    def not_found(self, http: HttpRequest) -> HttpReply:
        http.problem = next((write for prefix, write in self._prefixes if http.path.startswith(prefix)), None)
        return self.admit({}, http) or self._refuse(http, UnknownRoute())

    def wrong_method(self, methods: Mapping[str, Route], http: HttpRequest) -> HttpReply:
        error = MethodNotAllowed(http.method, allowed_methods(methods))
        return self.admit(methods, http) or self._refuse(http, error)

    def misframed(self, http: HttpRequest, target_bytes: int, *, fields: int, version: str) -> HttpReply | None:
        """A reply that ends the connection, where the request is not to be looked at; `Framing.check` says when."""
        try:
            self._framing.check(target_bytes, http.headers, fields=fields, version=version)
        except RequestError as error:
            reply = self._refuse(http, error)
            reply.headers["connection"] = "close"
            return reply
        return None

    def not_received(self, http: HttpRequest, error: RequestError) -> HttpReply:
        """For a body that the web server gave up reading."""
        return self._refuse(http, error)

    def too_large(self, http: HttpRequest) -> HttpReply:
        return self._refuse(http, RequestTooLarge(f"the body is larger than {self.max_body_bytes} bytes"))

    def cut_off(self, http: HttpRequest) -> HttpReply:
        return self._refuse(http, UnreadableRequest("the body broke off before its end"))

    def too_late(self, http: HttpRequest) -> HttpReply:
        """For a future that was not done by `http.deadline`; what is not computed yet never will be."""
        reply = self._refuse(http, DeadlinePassed(http.deadline.seconds))
        http.give_up()  # only now: to cancel work settles the future, which is then not the answer any more
        return reply

    def overloaded(self, http: HttpRequest) -> HttpReply:
        return self._refuse(http, Overloaded("every thread that may wait for predictions does"))

    def stopped(self, http: HttpRequest) -> HttpReply:
        """The service ends before the answer is there; what is not computed yet never will be."""
        reply = self._refuse(http, Unavailable("the service is stopping"))
        http.give_up()
        return reply

    def gone(self, http: HttpRequest) -> None:
        """The caller hung up: what is not computed yet never will be."""
        self._finish(http, HttpReply(CLIENT_GONE, b""), http.started_at, None)
        http.give_up()  # after it is noted, as above

    def name_of(self, caller: Caller, http: HttpRequest) -> str:
        """By whom what `http` holds is counted: its key, else its address."""
        return caller.name or (self._guard.address_of(http.headers, http.peer) if self._guard else http.peer)

    def _deadline(self, asked_ms: str | None, allowed_s: float) -> Deadline:
        """By when to answer. A caller may ask for less than the service allows, not for more."""
        if asked_ms is None:
            return Deadline.after(allowed_s)
        if not (asked_ms.isascii() and asked_ms.isdigit() and len(asked_ms) <= 9 and int(asked_ms) > 0):
            raise UnreadableRequest(f"{TIMEOUT_HEADER}: expected whole milliseconds from 1, got {shorten(asked_ms)}")
        return Deadline.after(min(int(asked_ms) / 1000, allowed_s))

    def _refuse(self, http: HttpRequest, error: Exception) -> HttpReply:
        return self._finish(http, _problem(http, error), http.started_at, error)

    def _finish(self, http: HttpRequest, reply: R, started: float, error: BaseException | None) -> R:
        reply.headers["x-request-id"] = http.request_id
        reply.headers.setdefault("cache-control", "no-store")
        reply.headers["x-content-type-options"] = "nosniff"
        if self.is_closing:
            reply.headers["connection"] = "close"
        if http.told:
            if "vary" in http.told and "vary" in reply.headers:
                http.told["vary"] += f", {reply.headers['vary']}"
            reply.headers |= http.told
        if isinstance(reply, HttpReply):
            self._note(http, reply, started, error)
        elif http.answered:  # nobody waits for it any more
            self._give_back(reply)
        return reply

    def _give_back(self, reply: StreamReply | DuplexReply) -> None:
        if isinstance(reply, StreamReply):
            self.loop.run(reply.close())
        else:
            reply.duplex.close()

    def _note(self, http: HttpRequest, reply: HttpReply, started: float, error: BaseException | None) -> None:
        if not http.answered:  # else it comes after the deadline, and nobody waits for it
            http.answered = True
            self.under_way.discard(id(http))
            self.places.leave(http)
            self._record(http, reply, time.perf_counter() - started, error)


def _problem(http: HttpRequest, error: BaseException) -> HttpReply:
    return (http.problem or problem_reply)(error, http.request_id)


def allowed_methods(methods: Mapping[str, Route]) -> list[str]:
    return sorted({*methods, *(["HEAD"] if "GET" in methods else [])})


def request_id(given: str | None) -> str:
    """The caller's own id where it is fit for a log line, else a fresh one."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else f"{_ids.getrandbits(128):032x}"

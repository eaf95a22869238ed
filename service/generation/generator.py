"""The routes that make text: each request is checked, asked of the upstream, and answered as a whole or in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final, Protocol

from service.core.contracts import Server
from service.core.errors import Unavailable, UnknownModel
from service.core.loop import Loop
from service.generation.documents import OPERATIONS
from service.generation.events import HEARTBEAT, MEDIA_TYPE, EventReader
from service.generation.openai import OPENAI
from service.generation.replies import Relay, relay_of, reply_of
from service.generation.requests import Form, UpstreamCall, upstream_call
from service.generation.rules import GenerationRules
from service.protocols.http import HttpReply, HttpRequest, Reply, StreamReply
from service.protocols.predict import require_json
from service.protocols.route import Dialect, Route, Scope
from service.protocols.status import problem_reply

if TYPE_CHECKING:
    from service.generation.upstream import Upstream  # which imports httpcore

GENERATE: Final = Dialect("generate", problem_reply)
# A proxy that gathers an answer before it passes it on would hold back the text.
_HEADERS: Final = {"cache-control": "no-store", "x-accel-buffering": "no"}
# What may be on top of what the upstream may take: to read a request, to try a connection again, to write.
_MARGIN_S: Final = 15.0


class Observer(Protocol):
    """Is told what callers cannot be counted by alone. Called on the event loop, so it must be quick."""

    def first_token(self, seconds: float) -> None:
        """The first text of a stream was there, so long after the request."""
        ...

    def tokens(self, kind: str, count: int) -> None:
        """A prompt, or a completion, had so many, by the upstream's own account."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds until a stream begins where no text has come, so that its status can still tell of a failure; and from
    one heartbeat to the next."""

    hold_s: float
    beat_s: float


# Where the end of a connection is seen, heartbeats are for the proxies on the way.
SEEING: Final = Pace(10.0, 15.0)
# A thread that waits learns that its caller has left when it writes: by the second time, within a second.
WRITING: Final = Pace(0.4, 0.4)


class Generator:
    """Starts and stops with the service. Safe to call from any thread.

    Args:
        loop: on which the upstream is asked.
    """

    def __init__(self, rules: GenerationRules, loop: Loop, observer: Observer) -> None:
        self._rules = rules
        self._loop = loop
        self._observer = observer
        self._upstream: Upstream | None = None

    def start(self) -> None:
        """Also in a forked child, which has no connections yet."""
        from service.generation.upstream import Upstream  # who has no upstream need not import httpcore

        self._upstream = Upstream(self._rules.upstream)

    def stop(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            self._loop.run(upstream.close()).result()

    @property
    def under_way(self) -> int:
        return self._upstream.under_way if self._upstream is not None else 0

    @property
    def state(self) -> str:
        """Of the breaker, in one word."""
        return self._upstream.breaker.state.value if self._upstream is not None else "closed"

    def routes(self) -> tuple[Route, ...]:
        def route(path: str, form: Form, dialect: Dialect, summary: str, *, streams: bool = False) -> Route:
            def handle(server: Server, http: HttpRequest) -> Future[Reply]:
                return self._begin(http, form, streams=streams)

            upstream = self._rules.upstream
            timeout_s = upstream.connect_s + upstream.total_s + _MARGIN_S
            return Route(
                "POST", path, handle, Scope.GENERATE, summary, dialect, streams=True, timeout_s=timeout_s,
                operation=OPERATIONS[path],
            )  # fmt: skip

        return (
            route("/v1/generate", Form.GENERATE, GENERATE, "Make text from a prompt or messages"),
            route("/v1/generate/stream", Form.GENERATE, GENERATE, "The same, as it is made", streams=True),
            route("/v1/completions", Form.COMPLETIONS, OPENAI, "OpenAI's completions"),
            route("/v1/chat/completions", Form.CHAT, OPENAI, "OpenAI's chat completions"),
        )

    def _begin(self, http: HttpRequest, form: Form, *, streams: bool) -> Future[Reply]:
        require_json(http)
        call = upstream_call(http.body, form, self._rules.requests, streams=streams)
        models = http.caller.models if http.caller is not None else frozenset[str]()
        if models is not None and call.model not in models:
            raise UnknownModel
        http.body = b""  # kept as the call's: a stream may take long
        http.work = self._loop.run(self._answer(call, http))
        return http.work

    async def _answer(self, call: UpstreamCall, http: HttpRequest) -> Reply:
        upstream = self._upstream
        if upstream is None:
            raise Unavailable("the service is starting, or stopping")
        if call.streams:
            return await self._stream(upstream, call, http).begun()
        async with aclosing(upstream.answer(call)) as chunks:
            body = b"".join([chunk async for chunk in chunks])
        reply, usage = reply_of(body, call)
        self._count(usage)
        return HttpReply(200, reply)

    def _stream(self, upstream: Upstream, call: UpstreamCall, http: HttpRequest) -> StreamReply:
        relay = relay_of(call)
        pieces = self._pieces(upstream, call, relay, WRITING if http.may_block else SEEING, http.started_at)

        async def told() -> AsyncGenerator[bytes, None]:
            has_begun = False
            try:
                async with aclosing(pieces):
                    first = await anext(pieces)
                    has_begun = True
                    yield b""  # for nobody: see StreamReply
                    yield first
                    async for piece in pieces:
                        yield piece
            except Exception as error:
                if not has_begun:
                    raise
                reply.error = error
                problem = (http.problem or problem_reply)(error, http.request_id)
                yield relay.failed(problem.body)
            finally:
                self._count(relay.usage)

        reply = StreamReply(told(), MEDIA_TYPE, headers=dict(_HEADERS))
        return reply

    async def _pieces(
        self, upstream: Upstream, call: UpstreamCall, relay: Relay, pace: Pace, started_at: float
    ) -> AsyncGenerator[bytes, None]:
        """The caller's events, with heartbeats in between where none come. Raises what `Upstream.answer` does."""
        async with aclosing(_relayed(upstream.answer(call), relay)) as events:
            beats_after_s = pace.hold_s
            is_noted = False
            coming = asyncio.ensure_future(anext(events, b""))
            try:
                while True:
                    done, _ = await asyncio.wait((coming,), timeout=beats_after_s)
                    beats_after_s = pace.beat_s
                    if not done:
                        yield HEARTBEAT
                        continue
                    piece = coming.result()
                    if not piece:
                        return
                    if relay.has_text and not is_noted:
                        is_noted = True
                        self._observer.first_token(perf_counter() - started_at)
                    yield piece
                    coming = asyncio.ensure_future(anext(events, b""))
            finally:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)

    def _count(self, usage: dict[str, int] | None) -> None:
        for kind in ("prompt", "completion"):
            if usage is not None and (count := usage.get(f"{kind}_tokens", 0)):
                self._observer.tokens(kind, count)


async def _relayed(chunks: AsyncGenerator[bytes, None], relay: Relay) -> AsyncGenerator[bytes, None]:
    """The caller's events, out of the upstream's bytes; none is empty."""
    reader = EventReader()
    async with aclosing(chunks):
        async for chunk in chunks:
            for event in reader.feed(chunk):
                if piece := relay.take(event):
                    yield piece
                if relay.is_done:
                    break
            if relay.is_done:
                break
        yield relay.end()

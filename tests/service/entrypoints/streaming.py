"""Streams whose every step a test sees: for both entry points."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future
from typing import Any

from service.core.contracts import Server
from service.core.futures import Done
from service.protocols.api import Api
from service.protocols.http import DuplexReply, HttpReply, HttpRequest, Reply, StreamReply
from service.protocols.route import Route, Scope
from service.scheduling.event_loop import EventLoop
from tests.service.protocols.fake_server import FakeServer


class Echo:
    """Answers each piece with itself in capitals, and is over with one of "enough". Implements `Duplex`."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.is_over = False
        self.closed = 0

    def feed(self, piece: bytes) -> Iterator[Future[bytes]]:
        self.is_over = piece == b"enough"
        yield Done(piece.upper())

    def finish(self) -> Iterator[Future[bytes]]:
        yield Done(b"END")

    def fail(self, error: BaseException) -> Iterator[Future[bytes]]:
        self.error, self.is_over = error, True
        yield Done(type(error).__name__.encode())

    def close(self) -> None:
        self.closed += 1


class Count:
    """Counts to three, and then on for ever where it is `endless`."""

    def __init__(self, *, endless: bool = False) -> None:
        self._endless = endless
        self.closed = False

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        try:
            yield b""
            for number in (b"1", b"2", b"3"):
                yield number
            while self._endless:
                await asyncio.sleep(0.01)
                yield b"."
        finally:
            self.closed = True

    async def reply(self) -> Reply:
        return await StreamReply(self.pieces(), "text/plain").begun()


class Streams:
    """An Api with one route that streams. `recorded` is the access log."""

    def __init__(
        self, handle: Callable[[EventLoop], Any], *, reads_pieces: bool = False, can_be_given_up: bool = False
    ) -> None:
        self.loop = EventLoop()
        self.recorded: list[tuple[int, BaseException | None]] = []

        def handler(server: Server, http: HttpRequest) -> Reply | Future[Reply]:
            reply: Reply | Future[Reply] = handle(self.loop)
            if can_be_given_up and isinstance(reply, Future):
                http.work = reply
            return reply

        route = Route("POST", "/s", handler, Scope.PREDICT, "s", streams=True, reads_pieces=reads_pieces)
        self.paths = {"/s": {"POST": route}}
        self.api = Api(
            FakeServer(),
            max_body_bytes=1000,
            timeout_s=5.0,
            record=self._record,
            loop=self.loop,
        )

    def _record(self, http: HttpRequest, reply: HttpReply, seconds: float, error: BaseException | None) -> None:
        self.recorded.append((reply.status, error))


def counting(count: Count) -> Streams:
    return Streams(lambda loop: loop.run(count.reply()))


def echoing(echo: Echo) -> Streams:
    return Streams(lambda loop: DuplexReply(echo, "text/plain"), reads_pieces=True)

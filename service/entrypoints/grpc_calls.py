"""Calls of gRPC, one by one: who may ask, until when, how it is refused, and the line in the access log.

What `protocols/api.py` is to routes. Everything here runs on the event loop of the server; an answer that was there
when it was asked for takes no hop to another thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Final, NoReturn
from urllib.parse import unquote

import grpc
from grpc.aio import EOF, ServicerContext

from service.core.callers import ANYBODY
from service.core.contracts import Server
from service.core.deadline import Deadline
from service.core.errors import (
    DeadlinePassed,
    Unauthenticated,
    Unavailable,
    UnreadableRequest,
    shorten,
)
from service.core.timing import Timing
from service.entrypoints.grpc_errors import code_of, details_of
from service.guards.guard import Guard
from service.guards.view import seen_by
from service.protocols.api import CLIENT_GONE, request_id
from service.protocols.route import require_allowed
from service.protocols.rpc import Call, Kind, Rpc
from service.protocols.status import refusal_of

# How soon a watcher hears of a change. Orchestrators look every second or so.
WATCH_S: Final = 0.25

REQUEST_ID: Final = "x-request-id"

# grpc logs what it cannot decode, with a traceback; here it is refused, and the line in the access log says so.
logging.getLogger("grpc._cython.cygrpc").addFilter(lambda record: record.msg != "Invalid encoding on %s")

# Called once per call, or message of a stream: the path, the call, the status that its answer would have over HTTP,
# when it came and was answered, in seconds of `perf_counter`, and the error if any.
Record = Callable[[str, Call, int, float, float, Exception | None], None]


class Calls:
    """Made on the event loop that answers.

    Args:
        timeout_s: how long a caller may wait at most; its own deadline may be sooner.
        model_control: whoever reaches the service may change what it serves.
        record: writes the access log, and counts.
        under_way: has an entry for each call that is being answered.
        guard: knows who may ask; without one everybody may.
    """

    def __init__(
        self,
        server: Server,
        *,
        timeout_s: float,
        model_control: bool,
        record: Record,
        under_way: set[int],
        guard: Guard | None = None,
    ) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._model_control = model_control
        self._record = record
        self._guard = guard
        self._under_way = under_way
        self._ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self) -> None:
        """Streams and watches, which could go on for ever, end after the answer that is due."""
        self._ending.set_result(None)

    def handler(self, rpc: Rpc) -> grpc.RpcMethodHandler:
        """`rpc` as grpc mounts it. To grpc messages are bytes: ones that cannot be read are refused here, too."""

        async def unary(content: bytes, context: ServicerContext) -> bytes:
            return await self._unary(rpc, content, context)

        async def stream(_: Any, context: ServicerContext) -> None:
            await self._stream(rpc, context)

        async def watch(content: bytes, context: ServicerContext) -> None:
            await self._watch(rpc, content, context)

        match rpc.kind:
            case Kind.UNARY:
                return grpc.unary_unary_rpc_method_handler(unary)
            case Kind.STREAM:
                return grpc.stream_stream_rpc_method_handler(stream)
            case Kind.WATCH:
                return grpc.unary_stream_rpc_method_handler(watch)

    async def _unary(self, rpc: Rpc, content: bytes, context: ServicerContext) -> bytes:
        call = self._call(context)
        try:
            with self._recorded(rpc, call):
                await self._admit(rpc, call)
                return _written(await self._answer(rpc, rpc.read(content), call))
        except Exception as error:
            await _refuse(context, error)

    async def _stream(self, rpc: Rpc, context: ServicerContext) -> None:
        assert rpc.failed is not None
        while (content := await self._next(context)) is not EOF:
            call = self._call(context)
            request = None
            try:
                with self._recorded(rpc, call):
                    await self._admit(rpc, call)
                    request = rpc.read(content)
                    written = _written(await self._answer(rpc, request, call))
            except Unauthenticated as error:  # nor will any other message be
                await _refuse(context, error)
            except Exception as error:
                written = _written(rpc.failed(request, error))
            await context.write(written)

    async def _next(self, context: ServicerContext) -> Any:
        """The next message of a stream, as bytes, or EOF."""
        reading = asyncio.ensure_future(context.read())
        try:
            await asyncio.wait({reading, self._ending}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await _refuse(context, Unavailable("the service is stopping"))
            return reading.result()
        finally:
            reading.cancel()

    async def _watch(self, rpc: Rpc, content: bytes, context: ServicerContext) -> None:
        call = self._call(context)
        try:
            with self._recorded(rpc, call):
                await self._admit(rpc, call)
                request, last = rpc.read(content), None
                while True:
                    ends = self._ending.done()  # asked first: what changes with the end is still sent
                    if (written := _written(await self._answer(rpc, request, call))) != last:
                        await context.write(written)
                    if ends:
                        return
                    last = written
                    await asyncio.wait({self._ending}, timeout=WATCH_S)
        except Exception as error:
            await _refuse(context, error)

    def _call(self, context: ServicerContext) -> Call:
        metadata: dict[str, str] = {}
        for name, value in context.invocation_metadata() or ():
            if isinstance(value, str):
                metadata[name] = f"{metadata[name]},{value}" if name in metadata else value
        remaining_s = context.time_remaining()
        seconds = self._timeout_s if remaining_s is None else min(self._timeout_s, remaining_s)
        call = Call(Deadline.after(seconds), request_id(metadata.get(REQUEST_ID)), metadata, address_of(context.peer()))
        call.deadline.timing = Timing()
        context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
        return call

    @contextlib.contextmanager
    def _recorded(self, rpc: Rpc, call: Call) -> Iterator[None]:
        """The line in the access log, with the status that the answer would have over HTTP, and the figures."""
        started_at = time.perf_counter()
        status: int = 200
        failure: Exception | None = None
        self._under_way.add(id(call))
        try:
            yield
        except asyncio.CancelledError:  # the caller hung up, or waits no longer
            call.deadline.cancel()
            status = CLIENT_GONE
            raise
        except Exception as error:
            status, failure = refusal_of(error).status, error
            raise
        finally:
            self._under_way.discard(id(call))
            self._record(rpc.path, call, status, started_at, time.perf_counter(), failure)

    async def _admit(self, rpc: Rpc, call: Call) -> None:
        """As `Api.admit` does over HTTP, before the message is read."""
        if self._guard is None:
            call.caller = ANYBODY
        else:
            arguments = (rpc.scope, call.metadata, call.peer, dict[str, str]())
            if self._guard.may_wait:
                call.caller = await asyncio.to_thread(self._guard.admit, *arguments)
            else:
                call.caller = self._guard.admit(*arguments)
        require_allowed(rpc.scope, model_control=self._model_control)

    async def _answer(self, rpc: Rpc, request: Any, call: Call) -> Any:
        for name, value in call.metadata.items():
            if not value.isascii():
                raise UnreadableRequest(f"the metadata {shorten(name)} is not ASCII; other bytes need a name in -bin")
        answer = rpc.handler(seen_by(self._server, call.caller), request, call)
        if not isinstance(answer, Future):
            return answer
        return answer.result() if answer.done() else await _outcome(answer, call.deadline)


def address_of(peer: str) -> str:
    """The address in what grpc calls a peer, `ipv4:127.0.0.1:4711` or `ipv6:%5B::1%5D:4711`; any other as it is."""
    kind, _, place = peer.partition(":")
    return unquote(place).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else peer


async def _outcome(future: Future[Any], deadline: Deadline) -> Any:
    """The result, once it is there.

    Raises:
        DeadlinePassed: it is not there by the deadline; what is not computed yet never will be.
        Whatever the future holds.
    """
    loop = asyncio.get_running_loop()
    first: asyncio.Future[None] = loop.create_future()

    def come() -> None:
        if not first.done():
            first.set_result(None)

    def done(_: Future[Any]) -> None:
        # After a deadline the loop may be gone before the answer comes.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(come)

    future.add_done_callback(done)
    late = loop.call_later(deadline.at - time.monotonic(), come)
    try:
        await first
    finally:
        late.cancel()
    if not future.done():
        deadline.cancel()
        raise DeadlinePassed(deadline.seconds)
    return future.result()


def _written(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content


async def _refuse(context: ServicerContext, error: BaseException) -> NoReturn:
    refusal = refusal_of(error)
    await context.abort(code_of(refusal), details_of(refusal))
    raise AssertionError("unreachable: abort raises")

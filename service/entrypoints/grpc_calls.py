"""Calls of gRPC, one by one: who may ask, until when, how it is refused, and the line in the access log.

What `protocols/api.py` is to routes. Everything here runs on the event loop of the server; an answer that was there
when it was asked for takes no hop to another thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, Final, NoReturn

import grpc
from grpc.aio import EOF, ServicerContext

from service.core.contracts import Server
from service.core.deadline import Deadline
from service.core.errors import DeadlinePassed, Unavailable
from service.entrypoints.grpc_errors import code_of, details_of
from service.observability.logs import log_access
from service.protocols.api import CLIENT_GONE, request_id
from service.protocols.route import require_allowed
from service.protocols.rpc import Call, Kind, Rpc
from service.protocols.status import refusal_of

# How soon a watcher hears of a change. Orchestrators look every second or so.
WATCH_S: Final = 0.25

REQUEST_ID: Final = "x-request-id"


class Calls:
    """Made on the event loop that answers.

    Args:
        timeout_s: how long a caller may wait at most; its own deadline may be sooner.
        model_control: whoever reaches the service may change what it serves.
    """

    def __init__(self, server: Server, *, timeout_s: float, model_control: bool) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._model_control = model_control
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
            with _logged(rpc, call):
                return _written(await self._answer(rpc, rpc.read(content), call))
        except Exception as error:
            await _refuse(context, error)

    async def _stream(self, rpc: Rpc, context: ServicerContext) -> None:
        assert rpc.failed is not None
        while (content := await self._next(context)) is not EOF:
            call = self._call(context)
            request = None
            try:
                with _logged(rpc, call):
                    request = rpc.read(content)
                    written = _written(await self._answer(rpc, request, call))
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
            with _logged(rpc, call):
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
        metadata = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        remaining_s = context.time_remaining()
        seconds = self._timeout_s if remaining_s is None else min(self._timeout_s, remaining_s)
        call = Call(Deadline.after(seconds), request_id(metadata.get(REQUEST_ID)), metadata)
        context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
        return call

    async def _answer(self, rpc: Rpc, request: Any, call: Call) -> Any:
        require_allowed(rpc.scope, model_control=self._model_control)
        answer = rpc.handler(self._server, request, call)
        if not isinstance(answer, Future):
            return answer
        return answer.result() if answer.done() else await _outcome(answer, call.deadline)


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


@contextlib.contextmanager
def _logged(rpc: Rpc, call: Call) -> Iterator[None]:
    """The line in the access log, with the status that the answer would have over HTTP."""
    started = time.perf_counter()
    status: int = 200
    failure: Exception | None = None
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
        log_access(
            method="GRPC",
            path=rpc.path,
            status=status,
            ms=(time.perf_counter() - started) * 1000,
            request_id=call.request_id,
            error=failure,
        )

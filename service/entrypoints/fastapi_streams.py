"""Answers that come in pieces, under ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Future

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service.core.errors import RequestError, Unavailable
from service.entrypoints.limits import IN_PIECES, LARGE_BYTES
from service.protocols.api import Api
from service.protocols.http import Duplex, DuplexReply, HttpRequest, StreamReply


async def write_stream(api: Api, http: HttpRequest, reply: StreamReply, receive: Receive, send: Send) -> None:
    """Pass pieces on as they come, until they end or the caller leaves.

    Where the caller is slow, `send` waits, and so does what makes the pieces.
    """
    writing = asyncio.ensure_future(_write_pieces(api, http, reply, send))
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((writing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not writing.done():
            api.gone(http)
        else:
            writing.result()
    finally:
        for task in (writing, leaving):
            task.cancel()
        await asyncio.gather(writing, leaving, return_exceptions=True)
        await reply.close()
        api.streamed(http, reply)


async def write_duplex(
    api: Api, http: HttpRequest, reply: DuplexReply, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer each piece of the body before the next one is read, so that no more is held than one of either."""
    in_pieces = scope.get("extensions", {}).get(IN_PIECES)
    if in_pieces is not None:
        in_pieces()
    answers = _answers(reply.duplex, receive)
    try:
        # To ask for the body is what says 100 Continue, and only before an answer has begun.
        first = await anext(answers, b"") if "expect" in http.headers else b""
        await send(_start(reply))
        await _write(send, first)
        async for answer in answers:
            await _write(send, answer)
        api.streamed(http, reply)  # before the end: whoever has that may ask again at once, and needs the place
        await send({"type": "http.response.body", "body": b""})
    except ClientDisconnect:
        api.gone(http)
    finally:
        await answers.aclose()
        reply.duplex.close()
        api.streamed(http, reply)


async def _answers(duplex: Duplex, receive: Receive) -> AsyncGenerator[bytes, None]:
    """Raises ClientDisconnect where the body breaks off: there is nobody to tell."""
    unanswered = 0  # bytes
    more = True
    try:
        while more and not duplex.is_over:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more = message.get("more_body", False)
            piece = message.get("body", b"")
            unanswered += len(piece)
            step, is_large = duplex.feed(piece), unanswered > LARGE_BYTES
            while (answer := await _next(step, on_thread=is_large)) is not None:
                unanswered = 0
                yield answer
        step = duplex.finish()
    except RequestError as error:  # raised by our own protocol under uvicorn
        step = duplex.fail(error)
    except asyncio.CancelledError:  # the time of grace is over; the caller is still told
        step = duplex.fail(Unavailable("the service is stopping"))
    while (answer := await _next(step)) is not None:
        yield answer


async def _next(answers: Iterator[Future[bytes]], *, on_thread: bool = False) -> bytes | None:
    """The next of `answers`, once it is there; None behind the last. With `on_thread` they are made there."""
    answer = await _made_on_thread(answers) if on_thread else next(answers, None)
    return None if answer is None else await _result(answer)


async def _made_on_thread(answers: Iterator[Future[bytes]]) -> Future[bytes] | None:
    making = asyncio.ensure_future(asyncio.to_thread(next, answers, None))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        await asyncio.wait((making,))  # as long as the thread is at it, nobody else may be
        raise


async def _result(answer: Future[bytes]) -> bytes:
    if not answer.done():
        return await asyncio.wrap_future(answer)
    await asyncio.sleep(0)  # a body that is there already is answered without a pause: others have their turn
    return answer.result()


async def _write_pieces(api: Api, http: HttpRequest, reply: StreamReply, send: Send) -> None:
    await send(_start(reply))
    async for piece in reply.pieces:
        await _write(send, piece)
    api.streamed(http, reply)  # as above
    await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _write(send: Send, piece: bytes) -> None:
    if piece:
        await send({"type": "http.response.body", "body": piece, "more_body": True})


def _start(reply: StreamReply | DuplexReply) -> dict[str, object]:
    headers = {"content-type": reply.content_type, **reply.headers}
    return {
        "type": "http.response.start",
        "status": reply.status,
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
    }

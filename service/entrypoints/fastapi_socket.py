"""A session over a WebSocket, under ASGI: one task for the connection, and one for each message that is computed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from concurrent.futures import Future

from starlette.types import Receive, Send

from service.entrypoints.limits import LARGE_BYTES
from service.protocols.api import Api
from service.protocols.http import HttpReply, HttpRequest
from service.protocols.route import Route
from service.protocols.socket import MAX_IN_FLIGHT, Close, Session, open_session


async def answer_handshake(
    api: Api, methods: Mapping[str, Route], http: HttpRequest, receive: Receive, send: Send
) -> None:
    """From the request that opens it to the end of the connection."""
    await receive()  # the handshake, which is in `http` already
    if api.admission_may_wait:
        opened = await asyncio.to_thread(open_session, api, methods, http)
    else:
        opened = open_session(api, methods, http)
    if isinstance(opened, HttpReply):
        return await refuse_handshake(opened, send)
    try:
        await send({"type": "websocket.accept", "headers": _encoded(opened.headers)})
        await _Conversation(opened, receive, send, waits=api.admission_may_wait).run()
    except OSError:  # the caller has left
        pass
    finally:
        opened.close()


async def refuse_handshake(reply: HttpReply, send: Send) -> None:
    headers = {"content-type": reply.content_type, "content-length": str(len(reply.body)), **reply.headers}
    await send({"type": "websocket.http.response.start", "status": reply.status, "headers": _encoded(headers)})
    await send({"type": "websocket.http.response.body", "body": reply.body})


class _Conversation:
    """`waits` says that each message may ask another machine, for which an event loop should not wait."""

    def __init__(self, session: Session, receive: Receive, send: Send, *, waits: bool) -> None:
        self._session = session
        self._receive = receive
        self._send = send
        self._waits = waits
        self._room = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._answers: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        reading = asyncio.ensure_future(self._read())
        watching = asyncio.ensure_future(self._watch())
        try:
            await asyncio.wait((reading, watching), return_when=asyncio.FIRST_COMPLETED)
            close = reading.result() if reading.done() else watching.result()
            if close is Close.STOPPING:
                close = await watching
        finally:
            for task in (reading, watching, *self._answers):
                task.cancel()
        if close is not None:  # else the caller has left
            await self._send({"type": "websocket.close", "code": close.code, "reason": close.reason})

    async def _read(self) -> Close | None:
        while self._session.ending is None:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return None
            if self._session.ending is not None:
                break
            text = message.get("text")
            if text is None:
                return Close.NOT_TEXT
            await self._room.acquire()
            if self._waits or len(text) > LARGE_BYTES:
                answer = await asyncio.to_thread(self._session.feed, text)
            else:
                answer = self._session.feed(text)
            if answer.done():
                await self._write(answer)
            else:
                task = asyncio.ensure_future(self._write(answer))
                self._answers.add(task)
                task.add_done_callback(self._answers.discard)
        return self._session.ending

    async def _write(self, answer: Future[str]) -> None:
        """Where the caller is slow, `send` waits, and so does reading once MAX_IN_FLIGHT answers are held."""
        text = answer.result() if answer.done() else await asyncio.wrap_future(answer)
        with contextlib.suppress(OSError):  # the caller has left, as `receive` will say
            await self._send({"type": "websocket.send", "text": text})
        self._room.release()

    async def _watch(self) -> Close:
        """Why to close it, when it is time. Where the service stops, what was taken is answered before."""
        while True:
            ending = self._session.ending
            if ending is not None and not (ending is Close.STOPPING and self._answers):
                return ending
            await asyncio.sleep(max(0.0, self._session.due - time.monotonic()))
            self._session.tick()


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

"""HTTP under uvicorn, of requests that come whole: what `whole.py` answers is read and written here.

What is unusual goes uvicorn's own way, through its parser.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from functools import lru_cache
from typing import Any, Final, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from service.entrypoints.fastapi_waiting import wait_for
from service.entrypoints.limits import SMALL_BODY_BYTES
from service.entrypoints.turns import LONG_BYTES
from service.entrypoints.whole import Destination, Head, Whole
from service.protocols.http import HttpReply, HttpRequest, Reply

_CLOSE: Final = "close"


class WholeRequests(HttpToolsProtocol):
    """One connection. Whoever extends it asks `take` before the parser where a request begins, or has begun here."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # An app that does not answer whole requests, or not always, has none of it.
        self._whole: Whole | None = None if self.root_path else getattr(self.app, "whole", None)
        # Of a request whose body has not come whole: its head, and what has come. The parser has seen none of it.
        self._head: Head | None = None
        self._begun = bytearray()

    @property
    def has_begun(self) -> bool:
        """Whether the rest of a body is waited for here."""
        return self._head is not None

    def take(self, data: bytes) -> bool:
        """Answer the request that `data` ends, now or later; or wait for its rest. False where nothing was done."""
        head = self._head or (self._whole.head(data) if self._whole is not None else None)
        if head is None or self._is_busy:
            return False
        missing = head.request_bytes - len(self._begun) - len(data)
        if missing < 0 or (missing > 0 and head.body_bytes > SMALL_BODY_BYTES):
            return False
        if missing > 0:
            self._head = head
            self._begun += data
        else:
            self._ask(head, self.begun() + data)
        return True

    def begun(self) -> bytes:
        """What has come of a request that is not whole. It is forgotten here."""
        data, self._head = bytes(self._begun), None
        self._begun.clear()
        return data

    @property
    def _is_busy(self) -> bool:
        return self.flow.write_paused or (self.cycle is not None and not self.cycle.response_complete)

    def _ask(self, head: Head, received: bytes) -> None:
        """The request came whole."""
        assert self._whole is not None
        http = self._whole.request(head, received, self.client[0] if self.client else "")
        coming = _Coming()
        self.cycle = cast(Any, coming)
        if len(http.body) > LONG_BYTES:
            self._whole.turns.add(lambda: self._answer(coming, head.to, http))
        else:
            self._answer(coming, head.to, http)

    def _answer(self, coming: _Coming, to: Destination, http: HttpRequest) -> None:
        assert self._whole is not None
        if coming.disconnected:
            self._whole.api.gone(http)
            return
        reply = self._whole.answer(to, http)  # no route that streams is asked here
        if isinstance(reply, Future):
            self.loop.call_soon(self._look, coming, http, reply)
        else:
            self._end(coming, reply)

    def _look(self, coming: _Coming, http: HttpRequest, future: Future[Reply]) -> None:
        """All that came in this turn of the event loop was read, and what is short was computed."""
        if future.done():
            self._end(coming, future.result())
            return
        task = self.loop.create_task(self._wait(coming, http, future))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    async def _wait(self, coming: _Coming, http: HttpRequest, future: Future[Reply]) -> None:
        assert self._whole is not None
        self._end(coming, await wait_for(self._whole.api, http, future, coming.receive))

    def _end(self, coming: _Coming, reply: Reply | None) -> None:
        coming.response_complete = True
        if isinstance(reply, HttpReply) and not coming.disconnected:
            self._write(reply, keep_alive=coming.keep_alive)

    def _write(self, reply: HttpReply, *, keep_alive: bool) -> None:
        """The bytes that uvicorn would write."""
        fields = reply.headers
        if not keep_alive:
            fields["connection"] = _CLOSE
        head = f"content-type: {reply.content_type}\r\ncontent-length: {len(reply.body)}\r\n"
        for name, value in fields.items():
            head += f"{name}: {value}\r\n"
        status, common = STATUS_LINE[reply.status], _written(tuple(self.server_state.default_headers))
        self.transport.write(b"%b%b%b\r\n%b" % (status, common, head.encode("latin-1"), reply.body))
        if fields.get("connection") == _CLOSE:
            self.transport.close()
        self.on_response_complete()


class _Coming:
    """Stands where uvicorn has a cycle, as long as the answer to a request that came whole is not there."""

    response_complete = False
    disconnected = False
    keep_alive = True  # which uvicorn changes where it stops

    def __init__(self) -> None:
        self.message_event = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        """As of ASGI: all was read, and what comes yet is the end of the connection."""
        while not self.disconnected:
            await self.message_event.wait()
            self.message_event.clear()
        return {"type": "http.disconnect"}


@lru_cache(maxsize=2)
def _written(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Fields that all answers of a second have."""
    return b"".join(b"%b: %b\r\n" % field for field in fields)

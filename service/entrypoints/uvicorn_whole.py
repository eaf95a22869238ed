"""HTTP under uvicorn, of requests that come whole: what `whole.py` answers is read and written here.

What of a request is not in the packet that its head ended in goes uvicorn's own way, as does whatever else is unusual.
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
from service.entrypoints.turns import LONG_BYTES
from service.entrypoints.whole import Destination, Whole
from service.protocols.http import HttpReply, HttpRequest, Reply

_CLOSE: Final = "close"


class WholeRequests(HttpToolsProtocol):
    """One connection. Whoever extends it calls `end_packet` after each feeding of the parser."""

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
        # Of a request that may have come whole: where it goes, and its body so far. It has no cycle yet.
        self._destination: Destination | None = None
        self._body = b""

    def on_message_begin(self) -> None:
        # As uvicorn does, but for the scope, of which a request that came whole needs none.
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_headers_complete(self) -> None:
        self._destination, self._body = self._find(), b""
        if self._destination is None:
            self.begin_cycle()

    def on_body(self, body: bytes) -> None:
        if self._destination is not None:
            self._body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._destination is not None and not self._take(self._destination):
            self.end_packet()
        if self._destination is None:
            super().on_message_complete()
        self._destination = None

    def begin_cycle(self) -> None:
        """Go uvicorn's own way with a request whose head is read."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()  # which makes a scope
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers
        super().on_headers_complete()

    def end_packet(self) -> None:
        """What has not come whole by now does not."""
        if self._destination is not None:
            self._destination, body = None, self._body
            self.begin_cycle()
            super().on_body(body)

    def _find(self) -> Destination | None:
        """Where the request goes if the rest of it is in the same packet."""
        if self._whole is None or self.parser.get_http_version() != "1.1":
            return None
        is_busy = self.cycle is not None and not self.cycle.response_complete
        if is_busy or self.flow.write_paused or self.parser.should_upgrade():
            return None
        return self._whole.destination(self.parser.get_method(), self.url)

    def _take(self, destination: Destination) -> bool:
        """The request came whole. False where nothing was done, as it is to go the long way."""
        assert self._whole is not None
        body, fields = self._body, len(self.headers)
        http = self._whole.request(destination, self.headers, body, self.client[0] if self.client else "")
        if http is None:
            return False
        coming = _Coming(keep_alive=self.parser.should_keep_alive())
        self.cycle = cast(Any, coming)
        if len(body) > LONG_BYTES:
            self._whole.turns.add(lambda: self._answer(coming, destination, http, fields))
        else:
            self._answer(coming, destination, http, fields)
        return True

    def _answer(self, coming: _Coming, destination: Destination, http: HttpRequest, fields: int) -> None:
        assert self._whole is not None
        if coming.disconnected:
            self._whole.api.gone(http)
            return
        reply = self._whole.answer(destination, http, fields)  # no route that streams is asked here
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

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
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

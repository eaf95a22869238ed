"""WebSockets under uvicorn: its protocol for wsproto, and what that leaves out.

What breaks the protocol is told its close code; a caller who does not read is cut off, and makes nothing grow; and the
log has no line with the query of a URL, in which somebody may have put a key.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from uvicorn.server import ServerState
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from service.entrypoints.deadlines import Deadlines
from service.entrypoints.limits import HttpLimits
from service.protocols.socket import PARTING_S, Close

_quiet: Final = logging.getLogger("tandem.sockets.uvicorn")
_quiet.setLevel(logging.WARNING)


class Sockets:
    """Makes the protocol of each WebSocket (uvicorn's `ws=`). Travels to worker processes before it has made any."""

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self.writes = Deadlines(limits.write_timeout_s)

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> SocketProtocol:
        return SocketProtocol(self, config, server_state, app_state, _loop)


class SocketProtocol(WSProtocol):
    """One WebSocket."""

    def __init__(
        self,
        shared: Sockets,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = _quiet
        self.close_timeout = PARTING_S
        self._writes = shared.writes
        self._is_broken = False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._writes.end(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writes.begin(self, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._writes.end(self)

    def data_received(self, data: bytes) -> None:
        if not self._is_broken:
            super().data_received(data)

    def shutdown(self) -> None:
        """The server ends: so does the session, which is told by then. It answers first what it has taken."""
        if not self.handshake_complete:
            super().shutdown()

    def handle_message(self, event: TextMessage | BytesMessage) -> None:
        """As uvicorn's own, which closes at once: with bytes of the caller's unread, that may lose the close code."""
        if self.buffer.length + _size(event) > self.config.ws_max_size:
            self._break_off(CloseConnection(code=Close.TOO_LARGE.code, reason=Close.TOO_LARGE.reason))
        else:
            super().handle_message(event)

    def handle_close(self, event: CloseConnection) -> None:
        if self.conn.state is ConnectionState.OPEN:  # it sent no close, but broke the protocol
            self._is_broken = True  # nobody knows where another frame would begin
            self._break_off(event)
        else:
            super().handle_close(event)

    def keepalive_timeout(self) -> None:
        if self.read_paused and self.ping_timeout is not None:  # it is us who do not read
            self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)
        else:
            super().keepalive_timeout()

    def handle_ping(self, event: Ping) -> None:
        if self.writable.is_set():  # else answers would pile up for a caller who reads none
            super().handle_ping(event)

    def _break_off(self, event: CloseConnection) -> None:
        """Say why; the caller may end the connection, or it ends in a moment."""
        self.stop_keepalive()
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": event.code, "reason": event.reason})
        self.transport.write(self.conn.send(event))
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(PARTING_S, self.transport.close)


def _size(event: TextMessage | BytesMessage) -> int:
    return len(event.data.encode()) if isinstance(event, TextMessage) else len(event.data)

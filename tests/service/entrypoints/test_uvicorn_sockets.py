"""The protocol without a network. What whole servers answer is in `tests/faults/test_sockets.py`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.entrypoints.uvicorn_sockets import SocketProtocol, Sockets
from tests.service.entrypoints.test_uvicorn_protocol import LIMITS, Transport

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0
REQUEST = (
    b"GET /models/a/ws?key=canary HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PING = b"\x89\x80\0\0\0\0"
PONG = b"\x8a\x00"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Socket:
    """One that was accepted; `came` is what its app received."""

    def __init__(self) -> None:
        self.came: list[Any] = []
        self.opened = asyncio.Event()
        self.transport = Transport()
        config = uvicorn.Config(
            self.app, interface="asgi3", ws_max_size=10, ws_ping_interval=3600, ws_ping_timeout=3600, log_config=None
        )
        config.load()
        self.protocol: SocketProtocol = Sockets(LIMITS)(config, ServerState(), {}, asyncio.get_running_loop())
        self.protocol.connection_made(self.transport)
        self.protocol.data_received(REQUEST)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.transport.written = b""
        self.opened.set()
        while not self.came or self.came[-1]["type"] != "websocket.disconnect":
            self.came.append(await receive())

    async def accepted(self) -> None:
        await asyncio.wait_for(self.opened.wait(), PATIENCE_S)

    async def end(self) -> None:
        self.protocol.connection_lost(None)
        await asyncio.gather(*self.protocol.tasks)


async def test_log_has_no_line_with_the_query(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    connection = Socket()
    await connection.accepted()

    await connection.end()

    assert "canary" not in caplog.text


async def test_pings_of_a_caller_that_reads_nothing_are_not_answered() -> None:
    connection = Socket()
    await connection.accepted()
    connection.protocol.data_received(PING)
    assert connection.transport.written == PONG

    connection.protocol.pause_writing()
    connection.protocol.data_received(PING * 5)
    assert connection.transport.written == PONG
    connection.protocol.resume_writing()

    await connection.end()


async def test_what_breaks_the_protocol_is_told_why_and_nothing_behind_it_is_read() -> None:
    connection = Socket()
    await connection.accepted()

    connection.protocol.data_received(b"\x81\x05hello")  # without a mask
    connection.protocol.data_received(PING)

    assert connection.transport.written[:4] == b"\x88" + connection.transport.written[1:2] + (1002).to_bytes(2)
    assert connection.transport.written.count(PONG) == 0
    await connection.end()
    assert connection.came[0]["code"] == 1002


async def test_message_above_the_limit_is_told_why() -> None:
    connection = Socket()
    await connection.accepted()

    connection.protocol.data_received(b"\x81\x8b\0\0\0\0" + b"x" * 11)

    assert connection.transport.written[2:4] == (1009).to_bytes(2)
    assert not connection.transport.closed.is_set()  # until the caller has read that
    await connection.end()


async def test_caller_whom_nobody_reads_is_not_asked_for_a_pong() -> None:
    connection = Socket()
    await connection.accepted()
    connection.protocol.read_paused = True

    connection.protocol.keepalive_timeout()

    assert connection.transport.written == b""
    connection.protocol.read_paused = False
    connection.protocol.keepalive_timeout()
    assert connection.transport.written[2:4] == (1011).to_bytes(2)
    await connection.end()


async def test_server_that_stops_leaves_it_to_the_session() -> None:
    connection = Socket()
    await connection.accepted()

    connection.protocol.shutdown()

    assert connection.transport.written == b""
    await connection.end()

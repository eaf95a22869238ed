"""The tasks of a connection, over a fake server and queues in the place of a network."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from service.entrypoints.fastapi_socket import answer_handshake
from service.protocols.socket import MAX_IN_FLIGHT
from tests.service.protocols.fake_server import EXAMPLE, FakeServer
from tests.service.protocols.test_api import Log
from tests.service.protocols.test_socket import METHODS, SlowServer, api_over, handshake

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0
LEFT = {"type": "websocket.disconnect", "code": 1005}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Connection:
    """What the app receives, and what it sent."""

    def __init__(self, api: Any, model: str = "shop") -> None:
        self.incoming: asyncio.Queue[Any] = asyncio.Queue()
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.incoming.put_nowait({"type": "websocket.connect"})
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.app = asyncio.ensure_future(
            answer_handshake(api, METHODS, handshake(model), self.incoming.get, self._send)
        )

    async def _send(self, message: Any) -> None:
        await self.may_send.wait()
        self.sent.put_nowait(message)

    def say(self, message: Any) -> None:
        self.incoming.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    async def next(self) -> Any:
        return await asyncio.wait_for(self.sent.get(), PATIENCE_S)

    async def end(self) -> None:
        await asyncio.wait_for(self.app, PATIENCE_S)


async def test_handshake_that_is_refused_is_answered_as_http() -> None:
    connection = Connection(api_over(FakeServer()), "nothing")

    start, body = await connection.next(), await connection.next()
    await connection.end()

    assert (start["type"], start["status"]) == ("websocket.http.response.start", 404)
    assert (b"content-type", b"application/problem+json") in start["headers"]
    assert json.loads(body["body"])["status"] == 404


async def test_messages_are_answered_and_the_session_ends_with_the_caller() -> None:
    connection = Connection(api_over(FakeServer(), log := Log()))
    accepted = await connection.next()

    connection.say({"id": 1} | EXAMPLE)
    answer = await connection.next()
    connection.incoming.put_nowait(LEFT)
    await connection.end()

    assert (accepted["type"], (b"x-request-id", b"req-1") in accepted["headers"]) == ("websocket.accept", True)
    assert json.loads(answer["text"])["id"] == 1
    assert [reply.status for _, reply, _ in log.lines] == [200, 101]


async def test_binary_message_ends_it() -> None:
    connection = Connection(api_over(FakeServer()))
    await connection.next()

    connection.incoming.put_nowait({"type": "websocket.receive", "bytes": b"{}"})

    assert (await connection.next())["code"] == 1003
    await connection.end()


async def test_answers_come_when_they_are_there_and_no_more_is_read_than_may_be_in_flight() -> None:
    connection = Connection(api_over(server := SlowServer()))
    await connection.next()
    for number in range(MAX_IN_FLIGHT + 1):
        connection.say({"id": number} | EXAMPLE)
    while len(server.waiting) < MAX_IN_FLIGHT:
        await asyncio.sleep(0)
    assert len(server.waiting) == MAX_IN_FLIGHT

    server.answer(3)

    assert json.loads((await connection.next())["text"])["id"] == 3
    while len(server.waiting) == MAX_IN_FLIGHT:
        await asyncio.sleep(0)
    connection.incoming.put_nowait(LEFT)
    await connection.end()


async def test_caller_that_leaves_is_answered_no_more() -> None:
    connection = Connection(api_over(server := SlowServer(), log := Log()))
    await connection.next()
    connection.say(EXAMPLE)
    connection.incoming.put_nowait(LEFT)

    await connection.end()

    assert server.deadline.is_cancelled
    assert [reply.status for _, reply, _ in log.lines] == [499, 101]


async def test_service_that_stops_answers_what_it_has_taken_first() -> None:
    api = api_over(server := SlowServer())
    connection = Connection(api)
    await connection.next()
    connection.say({"id": 1} | EXAMPLE)
    while not server.waiting:
        await asyncio.sleep(0)

    api.is_closing = True
    await asyncio.sleep(0)
    assert connection.sent.empty()
    server.answer(0)

    assert json.loads((await connection.next())["text"])["id"] == 1
    assert (await connection.next())["code"] == 1001
    await connection.end()


async def test_caller_that_is_gone_when_an_answer_is_written_is_no_failure() -> None:
    connection = Connection(api_over(server := SlowServer()))
    await connection.next()
    connection.say(EXAMPLE)
    while not server.waiting:
        await asyncio.sleep(0)

    async def gone(_: Any) -> None:
        raise OSError

    connection._send = gone  # type: ignore[method-assign]
    server.answer(0)
    connection.incoming.put_nowait(LEFT)

    await connection.end()

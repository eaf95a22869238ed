"""The protocol without a network: bytes in, bytes out. What whole servers answer is in `tests/faults`."""

from __future__ import annotations

import asyncio
import gc
import pickle
import weakref
from dataclasses import replace
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.core.errors import NotReceived, TandemError, UnreadableRequest
from service.entrypoints.limits import IN_PIECES, MAX_CHUNKS, HttpLimits
from service.entrypoints.uvicorn_protocol import Protocol, Protocols

pytestmark = pytest.mark.anyio

LIMITS = HttpLimits(
    headers_timeout_s=3600,
    body_timeout_s=3600,
    write_timeout_s=3600,
    max_connections=2,
    max_url_bytes=100,
    max_headers_bytes=1000,
)
SOON_S = 0.02
PATIENCE_S = 10.0
GET = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /post HTTP/1.1\r\nHost: localhost\r\n"


class App:
    """Answers with the path, once the body is there; `errors` are those that it met instead, `bodies` what came."""

    def __init__(self) -> None:
        self.errors: list[TandemError] = []
        self.bodies: list[bytes] = []
        self.headers: list[list[tuple[bytes, bytes]]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers.append(scope["headers"])
        if scope["path"] == "/pieces":
            scope["extensions"][IN_PIECES]()
        status = 200
        try:
            more = True
            while more:
                message = await receive()
                self.bodies.append(message.get("body", b""))
                more = message.get("more_body")
        except TandemError as error:
            self.errors.append(error)
            status = 400
        await self.may_answer.wait()
        body = scope["path"].encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = asyncio.Event()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: Any) -> None:
        assert not self.closed.is_set()
        self.written += data

    def close(self) -> None:
        self.closed.set()

    abort = close

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Service:
    def __init__(self, **limits: Any) -> None:
        self.app = App()
        self.protocols = Protocols(replace(LIMITS, **limits))
        self.config = uvicorn.Config(self.app, http=self.protocols, log_config=None)  # type: ignore[arg-type]
        self.state = ServerState()

    def connect(self) -> tuple[Protocol, Transport]:
        transport = Transport()
        protocol = self.protocols(self.config, self.state, {})
        protocol.connection_made(transport)
        return protocol, transport


async def until(truth: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not truth():
            await asyncio.sleep(0)


def test_it_travels_to_a_worker_before_its_first_connection() -> None:
    assert pickle.loads(pickle.dumps(Protocols(LIMITS))).limits == LIMITS


async def test_requests_on_one_connection_are_answered_in_order() -> None:
    protocol, transport = Service().connect()

    protocol.data_received(GET % b"one" + GET % b"two")

    await until(lambda: transport.written.endswith(b"/two"))
    assert transport.written.index(b"/one") < transport.written.index(b"/two")
    assert not transport.is_closing()


async def test_a_request_leaves_nothing_for_the_collector_of_garbage() -> None:
    protocol, transport = Service().connect()
    gc.disable()
    try:
        protocol.data_received(POST + b"Content-Length: 1\r\n\r\nx")
        await until(lambda: transport.written.endswith(b"/post"))
        first = weakref.ref(protocol.cycle)
        protocol.data_received(GET % b"second")
        await until(lambda: transport.written.endswith(b"/second"))
        await asyncio.sleep(0)  # the task of the first has ended, too

        assert first() is None
    finally:
        gc.enable()


async def test_fields_behind_the_body_are_no_headers() -> None:
    service = Service()
    protocol, transport = service.connect()

    protocol.data_received(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Api-Key: stolen\r\n\r\n")

    await until(lambda: transport.written.endswith(b"/post"))
    assert b"x-api-key" not in dict(service.app.headers[0])


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param([b"\x16\x03\x01"], 501, id="TLS"),
        pytest.param([b"BREW / HTTP/1.1\r\n\r\n"], 501, id="unknown method"),
        pytest.param([b"CONNECT localhost:1 HTTP/1.1\r\n\r\n"], 501, id="CONNECT"),
        pytest.param([b"GET /\r\n\r\n"], 400, id="HTTP/0.9"),
        pytest.param([b"GET / HTTP/2.0\r\n\r\n"], 400, id="HTTP/2"),
        pytest.param([b"GET /" + b"x" * 100], 414, id="URL"),
        pytest.param([b"GET / HTTP/1.1\r\nX: ", *[b"x" * 100] * 12], 431, id="headers"),
    ],
)
async def test_what_is_no_request_is_refused_and_the_connection_ends(sent: list[bytes], status: int) -> None:
    service = Service()
    protocol, transport = service.connect()

    for data in sent:
        protocol.data_received(data)
    protocol.data_received(GET % b"later")

    assert transport.written.startswith(b"HTTP/1.1 %d " % status)
    assert transport.written.count(b"\r\n\r\n") == 1
    assert transport.is_closing()
    assert service.app.headers == []


async def test_rubbish_behind_a_request_does_not_overtake_its_answer() -> None:
    service = Service()
    service.app.may_answer.clear()
    protocol, transport = service.connect()
    protocol.data_received(GET % b"one")
    await until(lambda: service.app.headers)

    protocol.data_received(b"rubbish\r\n\r\n")
    service.app.may_answer.set()

    await transport.closed.wait()
    assert transport.written.count(b"\r\n\r\n") == 1
    assert transport.written.endswith(b"/one")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"no size\r\n", id="malformed"),
        pytest.param(b"1\r\nx\r\n" * (MAX_CHUNKS + 1), id="too many"),
    ],
)
async def test_the_app_learns_what_is_wrong_with_the_body(body: bytes) -> None:
    service = Service()
    protocol, transport = service.connect()

    protocol.data_received(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    protocol.data_received(body)

    await transport.closed.wait()
    assert len(service.app.errors) == 1
    assert b"connection: close" in transport.written


async def test_what_asks_for_another_protocol_is_answered_in_this_one() -> None:
    protocol, transport = Service().connect()

    protocol.data_received(b"GET /up HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello")

    await transport.closed.wait()
    assert transport.written.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("sent", "came"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"GET / HT", b"HTTP/1.1 408 ", id="some headers"),
    ],
)
async def test_headers_have_their_time(sent: bytes, came: bytes) -> None:
    protocol, transport = Service(headers_timeout_s=SOON_S).connect()
    if sent:
        protocol.data_received(sent)

    await transport.closed.wait()

    assert transport.written[:13] == came


async def test_a_body_has_its_time_and_the_app_answers() -> None:
    service = Service(body_timeout_s=SOON_S)
    protocol, transport = service.connect()
    protocol.data_received(POST + b"Content-Length: 5\r\n\r\nhel")

    await transport.closed.wait()

    assert [type(error) for error in service.app.errors] == [NotReceived]
    assert transport.written.startswith(b"HTTP/1.1 400 ")


async def test_a_request_that_is_complete_has_all_the_time() -> None:
    service = Service(headers_timeout_s=SOON_S, body_timeout_s=SOON_S)
    service.app.may_answer.clear()
    protocol, transport = service.connect()
    protocol.data_received(POST + b"Content-Length: 5\r\n\r\nhel")
    protocol.data_received(b"lo")
    _, silent = service.connect()
    await silent.closed.wait()  # so the deadlines have passed
    service.app.may_answer.set()

    await until(lambda: transport.written.endswith(b"/post"))

    assert service.app.errors == []


async def test_a_body_that_is_answered_while_it_comes_has_its_time_for_each_piece() -> None:
    service = Service(body_timeout_s=1.0)
    protocol, transport = service.connect()
    protocol.data_received(b"POST /pieces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for piece in (b"h", b"e", b"l", b"l"):
        await asyncio.sleep(0.3)
        protocol.data_received(piece)

    assert loop.time() - begun > 1.0
    assert not transport.closed.is_set()
    await transport.closed.wait()  # the last one does not come
    assert b"".join(service.app.bodies) == b"hell"
    assert [type(error) for error in service.app.errors] == [NotReceived]
    assert transport.written.endswith(b"/pieces")


async def test_a_body_that_is_answered_while_it_comes_is_answered_up_to_what_is_wrong_with_it() -> None:
    service = Service()
    protocol, transport = service.connect()
    protocol.data_received(b"POST /pieces HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    await asyncio.sleep(0)

    protocol.data_received(b"4\r\nhell\r\nnonsense\r\n")

    await transport.closed.wait()
    assert b"".join(service.app.bodies) == b"hell"
    assert [type(error) for error in service.app.errors] == [UnreadableRequest]
    assert transport.written.endswith(b"/pieces")


async def test_a_body_that_is_answered_while_it_comes_has_any_number_of_chunks() -> None:
    service = Service()
    protocol, transport = service.connect()
    protocol.data_received(b"POST /pieces HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    await asyncio.sleep(0)
    protocol.data_received(b"1\r\nx\r\n" * (MAX_CHUNKS + 1) + b"0\r\n\r\n")

    await until(lambda: transport.written.endswith(b"/pieces"))

    assert service.app.errors == []


async def test_a_body_that_we_did_not_read_on_is_not_late() -> None:
    protocol, transport = Service(body_timeout_s=SOON_S).connect()
    protocol.data_received(POST + b"Content-Length: 2\r\n\r\nx")
    await asyncio.sleep(0)  # the app waits for more
    protocol.flow.pause_reading()
    await asyncio.sleep(3 * SOON_S)

    protocol.data_received(b"x")
    await until(lambda: transport.written.endswith(b"/post"))
    await asyncio.sleep(3 * SOON_S)

    assert b" 408 " not in transport.written
    assert not transport.is_closing()


async def test_an_answer_that_is_not_taken_ends_the_connection() -> None:
    protocol, transport = Service(write_timeout_s=SOON_S).connect()

    protocol.pause_writing()

    await transport.closed.wait()


async def test_the_one_that_is_silent_longest_makes_room() -> None:
    service = Service(max_connections=2)
    protocol, busy = service.connect()
    protocol.data_received(GET % b"one")
    _, silent = service.connect()

    _, new = service.connect()

    assert [transport.is_closing() for transport in (busy, silent, new)] == [False, True, False]


async def test_a_new_one_is_refused_where_nobody_is_silent() -> None:
    service = Service(max_connections=2)
    for _ in range(2):
        service.connect()[0].data_received(GET % b"one")

    _, new = service.connect()

    assert new.is_closing()


async def test_an_error_of_the_parser_names_nothing_that_came() -> None:
    protocol, transport = Service().connect()

    protocol.data_received(b"GET / HTTP/1.1\r\nX: s3cret\x00\r\n\r\n")

    assert b"s3cret" not in transport.written
    assert str(UnreadableRequest("these bytes are no request of HTTP/1.1")).encode() in transport.written

"""Requests that come whole get what they would get in pieces, and what becomes of connections meanwhile."""

from __future__ import annotations

import asyncio
import gzip
import re
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from service.core.errors import Overloaded
from service.entrypoints.fastapi_app import create_app
from service.entrypoints.limits import SMALL_BODY_BYTES
from service.entrypoints.turns import LONG_BYTES, Turns
from service.entrypoints.uvicorn_protocol import Protocol, Protocols
from service.entrypoints.uvicorn_whole import WholeRequests
from service.entrypoints.whole import Whole
from service.settings import Settings
from tests.service.entrypoints.slow import SlowTandem
from tests.service.entrypoints.test_uvicorn_protocol import LIMITS, Transport, until

pytestmark = pytest.mark.anyio

ROW = b'{"x0": 1.0, "x1": 2.0}'
ROWS = b'{"instances": [[1.0, 2.0], [3, 4.5]]}'
PREDICT = "/models/sums/predict"


def post(path: str = PREDICT, body: bytes = ROW, **fields: str) -> bytes:
    known = {"Host": "localhost", "Content-Type": "application/json", "X-Request-Id": "same"}
    known |= {"Content-Length": str(len(body))} if "Transfer_Encoding" not in fields else {}
    known |= {name.replace("_", "-"): value for name, value in fields.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in known.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def get(path: str, **fields: str) -> bytes:
    return post(path, body=b"", **fields).replace(b"POST", b"GET", 1)


class Server:
    """uvicorn's part of a server, without sockets."""

    def __init__(self, app: Any, **limits: Any) -> None:
        self.protocols = Protocols(replace(LIMITS, max_url_bytes=4096, max_headers_bytes=16_384, **limits))
        self.config = uvicorn.Config(app, http=self.protocols, log_config=None, proxy_headers=False)  # type: ignore[arg-type]
        self.state = ServerState()
        self.state.default_headers = [(b"date", b"today")]

    def connect(self) -> tuple[Protocol, Transport]:
        transport = Transport()
        protocol = self.protocols(self.config, self.state, {})
        protocol.connection_made(transport)
        return protocol, transport

    async def ask(self, *packets: bytes) -> tuple[bytes, bool]:
        """What comes on a connection of its own, and whether it was ended."""
        protocol, transport = self.connect()
        for packet in packets:
            protocol.data_received(packet)
        await until(lambda: is_answered(transport.written))
        return re.sub(rb"[0-9a-f]{32}", b"-", transport.written), transport.is_closing()


def is_answered(written: bytes) -> bool:
    head, end, body = written.partition(b"\r\n\r\n")
    if b" 100 Continue" in head:
        return is_answered(body)
    length = next((line[15:] for line in head.split(b"\r\n") if line.startswith(b"content-length: ")), b"")
    return bool(end) and len(body) >= int(length or b"0")


@asynccontextmanager
async def ready(app: FastAPI) -> AsyncIterator[None]:
    async with app.router.lifespan_context(app):
        app.middleware_stack = app.build_middleware_stack()  # as the first message to the app does
        async with asyncio.timeout(60):
            while not app.state.tandem.server.is_ready():
                await asyncio.sleep(0.01)
        yield


@pytest.fixture
def cycles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of requests that went the long way."""
    seen: list[str] = []
    run = RequestResponseCycle.run_asgi

    async def watched(self: Any, app: Any) -> None:
        seen.append(self.scope["path"])
        await run(self, app)

    monkeypatch.setattr(RequestResponseCycle, "run_asgi", watched)
    return seen


# What goes the short way, by what is asked; and what goes the long way.
WHOLE = [
    pytest.param(post(), id="a record"),
    pytest.param(post(body=ROWS), id="rows"),
    pytest.param(post(PREDICT + "?outputs=predict", ROWS), id="a query"),
    pytest.param(post("/predict?outputs=none"), id="a wrong query"),
    pytest.param(post("/models/sums/versions/1/predict"), id="a version"),
    pytest.param(post("/models/sums/labels/none/predict"), id="no such label"),
    pytest.param(post("/models/other/predict"), id="no such model"),
    pytest.param(post(body=b"{"), id="no JSON"),
    pytest.param(post(body=b""), id="no body"),
    pytest.param(post(body=b'{"x0": true}'), id="a wrong value"),
    pytest.param(post(Content_Type="text/plain"), id="another type"),
    pytest.param(post(X_Request_Timeout_Ms="none"), id="a wrong deadline"),
    pytest.param(post(X_Request_Timeout_Ms="60000"), id="a deadline"),
    pytest.param(post("/v2/models/sums/infer", body=b"{}"), id="another dialect"),
    pytest.param(post(Connection="Keep-Alive"), id="one more to come"),
    pytest.param(get("/health/live"), id="health"),
    pytest.param(get("/models/other"), id="no such model to be told of"),
]
LONG = [
    pytest.param(post("/nowhere"), id="no such path"),
    pytest.param(post("/models/s%75ms/predict"), id="an escaped path"),
    pytest.param(post("/health/live"), id="a path without this method"),
    pytest.param(post(PREDICT + "?" + "x" * 300), id="a long query"),
    pytest.param(post().replace(b"POST", b"GET"), id="another method"),
    pytest.param(post().replace(b"HTTP/1.1", b"HTTP/1.0"), id="HTTP/1.0"),
    pytest.param(get("/models/sums/ws"), id="what is no handshake"),
    pytest.param(post(Expect="100-continue"), id="one that waits to be told"),
    pytest.param(post(body=gzip.compress(ROW, mtime=0), Content_Encoding="gzip"), id="a coded body"),
    pytest.param(post(body=b"16\r\n%b\r\n0\r\n\r\n" % ROW, Transfer_Encoding="chunked"), id="chunks"),
    pytest.param(post(body=b"no size\r\n", Transfer_Encoding="chunked"), id="malformed chunks"),
    pytest.param(post(body=b"x" * 2000), id="a body that is too large"),
    pytest.param(post("/models/sums/predict/stream", body=ROW + b"\n"), id="a stream"),
    pytest.param(post(Connection="close"), id="a last request"),
    pytest.param(get("/health/ready", Connection="close"), id="health, once"),
    pytest.param(post(Connection="Keep-Alive, TE"), id="more of the connection"),
    pytest.param(post(X_Bytes="\xe9"), id="a field of other bytes"),
    pytest.param(post(X="x" * 5000), id="a long head"),
    pytest.param(post(X="x" * 9000), id="a field that is too large"),
    pytest.param(post(Content_Length="+22"), id="a length with a sign"),
    pytest.param(post().replace(b"Content-Length: 22", b"Content-Length: 22\r\nContent-Length: 22"), id="two lengths"),
    pytest.param(post().replace(b"Host: localhost\r\n", b""), id="no host"),
    pytest.param(post().replace(b"X-Request-Id: ", b"X-Request-Id : "), id="a space before the colon"),
    pytest.param(post().replace(b"X-Request-Id: same", b"X-Request-Id: same\r\n folded"), id="a folded field"),
    pytest.param(post().replace(b"X-Request-Id", b"X_Request_Id"), id="an underscore"),
    pytest.param(post(Accept="*/*\r\nAccept: */*"), id="a field twice"),
    pytest.param(post().replace(b" HTTP/1.1\r\n", b" HTTP/1.1\n"), id="a bare line feed"),
    pytest.param(post().replace(b"POST ", b"POST  "), id="two spaces"),
    pytest.param(post(Upgrade="websocket", Connection="Upgrade"), id="an upgrade"),
]


@pytest.mark.parametrize("request_", [*WHOLE, *LONG])
async def test_a_request_that_comes_whole_gets_what_it_gets_in_pieces(
    models: Path, monkeypatch: pytest.MonkeyPatch, request_: bytes
) -> None:
    taken: list[bool] = []
    take = WholeRequests.take
    monkeypatch.setattr(WholeRequests, "take", lambda *arguments: taken.append(take(*arguments)) or taken[-1])
    goes_long = any(param.values[0] is request_ for param in LONG)
    app = create_app(Settings(models=models, max_body_bytes=1024))
    head = request_.index(b"\r\n\r\n") + 4
    async with ready(app):
        server = Server(app)
        whole = await server.ask(request_)
        assert taken == [not goes_long]
        in_pieces = await server.ask(request_[: head - 1], request_[head - 1 :])
        assert taken[1:] == [False]  # of the first piece; the parser has what follows

    assert whole == in_pieces
    assert b"\r\nx-request-id: same\r\n" in whole[0] or b"malformed" not in request_


@pytest.mark.parametrize("cuts", [[0], [5], [10, 20]])
async def test_a_body_may_come_after_its_head(models: Path, cycles: list[str], cuts: list[int]) -> None:
    app = create_app(Settings(models=models))
    body_at = post().index(b"\r\n\r\n") + 4
    places = [0, *(body_at + cut for cut in cuts), len(post())]
    async with ready(app):
        server = Server(app)
        whole = await server.ask(post())
        in_pieces = await server.ask(*(post()[a:b] for a, b in pairwise(places)))

    assert in_pieces == whole
    assert not cycles


async def test_what_comes_behind_a_body_that_was_waited_for_is_answered_behind_it(models: Path) -> None:
    app = create_app(Settings(models=models))
    async with ready(app):
        protocol, transport = Server(app).connect()
        protocol.data_received(post(X_Request_Id="first")[:-5])
        protocol.data_received(post()[-5:] + get("/health/live", X_Request_Id="second"))
        await until(lambda: transport.written.count(b"HTTP/1.1 200") == 2)

    assert re.findall(rb"x-request-id: (\w+)", transport.written) == [b"first", b"second"]


async def test_a_body_that_does_not_come_is_not_waited_for_any_longer(models: Path) -> None:
    app = create_app(Settings(models=models))
    async with ready(app):
        written, is_closed = await Server(app, body_timeout_s=0.05).ask(post()[:-5])

    assert written.startswith(b"HTTP/1.1 408 ")
    assert is_closed


async def test_who_leaves_before_the_body_is_there_is_in_the_log(models: Path, cycles: list[str]) -> None:
    app = create_app(Settings(models=models))
    async with ready(app):
        protocol, transport = Server(app).connect()
        protocol.data_received(post()[:-5])
        assert not cycles
        protocol.connection_lost(None)
        await until(lambda: bool(cycles))

    assert not transport.written


async def test_a_server_that_stops_answers_what_has_begun(models: Path) -> None:
    app = create_app(Settings(models=models))
    async with ready(app):
        protocol, transport = Server(app).connect()
        protocol.data_received(post()[:-5])
        protocol.shutdown()
        assert not transport.is_closing()
        protocol.data_received(post()[-5:])
        await until(lambda: is_answered(transport.written))
        await until(transport.is_closing)

    assert transport.written.startswith(b"HTTP/1.1 200 ")


async def test_a_large_body_is_not_waited_for(models: Path, cycles: list[str]) -> None:
    app = create_app(Settings(models=models))
    request_ = post(body=b" " * (SMALL_BODY_BYTES + 1))
    async with ready(app):
        protocol, _ = Server(app).connect()
        protocol.data_received(request_[:-5])
        await until(lambda: bool(cycles))


async def test_requests_of_one_packet_are_answered_in_order(models: Path, cycles: list[str]) -> None:
    app = create_app(Settings(models=models))
    async with ready(app):
        protocol, transport = Server(app).connect()
        protocol.data_received(b"".join(post(X_Request_Id=str(number)) for number in range(5)) + post("/nowhere"))
        await until(lambda: transport.written.count(b"x-request-id") == 6)

    asked = [line for line in transport.written.split(b"\r\n") if line.startswith(b"x-request-id")]
    assert asked == [*[b"x-request-id: %d" % number for number in range(5)], b"x-request-id: same"]


async def test_nothing_is_written_behind_the_last_answer(models: Path) -> None:
    app = create_app(Settings(models=models))
    async with ready(app):
        server = Server(app)
        alone = await server.ask(get("/health/live", Connection="close"))
        followed = await server.ask(get("/health/live", Connection="close") + b"\0 what is no request")

    assert followed == alone


# Those that take longer: one each turn, here.


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.entrypoints.fastapi_app.Turns", lambda here: Turns(here, turn_s=0))


def long_post() -> bytes:
    return post(body=b'{"instances": [%b[1, 2]]}' % (b"[1, 2], " * (LONG_BYTES // 8)))


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("begins_with", [0, 100])
async def test_health_is_asked_between_long_requests(models: Path, begins_with: int) -> None:
    app = create_app(Settings(models=models))
    async with ready(app):
        server = Server(app, max_connections=30)
        long_ones = [server.connect() for _ in range(20)]
        for protocol, _ in long_ones:
            protocol.data_received(long_post()[:begins_with])
            protocol.data_received(long_post()[begins_with:])
        await turns(4)
        health, answer = server.connect()
        health.data_received(get("/health/live"))

        assert answer.written.startswith(b"HTTP/1.1 200 ")
        assert sum(is_answered(transport.written) for _, transport in long_ones) < 20
        await until(lambda: all(is_answered(transport.written) for _, transport in long_ones))

    assert all(transport.written.startswith(b"HTTP/1.1 200 ") for _, transport in long_ones)


@pytest.mark.usefixtures("one_by_one")
async def test_who_leaves_before_the_turn_comes_is_not_answered() -> None:
    app = Slow()
    app.tandem.api.max_body_bytes = 2 * LONG_BYTES
    protocol, transport = Server(app).connect()
    protocol.data_received(post("/predict", body=b" " * (LONG_BYTES + 1)))

    protocol.connection_lost(None)
    await until(lambda: app.statuses)

    assert app.statuses == [499]
    assert app.tandem.server.deadlines == []
    assert not transport.written


async def test_middleware_sees_all_requests(models: Path, cycles: list[str]) -> None:
    app = create_app(Settings(models=models))

    @app.middleware("http")
    async def see(request: Any, proceed: Any) -> Any:
        reply = await proceed(request)
        reply.headers["x-seen"] = "yes"
        return reply

    async with ready(app):
        written, _ = await Server(app).ask(post())

    assert b"x-seen: yes" in written
    assert cycles == [PREDICT]


async def test_with_a_root_path_the_app_is_asked(models: Path, cycles: list[str]) -> None:
    app = create_app(Settings(models=models))
    async with ready(app):
        server = Server(app)
        server.config.root_path = "/ml"
        await server.ask(post())

    assert cycles


async def test_a_service_that_drains_ends_the_connection_with_the_answer(models: Path) -> None:
    app = create_app(Settings(models=models))
    async with ready(app):
        app.state.tandem.api.is_closing = True
        written, is_closed = await Server(app).ask(post())

    assert b"\r\nconnection: close\r\n" in written
    assert is_closed


async def test_what_needs_room_is_turned_away_at_once(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(Settings(models=models))
    async with ready(app):

        def full() -> None:
            raise Overloaded("full", 3)

        monkeypatch.setattr(app.state.tandem.api, "_require_room", full)
        protocol, transport = Server(app).connect()
        protocol.data_received(post())

    assert transport.written.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 3\r\n" in transport.written


async def test_a_request_leaves_nothing_for_the_collector_of_garbage(models: Path) -> None:
    app = create_app(Settings(models=models))
    async with ready(app):
        protocol, transport = Server(app).connect()
        protocol.data_received(post())
        await until(lambda: is_answered(transport.written))
        first = weakref.ref(protocol.cycle)
        protocol.data_received(post())
        await until(lambda: transport.written.count(b"HTTP/1.1 200") == 2)

        assert first() is None


# Answers that take longer.


class Slow:
    """An app whose one model answers when the test says so."""

    def __init__(self, timeout_s: float = 60) -> None:
        self.tandem = SlowTandem(timeout_s=timeout_s)
        self.whole = Whole(self.tandem.api, self.tandem.paths, Turns(asyncio.get_running_loop))
        self.long_way = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.long_way += 1
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    @property
    def statuses(self) -> list[int]:
        return [status for _, status in self.tandem.recorded]


def slow_post() -> bytes:
    return post("/predict")


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_an_answer_is_written_when_it_comes() -> None:
    app = Slow()
    protocol, transport = Server(app).connect()

    protocol.data_received(slow_post())
    await turns()
    assert not transport.written
    app.tandem.answer_at_last()

    await until(lambda: transport.written)
    assert transport.written.startswith(b"HTTP/1.1 500 ")  # which is what the slow model says
    assert not transport.is_closing()
    assert app.statuses == [500]


async def test_requests_behind_one_that_waits_wait_for_it() -> None:
    app = Slow()
    protocol, transport = Server(app).connect()

    protocol.data_received(slow_post())
    protocol.data_received(post("/nowhere") + post("/nowhere"))
    await turns()
    assert (transport.written, app.long_way) == (b"", 0)
    app.tandem.answer_at_last()

    await until(lambda: app.long_way == 2)
    await until(lambda: transport.written.count(b"HTTP/1.1 204") == 2)
    assert transport.written.startswith(b"HTTP/1.1 500 ")


async def test_a_caller_who_leaves_takes_the_work_along() -> None:
    app = Slow()
    protocol, transport = Server(app).connect()
    protocol.data_received(slow_post())
    await turns()

    protocol.connection_lost(None)

    await until(lambda: app.statuses)
    assert app.statuses == [499]
    assert app.tandem.server.deadlines[0].is_cancelled
    app.tandem.answer_at_last()
    await turns()
    assert not transport.written


async def test_a_caller_who_leaves_in_the_same_turn_is_noticed() -> None:
    app = Slow()
    protocol, _ = Server(app).connect()

    protocol.data_received(slow_post())
    protocol.connection_lost(None)

    await until(lambda: app.statuses)
    assert app.statuses == [499]


async def test_past_its_deadline_a_request_gets_504() -> None:
    app = Slow(timeout_s=0.02)
    protocol, transport = Server(app).connect()

    protocol.data_received(slow_post())

    await until(lambda: transport.written)
    assert transport.written.startswith(b"HTTP/1.1 504 ")
    app.tandem.answer_at_last()
    await turns()
    assert transport.written.count(b"HTTP/1.1") == 1


async def test_a_server_that_shuts_down_ends_the_connection_after_the_answer() -> None:
    app = Slow()
    server = Server(app)
    protocol, transport = server.connect()
    protocol.data_received(slow_post())
    await turns()
    assert len(server.state.tasks) == 1  # for which the server waits

    protocol.shutdown()
    assert not transport.is_closing()
    app.tandem.answer_at_last()

    await until(transport.is_closing)
    assert b"\r\nconnection: close\r\n" in transport.written


async def test_at_the_end_of_grace_the_caller_is_told() -> None:
    app = Slow()
    server = Server(app)
    protocol, transport = server.connect()
    protocol.data_received(slow_post())
    await until(lambda: server.state.tasks)
    await turns()

    for task in list(server.state.tasks):
        task.cancel()

    await until(lambda: transport.written)
    assert transport.written.startswith(b"HTTP/1.1 503 ")
    assert b"the service is stopping" in transport.written


async def test_nothing_is_begun_for_a_caller_who_does_not_read() -> None:
    app = Slow()
    protocol, _ = Server(app).connect()
    protocol.pause_writing()

    protocol.data_received(slow_post())
    await until(lambda: app.long_way)

    assert app.tandem.server.deadlines == []  # it waits where uvicorn lets it wait
    protocol.resume_writing()
    await turns()

"""The loop over a connection, with a session that is told what to answer. Whole servers are in `tests/faults`."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, Pong, Request, TextMessage

from service.entrypoints.flask_socket import connection_of, converse
from service.entrypoints.limits import SocketLimits
from service.protocols.socket import MAX_IN_FLIGHT, Close

PATIENCE_S = 20.0


class FakeSession:
    """Keeps what it is fed; `answer` answers the oldest that is open."""

    def __init__(self) -> None:
        self.headers = {"x-request-id": "req-1"}
        self.ending: Close | None = None
        self.fed: list[str] = []
        self.open: list[Future[str]] = []
        self.closed = threading.Event()

    @property
    def due(self) -> float:
        return time.monotonic() + 0.01

    def feed(self, text: str) -> Future[str]:
        self.fed.append(text)
        self.open.append(Future())
        return self.open[-1]

    def answer(self, text: str) -> None:
        self.open.pop(0).set_result(text)

    def tick(self) -> None: ...

    def close(self) -> None:
        self.closed.set()


class Client:
    """The other end of a connection, in a test."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.connection.settimeout(PATIENCE_S)
        self.protocol = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []

    def handshake(self) -> str:
        sent = self.protocol.send(Request(host="localhost", target="/"))
        return next(line.split(b": ")[1] for line in sent.split(b"\r\n") if b"-key" in line.lower()).decode()

    def send(self, event: Event) -> None:
        self.connection.sendall(self.protocol.send(event))

    def next(self) -> Event:
        while not self._events:
            data = self.connection.recv(65536)
            assert data, "the connection ended"
            self.protocol.receive_data(data)
            self._events.extend(self.protocol.events())
        return self._events.pop(0)

    def text(self) -> str:
        whole = ""
        while True:
            event = self.next()
            assert isinstance(event, TextMessage)
            whole += event.data
            if event.message_finished:
                return whole


@contextlib.contextmanager
def talking(**limits: Any) -> Iterator[tuple[FakeSession, Client]]:
    session = FakeSession()
    given = SocketLimits(**{"max_message_bytes": 1000, "ping_s": 3600.0, "write_timeout_s": 3600.0, **limits})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = Client(theirs)
        serving = threading.Thread(target=converse, args=(session, ours, client.handshake(), given), daemon=True)
        serving.start()
        accepted = client.next()
        assert isinstance(accepted, AcceptConnection)
        yield session, client
        theirs.close()
        for answer in session.open:  # a caller who has left is noticed when something is read or written
            answer.set_result("late")
        serving.join(PATIENCE_S)
    assert not serving.is_alive()
    assert session.closed.is_set()


def until(holds: Any) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_messages_go_in_and_answers_come_out() -> None:
    with talking() as (session, client):
        client.send(TextMessage("one"))
        until(lambda: session.open)
        session.answer("first")

        assert client.text() == "first"
        assert session.fed == ["one"]


def test_answer_that_does_not_fit_into_the_buffers_is_whole() -> None:
    answer = "é" * 3_000_000

    with talking() as (session, client):
        client.send(TextMessage("one"))
        until(lambda: session.open)
        session.answer(answer)

        assert client.text() == answer


def test_no_more_is_read_than_may_be_in_flight() -> None:
    with talking() as (session, client):
        for number in range(MAX_IN_FLIGHT + 3):
            client.send(TextMessage(str(number)))
        until(lambda: len(session.fed) == MAX_IN_FLIGHT)
        for answered in range(3):
            assert len(session.fed) == MAX_IN_FLIGHT + answered
            session.answer("next")
            client.text()
            until(lambda: len(session.fed) == MAX_IN_FLIGHT + answered + 1)  # noqa: B023


def test_caller_that_takes_no_answer_is_cut_off() -> None:
    with talking(write_timeout_s=0.05) as (session, client):
        client.send(TextMessage("one"))
        until(lambda: session.open)
        session.answer("x" * 10_000_000)

        assert session.closed.wait(PATIENCE_S)


def test_ping_of_the_caller_is_answered_with_what_it_holds() -> None:
    with talking() as (_, client):
        client.send(Ping(b"abc"))

        came = client.next()

    assert isinstance(came, Pong)
    assert came.payload == b"abc"


def test_caller_that_answers_no_ping_is_told_and_let_go() -> None:
    with talking(ping_s=0.05) as (session, client):
        assert isinstance(client.next(), Ping)
        came = client.next()
        assert isinstance(came, CloseConnection)
        client.send(came.response())

        assert session.closed.wait(PATIENCE_S)

    assert came.code == 1011


def test_pong_that_came_while_others_were_busy_counts() -> None:
    ping_s = 0.5

    with talking(ping_s=ping_s) as (session, client):
        feeds, goes_on = threading.Event(), threading.Event()
        feed = session.feed

        def slow_feed(text: str) -> Future[str]:
            feeds.set()
            assert goes_on.wait(PATIENCE_S)
            return feed(text)

        session.feed = slow_feed  # type: ignore[method-assign]
        came = client.next()
        assert isinstance(came, Ping)
        client.send(TextMessage("one"))
        assert feeds.wait(PATIENCE_S)
        client.send(came.response())
        time.sleep(1.5 * ping_s)  # the next is due
        goes_on.set()
        until(lambda: session.open)
        session.answer("first")
        while isinstance(came := client.next(), Ping):
            client.send(came.response())

    assert isinstance(came, TextMessage)


def test_service_that_stops_answers_what_it_has_taken_and_takes_no_more() -> None:
    with talking() as (session, client):
        client.send(TextMessage("one"))
        until(lambda: session.open)
        session.ending = Close.STOPPING
        client.send(TextMessage("two"))
        session.answer("first")

        assert client.text() == "first"
        came = client.next()

    assert isinstance(came, CloseConnection)
    assert (came.code, session.fed) == (1001, ["one"])


def test_close_of_the_caller_is_returned() -> None:
    with talking() as (session, client):
        client.send(CloseConnection(code=1000))
        came = client.next()
        assert session.closed.wait(PATIENCE_S)

    assert isinstance(came, CloseConnection)
    assert came.code == 1000


@pytest.mark.parametrize(
    ("environ", "has_one"),
    [
        pytest.param({"gunicorn.socket": 1, "wsgi.multithread": True}, True, id="gunicorn with threads, or greenlets"),
        pytest.param(
            {"gunicorn.socket": 1, "wsgi.multithread": False}, False, id="gunicorn that answers one at a time"
        ),
        pytest.param({"wsgi.multithread": True}, False, id="a server that keeps its connections"),
    ],
)
def test_connection_is_that_of_a_server_that_can_spare_it(environ: dict[str, Any], has_one: bool) -> None:
    assert (connection_of(environ) is not None) is has_one

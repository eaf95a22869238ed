from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import pytest

from service.core.deadline import Deadline
from service.entrypoints import flask_waiting
from service.entrypoints.flask_waiting import CallerLeft, has_left, wait_for
from service.entrypoints.limits import LIVES
from service.protocols.http import HttpReply, HttpRequest, Reply
from tests.service.protocols.fake_server import get

HERE = HttpReply(200, b"here")


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends: ours, with a timeout as gunicorn's threads set one, and the caller's."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, theirs:
        ours.settimeout(60)
        yield ours, theirs


def leave_by_reset(theirs: socket.socket) -> None:
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()


LEAVE: dict[str, Callable[[socket.socket], None]] = {
    "closed": lambda theirs: theirs.close(),
    "half closed": lambda theirs: theirs.shutdown(socket.SHUT_WR),
    "reset": leave_by_reset,
}


def request_with_work() -> HttpRequest:
    http = get("/x")
    http.work, http.deadline = Future(), Deadline.after(60)
    return http


@pytest.mark.parametrize("leave", LEAVE.values(), ids=LEAVE)
def test_who_closes_has_left(
    connection: tuple[socket.socket, socket.socket], leave: Callable[[socket.socket], None]
) -> None:
    ours, theirs = connection

    leave(theirs)

    assert has_left(ours)
    assert ours.gettimeout() == 60


def test_who_is_silent_or_asks_again_is_there_and_nothing_is_taken(
    connection: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = connection

    is_silent = has_left(ours)
    theirs.sendall(b"GET / HTTP/1.1")
    asks_again = has_left(ours)

    assert (is_silent, asks_again) == (False, False)
    assert ours.recv(100) == b"GET / HTTP/1.1"
    assert ours.gettimeout() == 60


class Slow(Future[Reply]):
    """Is there after so many waits, each of which is over at once."""

    def __init__(self, waits: int) -> None:
        super().__init__()
        self.waits = waits

    def result(self, timeout: float | None = None) -> Reply:
        self.waits -= 1
        if self.waits >= 0:
            raise TimeoutError
        return HERE


def test_answer_is_waited_for_while_the_caller_is_there(connection: tuple[socket.socket, socket.socket]) -> None:
    reply = wait_for(Slow(5), request_with_work(), {"gunicorn.socket": connection[0]})

    assert reply is HERE


def test_who_left_is_not_waited_for(connection: tuple[socket.socket, socket.socket]) -> None:
    connection[1].close()
    reply = Slow(5)

    with pytest.raises(CallerLeft):
        wait_for(reply, request_with_work(), {"gunicorn.socket": connection[0]})

    assert reply.waits == 4


def test_who_leaves_as_the_answer_comes_gets_it(
    connection: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it holds is then given back as it is written."""
    reply: Future[Reply] = Slow(1)

    def leave(_: Any) -> bool:
        reply.set_result(HERE)
        return True

    monkeypatch.setattr(flask_waiting, "has_left", leave)

    assert wait_for(reply, request_with_work(), {"gunicorn.socket": connection[0]}) is HERE


def test_connection_is_looked_at_several_times_a_second() -> None:
    assert 3 * flask_waiting.LOOK_EVERY_S < 1


def test_deadline_holds_while_the_caller_is_there(
    connection: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flask_waiting, "LOOK_EVERY_S", 0.01)
    http = request_with_work()
    http.deadline = Deadline.after(0.05)

    with pytest.raises(TimeoutError):
        wait_for(Future(), http, {"gunicorn.socket": connection[0]})

    assert time.monotonic() >= http.deadline.at


def behind_tls(http: HttpRequest, ours: socket.socket) -> dict[str, Any]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    wrapped = context.wrap_socket(ours.dup(), server_hostname="localhost", do_handshake_on_connect=False)
    return {"gunicorn.socket": wrapped}


@pytest.mark.parametrize(
    "environ_of",
    [
        pytest.param(behind_tls, id="TLS"),
        pytest.param(lambda http, ours: {}, id="no connection is handed over"),
    ],
)
def test_elsewhere_nobody_looks(
    connection: tuple[socket.socket, socket.socket], environ_of: Callable[[HttpRequest, socket.socket], dict[str, Any]]
) -> None:
    http = request_with_work()
    environ = environ_of(http, connection[0])
    connection[1].close()

    with closing(environ.get("gunicorn.socket", connection[0])):
        assert wait_for(Slow(5), http, environ) is HERE


def test_prediction_which_nobody_can_give_up_is_waited_for_in_one(
    connection: tuple[socket.socket, socket.socket],
) -> None:
    http = request_with_work()
    http.work = None
    connection[1].close()

    with pytest.raises(TimeoutError):
        wait_for(Slow(1), http, {"gunicorn.socket": connection[0]})


def test_server_that_would_take_it_for_a_hang_is_told_of_each_wait() -> None:
    told: list[None] = []

    wait_for(Slow(5), request_with_work(), {LIVES: lambda: told.append(None)})

    assert len(told) == 5

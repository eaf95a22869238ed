"""Callers that are slow, silent or too many, without a proxy in front: servers of their own, with short deadlines."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.conformance.servers import SERVERS, Running, eventually, side_by_side, tandem_serve
from tests.conformance.wire import request
from tests.faults.cases import Came, fault
from tests.faults.framing import post
from tests.faults.fronts import MODEL, Front, received

CALLERS: Final = 50
CONNECTIONS: Final = 100
DEADLINE_S: Final = 1.0
# What a busy machine may take; without a deadline nothing would ever end.
PATIENCE_S: Final = 30.0
TRICKLE_S: Final = 0.2


@pytest.fixture(scope="module")
def impatient(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Running]]:
    folder = tmp_path_factory.mktemp("impatient")
    shutil.copytree(repository / MODEL, folder / "models" / MODEL)
    environment = {
        "TANDEM_HEADERS_TIMEOUT_S": str(DEADLINE_S),
        "TANDEM_BODY_TIMEOUT_S": str(DEADLINE_S),
        "TANDEM_WRITE_TIMEOUT_S": str(DEADLINE_S),
        "TANDEM_MAX_CONNECTIONS": str(CONNECTIONS),
    }
    models = ("--models", str(folder / "models"))
    with side_by_side(
        {
            name: tandem_serve(*arguments, *models, log=folder / name, environment=environment)
            for name, arguments in SERVERS.items()
        }
    ) as started:
        yield started


@pytest.fixture(params=SERVERS)
def front(request: pytest.FixtureRequest, impatient: Mapping[str, Running]) -> Iterator[Front]:
    front = Front(request.param, impatient[request.param])
    since = front.running.log.stat().st_size
    yield front
    front.is_well(since)


@contextlib.contextmanager
def callers(front: Front, number: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(front.connect()) for _ in range(number)]


def trickle(front: Front, bytes_of: Mapping[socket.socket, bytes]) -> list[bytes]:
    """Send its byte, if any, on each again and again until the other side ends it; health must be answered meanwhile.

    Returns what came on each, within PATIENCE_S.
    """
    came = dict.fromkeys(bytes_of, b"")
    pending = list(bytes_of)
    until = time.monotonic() + PATIENCE_S
    while pending:
        assert time.monotonic() < until, f"{len(pending)} of {len(came)} connections are still open"
        assert front.ask("GET", "/health/live").status_code == 200
        for one in list(pending):
            try:
                one.setblocking(False)
                if bytes_of[one]:
                    one.send(bytes_of[one])
                chunk = one.recv(65536)
                came[one] += chunk
                if not chunk:
                    pending.remove(one)
            except BlockingIOError:
                pass
            except OSError:  # reset: the answer, if there was one, is lost
                pending.remove(one)
        time.sleep(TRICKLE_S)
    return list(came.values())


@fault("H09", sent="headers, byte by byte, or nothing, on 50 connections", expected="408 or closed; health answered")
def test_slow_headers(front: Front, came: Came) -> None:
    with callers(front, CALLERS) as sockets:
        slow, silent = sockets[::2], sockets[1::2]
        for one in slow:
            one.sendall(b"GET /health/live HTTP/1.1\r\nX-Slow: ")

        answers = trickle(front, dict.fromkeys(slow, b"x") | dict.fromkeys(silent, b""))

    came(f"{sum(b' 408 ' in answer for answer in answers)} got 408, all closed")
    assert all(answer == b"" or b" 408 " in answer for answer in answers)


@fault("H10", sent="a body, byte by byte, on 50 connections", expected="408 or closed at the deadline; health answered")
def test_slow_bodies(front: Front, came: Came) -> None:
    if front.name == "granian":
        pytest.skip("Granian has no deadline for bodies; see left_out.py")
    with callers(front, CALLERS) as sockets:
        for one in sockets[::2]:
            one.sendall(post(b"Content-Length: 5000", body=b"{"))
        for one in sockets[1::2]:
            one.sendall(post(b"Transfer-Encoding: chunked", body=b"5000\r\n"))

        answers = trickle(front, dict.fromkeys(sockets, b" "))

    came(f"{sum(b' 408 ' in answer for answer in answers)} got 408, all closed")
    assert all(answer == b"" or b" 408 " in answer for answer in answers)


@fault("H06", sent="a length that is larger than the body, then silence", expected="408, connection closed, slot freed")
def test_a_body_that_stops(front: Front, came: Came) -> None:
    if front.name == "granian":
        pytest.skip("Granian has no deadline for bodies; see left_out.py")
    with front.connect() as connection:
        connection.sendall(post(b"Content-Length: 5000"))
        raw = received(connection, PATIENCE_S)

    came(raw)
    assert raw.statuses == [408]
    assert raw.closed


@fault(
    "H06", sent="rows that stop coming in the middle of a stream", expected="408 as the last item, connection closed"
)
def test_rows_that_stop_coming(front: Front, came: Came) -> None:
    if front.name == "granian":
        pytest.skip("Granian has no deadline for bodies; see left_out.py")
    chunked = (b"Content-Type: application/x-ndjson", b"Transfer-Encoding: chunked")
    rows = b"[0.5,-0.25,1.0,2.0]\n" * 5_000  # more than a WSGI server waits for
    head = b"\r\n".join([b"POST /models/%s/predict/stream HTTP/1.1" % MODEL.encode(), b"Host: localhost", *chunked])
    with front.connect() as connection:
        connection.sendall(b"%s\r\n\r\n%x\r\n%s\r\n" % (head, len(rows), rows))
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        lines = [json.loads(line) for line in answer.read().splitlines()]  # raises where the chunks have no end
        closed = connection.recv(1) == b""

    came(f"{len(lines) - 1} rows answered", lines[-1], f"closed: {closed}")
    assert all("prediction" in line for line in lines[:-1])
    assert (len(lines) > 1, lines[-1]["error"]["status"], closed) == (True, 408, True)


@fault("H10", sent="bodies that do not come, on 80 connections", expected="health answered")
def test_bodies_that_do_not_come_hold_no_spare_thread(front: Front, came: Came) -> None:
    with callers(front, 80) as sockets:
        for one in sockets:
            one.sendall(post(b"Transfer-Encoding: chunked", body=b""))

        statuses = [front.ask("GET", "/health/live").status_code for _ in range(5)]

    came(statuses)
    assert statuses == [200] * 5


@fault("H11", sent="100 requests for 1.5 MB each, and no answer is read", expected="closed at the deadline")
def test_answers_that_nobody_takes(front: Front, came: Came) -> None:
    if front.name == "granian":
        pytest.skip("Granian has no deadline for writing; see left_out.py")
    message = request("GET", "/docs/swagger-ui-bundle.js")  # more than the kernel holds for anybody
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE_S)
        connection.connect(("127.0.0.1", front.port))
        connection.sendall(request("GET", "/health/live"))
        assert connection.recv(4096)  # so that the server has accepted it
        before = front.descriptors()
        with contextlib.suppress(OSError):
            connection.sendall(message * 100)

        eventually(lambda: front.descriptors() < before, "the server to close the connection")

    came("closed")


@fault("H12", sent="200 idle connections where 100 are allowed", expected="no more than 100; health answered")
def test_idle_connections(front: Front, came: Came) -> None:
    before = front.descriptors()
    with callers(front, 2 * CONNECTIONS):
        status = front.ask("GET", "/health/live").status_code
        descriptors = front.descriptors() - before
        came(status, f"{descriptors} more open files")
        assert status == 200
        assert descriptors <= CONNECTIONS + 5
    eventually(lambda: front.descriptors() <= before + 5, "the connections to be closed")

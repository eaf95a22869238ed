"""The parts of the workers. What whole servers answer is in `tests/faults`."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn import config
from gunicorn.http import errors
from gunicorn.workers.gthread import ThreadWorker as GunicornThreads
from gunicorn.workers.sync import SyncWorker

from service.core.errors import (
    HeadersTooLarge,
    NotOffered,
    NotReceived,
    RequestTooLarge,
    TargetTooLong,
    UnreadableRequest,
)
from service.entrypoints import gunicorn_connections
from service.entrypoints.gunicorn_connections import Connection, Progress
from service.entrypoints.gunicorn_workers import _meaning, worker_of
from service.entrypoints.limits import IN_PIECES, SMALL_BODY_BYTES, HttpLimits

LIMITS = HttpLimits(
    headers_timeout_s=5,
    body_timeout_s=5,
    write_timeout_s=5,
    max_connections=2,
    max_url_bytes=100,
    max_headers_bytes=1000,
)
START = b"POST / HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Connection]]:
    """A client, and its connection as the worker has it."""
    client, accepted = socket.socketpair()
    with client, accepted:
        worker: Any = SimpleNamespace(cfg=config.Config(), limits=LIMITS)
        connection = Connection(worker, accepted, ("127.0.0.1", 1), ("127.0.0.1", 2))
        yield client, connection


@pytest.mark.parametrize(
    ("parts", "progress"),
    [
        pytest.param([], Progress.READING, id="nothing yet"),
        pytest.param([START], Progress.READING, id="some headers"),
        pytest.param([START + b"\r\n"], Progress.READY, id="no body"),
        pytest.param([START, b"Content-Length: 3\r\n\r", b"\nab"], Progress.READING, id="some of the body"),
        pytest.param([START, b"content-length:3\r\n\r\nab", b"c"], Progress.READY, id="all of the body"),
        pytest.param(
            [START + b"Content-Length: %d\r\n\r\n" % (SMALL_BODY_BYTES + 1)], Progress.READY, id="a large body"
        ),
        pytest.param([START + b"Transfer-Encoding: chunked\r\n\r\n"], Progress.READY, id="chunks"),
        pytest.param([START + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"], Progress.READY, id="waits for us"),
        pytest.param([b"GET / HTTP/1.1\n\n"], Progress.READY, id="for the parser to refuse"),
    ],
)
def test_a_request_is_ready_when_it_is_there(
    pair: tuple[socket.socket, Connection], parts: list[bytes], progress: Progress
) -> None:
    client, connection = pair
    seen = connection.receive()
    for part in parts:
        client.sendall(part)
        seen = connection.receive()

    assert seen is progress
    assert connection.received == b"".join(parts)


@pytest.mark.parametrize(
    ("sent", "progress"),
    [
        pytest.param(b"", Progress.CLOSED, id="before the headers"),
        pytest.param(START + b"Content-Length: 3\r\n\r\na", Progress.READY, id="within the body: the app says so"),
    ],
)
def test_a_caller_that_leaves(pair: tuple[socket.socket, Connection], sent: bytes, progress: Progress) -> None:
    client, connection = pair
    client.sendall(sent)
    connection.receive()
    client.shutdown(socket.SHUT_WR)

    assert connection.receive() is progress


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        pytest.param(START + b"X: " + b"x" * 1100, HeadersTooLarge, id="no end in sight"),
        pytest.param(b"\x16\x03\x01", UnreadableRequest, id="TLS"),
    ],
)
def test_it_makes_no_sense_to_read_on(
    pair: tuple[socket.socket, Connection], sent: bytes, error: type[Exception]
) -> None:
    client, connection = pair
    client.sendall(sent)

    with pytest.raises(error):
        connection.receive()


def test_the_parser_gets_what_was_read_and_reads_on(pair: tuple[socket.socket, Connection]) -> None:
    client, connection = pair
    client.sendall(START + b"Transfer-Encoding: chunked\r\n\r\n3\r\nab")
    connection.receive()
    connection.hand_over()
    connection.sock.setblocking(True)
    client.sendall(b"c\r\n0\r\n\r\n")

    request = next(connection.parser)

    assert (request.method, request.body.read()) == ("POST", b"abc")
    assert connection.received == b""


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        pytest.param(b"Transfer-Encoding: gzip, chunked\r\n", errors.UnsupportedTransferCoding, id="two codings"),
        pytest.param(b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", errors.InvalidHeader, id="two framings"),
    ],
)
def test_framing_is_strict(pair: tuple[socket.socket, Connection], headers: bytes, error: type[Exception]) -> None:
    client, connection = pair
    client.sendall(START + headers + b"\r\n")
    connection.receive()
    connection.hand_over()

    with pytest.raises(error):
        next(connection.parser)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(b"10000000000000000\r\n", errors.InvalidChunkSize, id="beyond 64 bits"),
        pytest.param(b"1\r\nx\r\n" * 3, RequestTooLarge, id="too many"),
    ],
)
def test_chunks_are_bounded(
    pair: tuple[socket.socket, Connection], body: bytes, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gunicorn_connections, "MAX_CHUNKS", 2)
    client, connection = pair
    client.sendall(START + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    connection.receive()
    connection.hand_over()

    with pytest.raises(error):
        next(connection.parser).body.read()


def test_a_body_that_is_answered_while_it_comes_has_any_number_of_chunks(
    pair: tuple[socket.socket, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gunicorn_connections, "MAX_CHUNKS", 2)
    client, connection = pair
    client.sendall(START + b"Transfer-Encoding: chunked\r\n\r\n")
    connection.receive()
    connection.hand_over()
    body = next(connection.parser).body
    getattr(body, IN_PIECES)()
    client.sendall(b"1\r\nx\r\n" * 9 + b"0\r\n\r\n")

    assert body.read() == b"x" * 9


def test_a_body_that_is_answered_while_it_comes_has_its_time_for_each_piece(
    pair: tuple[socket.socket, Connection],
) -> None:
    client, connection = pair
    client.sendall(START + b"Content-Length: 2\r\n\r\n")
    connection.receive()
    connection.hand_over()
    body = next(connection.parser).body
    unreader = connection.parser.unreader
    unreader.expect("body", 0.05)
    getattr(body, IN_PIECES)()
    time.sleep(0.1)
    client.sendall(b"x")

    assert unreader.read() == b"x"
    with pytest.raises(NotReceived):
        unreader.read()


def test_a_body_that_does_not_come_is_given_up(pair: tuple[socket.socket, Connection]) -> None:
    client, connection = pair
    client.sendall(START + b"Transfer-Encoding: chunked\r\n\r\n")
    connection.receive()
    connection.hand_over()
    request = next(connection.parser)
    connection.parser.unreader.expect("body", 0.01)

    with pytest.raises(NotReceived, match="the body of the request did not come"):
        request.body.read()


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (errors.LimitRequestLine(5000, 4096), TargetTooLong),
        (errors.LimitRequestHeaders("too many"), HeadersTooLarge),
        (errors.UnsupportedTransferCoding("x"), NotOffered),
        (errors.InvalidRequestMethod("get"), NotOffered),
        (errors.InvalidHeader("s3cret"), UnreadableRequest),
        (NotReceived("head", 1), NotReceived),
        (ZeroDivisionError(), ZeroDivisionError),
    ],
)
def test_errors_of_the_parser_have_their_meaning_here(error: Exception, meaning: type[Exception]) -> None:
    assert type(_meaning(error)) is meaning
    assert "s3cret" not in str(_meaning(error))


@pytest.mark.parametrize(("name", "base"), [("gthread", GunicornThreads), ("sync", SyncWorker)])
def test_workers_are_gunicorns_own_but_for_what_is_mended(name: str, base: type[Any]) -> None:
    worker = worker_of(name, LIMITS)

    assert issubclass(worker, base)
    assert worker.handle_error is not base.handle_error


def test_the_arbiter_is_told_now_and_then_that_a_worker_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    monkeypatch.setattr(GunicornThreads, "notify", lambda self: told.append(time.monotonic()))
    worker: Any = object.__new__(worker_of("gthread", LIMITS))
    worker._notifies_at = 0.0

    for _ in range(100):
        worker.notify()
    worker._notifies_at = 0.0
    worker.notify()

    assert len(told) == 2

"""Requests that come whole get from the loop what they would get from a thread, and what becomes of connections."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask

from service.core.errors import Overloaded
from service.entrypoints.flask_app import Direct, create_app, create_blueprint
from service.entrypoints.gunicorn_whole import WholeRequests
from service.entrypoints.gunicorn_workers import ThreadWorker
from service.entrypoints.turns import LONG_BYTES, Turns
from service.scheduling.lane import Lane
from service.scheduling.routing import Router
from service.settings import Settings
from tests.conformance.servers import eventually
from tests.service.entrypoints.gunicorn_loop import Caller, Server
from tests.service.entrypoints.slow import SlowTandem
from tests.service.entrypoints.test_uvicorn_whole import LONG, ROWS, WHOLE, get, long_post, post


@contextmanager
def ready(models: Path, **settings: Any) -> Iterator[tuple[Server, Flask]]:
    app = create_app(Settings(models=models, **settings))
    tandem = app.extensions["tandem"].tandem
    with ExitStack() as resources:
        resources.callback(tandem.stop)
        eventually(tandem.server.is_ready, "the models")
        yield Server(app, resources), app


@pytest.mark.parametrize("request_", [*WHOLE, *LONG, pytest.param(post() + post(), id="two requests")])
def test_the_loop_answers_as_a_thread_would(models: Path, monkeypatch: pytest.MonkeyPatch, request_: bytes) -> None:
    goes_long = not any(case.values[0] is request_ for case in WHOLE)
    with ready(models, max_body_bytes=1024) as (server, _):
        answer = server.ask(request_)
        assert bool(server.on_threads) == (goes_long and b"malformed" not in request_)
        monkeypatch.setattr(WholeRequests, "take", lambda self, conn: False)
        by_a_thread = server.ask(request_)

    assert answer == by_a_thread
    assert answer[0].startswith(b"HTTP/1.")


def test_requests_of_one_connection_are_answered_one_after_another(models: Path) -> None:
    with ready(models) as (server, _):
        caller = server.connect()
        for number in range(5):
            caller.send(post(X_Request_Id=str(number)))
            server.until(lambda: caller.has_answer(number + 1))  # noqa: B023

    assert re.findall(rb"x-request-id: (\d)", caller.received) == [b"0", b"1", b"2", b"3", b"4"]
    assert server.on_threads == 0


def test_a_body_may_come_in_pieces(models: Path) -> None:
    with ready(models) as (server, _):
        whole = server.ask(post())
        in_pieces = server.ask(post()[:20], post()[20:-5], post()[-5:])

    assert in_pieces == whole
    assert server.on_threads == 0


def test_short_requests_of_one_turn_are_computed_together(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together: list[int] = []
    compute = Lane._together

    def counted(lane: Any, batch: list[Any]) -> Any:
        together.append(len(batch))
        return compute(lane, batch)

    monkeypatch.setattr(Lane, "_together", counted)
    monkeypatch.setattr(Router, "seconds", lambda *_: 0.0)
    with ready(models) as (server, _):
        callers = [server.connect() for _ in range(10)]
        for _ in range(20):
            server.turn(0.01)
        for caller in callers:
            caller.send(post(body=ROWS))
        server.until(lambda: all(caller.has_answer() for caller in callers))

    assert sum(together) == 10
    assert len(together) < 10


def test_health_is_asked_between_long_requests(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.entrypoints.gunicorn_whole.Turns", lambda here: Turns(here, turn_s=0))
    with ready(models) as (server, _):
        long_ones = [server.connect() for _ in range(20)]
        health = server.connect()
        server.turn(0.05)
        for caller in long_ones:
            caller.send(long_post())
        health.send(get("/health/live"))
        server.until(health.has_answer)
        answered = sum(caller.has_answer() for caller in long_ones)
        server.until(lambda: all(caller.has_answer() for caller in long_ones))

    assert health.received.startswith(b"HTTP/1.1 200 ")
    assert answered < 20
    assert all(caller.received.startswith(b"HTTP/1.1 200 ") for caller in long_ones)
    assert len(long_post()) > LONG_BYTES


def test_hooks_see_all_requests(models: Path) -> None:
    with ready(models) as (server, app):

        @app.after_request
        def see(reply: Any) -> Any:
            reply.headers["x-seen"] = "yes"
            return reply

        answer, _ = server.ask(post())

    assert b"x-seen: yes" in answer
    assert server.on_threads == 1


def test_a_service_that_drains_ends_the_connection_with_the_answer(models: Path) -> None:
    with ready(models) as (server, app):
        app.extensions["tandem"].tandem.api.is_closing = True
        answer, is_ended = server.ask(post())

    assert b"\r\nConnection: close\r\n" in answer
    assert is_ended


@pytest.mark.parametrize("reason", ["ends", "keeps enough"])
def test_a_worker_says_that_it_does_not_keep_the_connection(models: Path, reason: str) -> None:
    with ready(models) as (server, _):
        if reason == "ends":
            server.worker.alive = False
        else:
            server.worker.max_keepalived = 0
        answer, is_ended = server.ask(post())

    assert b"\r\nConnection: close\r\n" in answer
    assert is_ended


def test_what_needs_room_is_turned_away_without_a_thread(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise Overloaded("full", 3)

    with ready(models) as (server, app):
        monkeypatch.setattr(app.extensions["tandem"].tandem.api, "_require_room", full)
        answer, is_ended = server.ask(post())

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 3\r\n" in answer
    assert (server.on_threads, is_ended) == (0, False)


def test_a_call_of_the_loop_that_fails_keeps_nobody_else_from_theirs(
    models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ready(models) as (server, _):
        server.worker._whole.call_soon(lambda: 1 // 0)
        answer, _ = server.ask(get("/health/live"))

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert "a call of the loop failed" in caplog.text


# Answers that take longer.


@pytest.fixture
def slow(request: pytest.FixtureRequest) -> Iterator[tuple[Server, SlowTandem]]:
    """A service whose one model answers when the test says so."""
    tandem: Any = SlowTandem(timeout_s=getattr(request, "param", 60))
    app = Flask("slow")
    app.register_blueprint(create_blueprint(tandem))
    app.extensions["tandem"] = SimpleNamespace(tandem=tandem)
    app.wsgi_app = Direct(app, tandem)  # type: ignore[method-assign]
    with ExitStack() as resources:
        resources.callback(tandem.answer_at_last)
        yield Server(app, resources), tandem


def slow_post() -> bytes:
    return post("/predict")


def ask_slowly(slow: tuple[Server, SlowTandem]) -> Caller:
    """A caller whose request waits for the model."""
    server, tandem = slow
    caller = server.connect()
    caller.send(slow_post())
    server.until(tandem.server.asked.is_set)
    for _ in range(3):
        server.turn(0.01)
    return caller


def test_an_answer_is_written_when_it_comes(slow: tuple[Server, SlowTandem]) -> None:
    server, tandem = slow
    caller = ask_slowly(slow)
    assert not caller.has_answer()

    threading.Thread(target=tandem.answer_at_last).start()
    server.until(caller.has_answer)
    caller.send(get("/health/live"))
    server.until(lambda: caller.has_answer(2))

    assert caller.received.startswith(b"HTTP/1.1 500 ")  # which is what the slow model says
    assert [status for _, status in tandem.recorded] == [500, 200]
    assert server.on_threads == 0


def test_answers_that_come_together_are_brought_by_one_call(slow: tuple[Server, SlowTandem]) -> None:
    server, tandem = slow
    callers = [ask_slowly(slow) for _ in range(5)]
    calls: list[Any] = []
    defer = server.worker.method_queue.defer
    server.worker.method_queue.defer = lambda *call: (calls.append(call), defer(*call))

    tandem.answer_at_last()
    server.until(lambda: all(caller.has_answer() for caller in callers))

    assert len(calls) == 1


def test_what_comes_behind_a_request_that_waits_waits_for_it(slow: tuple[Server, SlowTandem]) -> None:
    server, tandem = slow
    caller = ask_slowly(slow)

    caller.send(get("/health/live", X_Request_Id="second"))
    for _ in range(3):
        server.turn(0.01)
    assert not caller.has_answer()
    tandem.answer_at_last()
    server.until(lambda: caller.has_answer(2))

    assert re.findall(rb"HTTP/1.1 (\d+)", caller.received) == [b"500", b"200"]


@pytest.mark.parametrize("how", ["close", "shut down"])
def test_a_caller_who_leaves_takes_the_work_along(slow: tuple[Server, SlowTandem], how: str) -> None:
    server, tandem = slow
    caller = ask_slowly(slow)

    if how == "close":
        caller.connection.close()
    else:
        caller.connection.shutdown(socket.SHUT_WR)
    server.until(lambda: bool(tandem.recorded))

    assert [status for _, status in tandem.recorded] == [499]
    assert tandem.server.deadlines[0].is_cancelled
    tandem.answer_at_last()
    for _ in range(3):
        server.turn(0.01)
    assert server.worker.nr_conns == 0


def test_a_long_request_whose_caller_has_left_is_not_computed(
    slow: tuple[Server, SlowTandem], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, tandem = slow
    tandem.api.max_body_bytes = 2 * LONG_BYTES
    waiting: list[Any] = []
    caller = server.connect()
    monkeypatch.setattr(server.worker._whole._whole.turns, "add", waiting.append)
    caller.send(post("/predict", body=b" " * (LONG_BYTES + 1)))
    server.until(lambda: bool(waiting))
    caller.connection.close()
    server.turn(0.01)

    waiting[0]()

    assert not tandem.server.asked.is_set()
    assert [status for _, status in tandem.recorded] == [499]
    assert server.worker.nr_conns == 0


@pytest.mark.parametrize("first", ["the answer", "the caller"])
def test_a_caller_who_leaves_in_the_turn_that_brings_the_answer(slow: tuple[Server, SlowTandem], first: str) -> None:
    server, tandem = slow
    caller = ask_slowly(slow)
    other = server.connect()
    server.turn(0.05)
    caller.connection.close()
    tandem.answer_at_last()
    queue = server.worker.method_queue.fileno()
    server.in_order(lambda key: (key.fileobj == queue) != (first == "the answer"))

    server.turn(0.05)
    server.turn(0.05)
    other.send(get("/health/live"))
    server.until(other.has_answer)

    assert [status for _, status in tandem.recorded] == [500, 200]
    assert server.worker.nr_conns == 1


@pytest.mark.parametrize("slow", [0.05], indirect=True)
def test_past_its_deadline_a_request_gets_504(slow: tuple[Server, SlowTandem]) -> None:
    server, tandem = slow
    caller = ask_slowly(slow)

    server.until(caller.has_answer)
    tandem.answer_at_last()
    caller.send(get("/health/live"))
    server.until(lambda: caller.has_answer(2))

    assert re.findall(rb"HTTP/1.1 (\d+)", caller.received) == [b"504", b"200"]


def test_the_loop_wakes_up_for_a_deadline(slow: tuple[Server, SlowTandem]) -> None:
    server, tandem = slow
    first, second = server.connect(), server.connect()
    first.send(post("/predict", X_Request_Timeout_Ms="150"))
    second.send(post("/predict", X_Request_Timeout_Ms="60000"))
    server.until(lambda: len(tandem.server.deadlines) == 2)
    server.turn(0.01)

    assert 0 < server.worker._whole.wait_s(1.0) < 0.15
    server.turn(1.0)
    server.turn()

    assert first.has_answer() and not second.has_answer()
    assert server.worker._whole.wait_s(1.0) == 1.0


@pytest.mark.parametrize("has_asked", [False, True])
def test_a_connection_that_makes_room_in_the_turn_in_which_it_speaks(models: Path, has_asked: bool) -> None:
    with ready(models) as (server, _):
        server.worker.limits = replace(server.worker.limits, max_connections=1)
        silent = server.connect()
        server.turn(0.05)
        if has_asked:
            silent.send(get("/health/live"))
            server.until(silent.has_answer)
        server.in_order(lambda key: key.fileobj is not server.listener)
        silent.send(get("/health/live"))
        newer = server.connect()
        server.turn(0.05)
        newer.send(get("/health/live"))
        server.until(newer.has_answer)

        assert newer.received.startswith(b"HTTP/1.1 200 ")
        assert server.worker.nr_conns == 1


# Answers that are not taken at once.


class Slowly:
    """A connection that takes so many bytes of the next answer at once."""

    def __init__(self, sock: socket.socket, takes: int | type[OSError]) -> None:
        self._sock = sock
        self._takes = takes

    def send(self, data: bytes) -> int:
        if not isinstance(self._takes, int):
            raise self._takes
        return self._sock.send(data[: self._takes])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@pytest.mark.parametrize("takes", [0, 100, BlockingIOError])
def test_what_is_left_is_written_by_a_thread(
    models: Path, monkeypatch: pytest.MonkeyPatch, takes: int | type[OSError]
) -> None:
    with ready(models) as (server, _):
        expected = server.ask(post())
        write = ThreadWorker.write

        def slowly(worker: Any, conn: Any, answer: bytes, *, keep_alive: bool) -> None:
            sock, conn.sock = conn.sock, Slowly(conn.sock, takes)
            write(worker, conn, answer, keep_alive=keep_alive)
            conn.sock = sock

        monkeypatch.setattr(ThreadWorker, "write", slowly)

        assert server.ask(post()) == expected


def test_a_caller_who_is_gone_when_the_answer_is_written(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ready(models) as (server, _):
        write = ThreadWorker.write

        def broken(worker: Any, conn: Any, answer: bytes, *, keep_alive: bool) -> None:
            sock, conn.sock = conn.sock, Slowly(conn.sock, BrokenPipeError)
            write(worker, conn, answer, keep_alive=keep_alive)
            sock.close()

        monkeypatch.setattr(ThreadWorker, "write", broken)

        assert server.ask(post())[1]
        assert server.worker.nr_conns == 0

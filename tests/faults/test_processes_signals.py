"""Section W: what happens to requests when processes are told to end, or are ended."""

from __future__ import annotations

import http.client
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

import httpx
import numpy as np
import orjson
import pytest

from benchmarks.restarts import Load, connections_of, export_model, wait_for_workers
from service.entrypoints.listener import listen
from tests.conformance.gate import Gate, waiting
from tests.conformance.servers import CLIENT, SERVERS, UNTRIED, Running, eventually, tandem_serve
from tests.faults.cases import Came, fault
from training.export import export

X: Final = np.random.RandomState(0).normal(size=(20, 2))
# Time enough for a busy machine to see the drain, and to stop within it.
DRAIN: Final = {"TANDEM_DRAIN_S": "1.5"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    export_model(folder)
    return folder


@pytest.fixture(scope="module")
def with_workers(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Running]]:
    """A service with two workers, by name of the web server; a new one where a test has killed it."""
    found: dict[str, Running] = {}
    logs = tmp_path_factory.mktemp("logs")
    with ExitStack() as stack:

        def get(front: str) -> Running:
            if front not in found or found[front].process.poll() is not None:
                arguments = (*SERVERS[front], "--models", str(models), "--workers", "2")
                serving = tandem_serve(*arguments, log=logs / front, ends_with=None)
                found[front] = stack.enter_context(serving)
            return found[front]

        yield get


def status(service: Running, path: str) -> int | None:
    """None where nobody answers."""
    try:
        return CLIENT.get(f"{service.url}{path}", timeout=20).status_code
    except httpx.TransportError:
        return None


# -- the end of a service --------------------------------------------------------------------------


@pytest.mark.parametrize("front", SERVERS)
@fault("W01", sent="SIGTERM under load", expected="ready 503, live and predict 200, nothing lost, then exit 0")
def test_sigterm_under_load_loses_no_request(front: str, models: Path, tmp_path: Path, came: Came) -> None:
    arguments = (*SERVERS[front], "--models", str(models))
    with tandem_serve(*arguments, log=tmp_path / "log", environment=DRAIN) as service, Load(service.port, 4) as load:
        load.wait_for(50)

        service.terminate()
        eventually(lambda: status(service, "/health/ready") == 503, "a service that says it is not ready")
        live, before = status(service, "/health/live"), load.seen.answered
        eventually(lambda: load.seen.answered > before, "answers during the drain")
        exit_code = service.exit_code()

    came(f"{load.seen.answered} answered", f"{len(load.seen.lost)} lost", f"live {live}", f"exit {exit_code}")
    assert (load.seen.lost, load.seen.wrong) == ([], [])
    assert (live, exit_code) == (200, 0)


@pytest.mark.parametrize("front", SERVERS)
@fault("W03", sent="SIGTERM, and a request that never ends", expected="503 or a closed connection; the process ends")
def test_what_outlives_the_time_of_grace_is_given_up(front: str, tmp_path: Path, came: Came) -> None:
    with stuck(front, tmp_path, {"TANDEM_GRACE_S": "2"}) as (service, asked):
        service.terminate()
        service.exit_code()
        outcome = asked.result(60)

    came(outcome)
    assert outcome in (503, None)


@pytest.mark.parametrize("front", SERVERS)
@fault("W03", sent="SIGTERM, and a stream of rows that goes on", expected="503 as its last item, or closed")
def test_stream_of_rows_that_outlives_the_time_of_grace_is_given_up(
    front: str, models: Path, tmp_path: Path, came: Came
) -> None:
    environment = {"TANDEM_GRACE_S": "1", "TANDEM_DRAIN_S": "0"}
    arguments = (*SERVERS[front], "--models", str(models))
    rows = b'{"x":1}\n' * 40_000  # more than a WSGI server waits for
    with (
        tandem_serve(*arguments, log=tmp_path / "log", environment=environment, ends_with=None) as service,
        closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)) as connection,
    ):
        connection.putrequest("POST", "/models/echo/predict/stream")
        connection.putheader("Content-Type", "application/x-ndjson")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders(b"%x\r\n%s\r\n" % (len(rows), rows))
        answer = connection.getresponse()
        first = answer.readline()

        service.terminate()
        try:
            outcome = orjson.loads(answer.read().splitlines()[-1])["error"]["status"]
        except (http.client.IncompleteRead, ConnectionResetError):
            outcome = None
        service.exit_code()

    came(first, outcome)
    assert first == b'{"prediction":1.0}\n'
    assert outcome == (503 if front == "uvicorn" else None)  # the others are killed


@pytest.mark.parametrize("front", SERVERS)
@fault("W02", sent="SIGTERM twice during a request that never ends", expected="the process ends long before its grace")
def test_a_second_signal_gives_up_at_once(front: str, tmp_path: Path, came: Came) -> None:
    with stuck(front, tmp_path, {"TANDEM_GRACE_S": "600", "TANDEM_DRAIN_S": "300"}) as (service, asked):
        service.terminate()
        eventually(lambda: status(service, "/health/ready") == 503, "the drain to begin")
        service.terminate()
        service.exit_code()
        outcome = asked.result(60)

    came(outcome)
    assert outcome in (503, None)


@contextmanager
def stuck(front: str, folder: Path, environment: dict[str, str]) -> Iterator[tuple[Running, Future[int | None]]]:
    """A service that computes what never ends, and what becomes of the request: its status, or None for a close."""
    export(Gate(str(folder)).fit(X), X, name="gate", repository=folder / "models")
    arguments = (*SERVERS[front], "--models", str(folder / "models"), "--trust", "tests.conformance.gate.Gate")
    with (
        tandem_serve(*arguments, log=folder / "log", environment={**environment, **UNTRIED}, ends_with=None) as service,
        ThreadPoolExecutor(1) as callers,
    ):
        (folder / "closed").touch()
        asked = callers.submit(ask_gate, service)
        eventually(lambda: waiting(folder) == 1, "the request to be under way")
        yield service, asked


def ask_gate(service: Running) -> int | None:
    try:
        row = {"x0": 1.0, "x1": 1.0}
        return CLIENT.post(f"{service.url}/models/gate/predict", json=row, timeout=90).status_code
    except httpx.TransportError:
        return None


# -- the end of a worker, and of its supervisor ------------------------------------------------------


@pytest.mark.parametrize("front", SERVERS)
@fault("W06", "W22", sent="SIGHUP under load", expected="every worker is another one, nothing lost")
def test_workers_are_replaced_without_a_failed_request(
    front: str, with_workers: Callable[[str], Running], came: Came
) -> None:
    service = with_workers(front)
    before = wait_for_workers(service.process.pid, service.port, 2)

    with Load(service.port, 4) as load:
        load.wait_for(50)
        service.process.send_signal(signal.SIGHUP)
        eventually(lambda: not any(is_there(pid) for pid in before), "the old workers to go")
        load.wait_for(50)

    came(f"{load.seen.answered} answered", f"{len(load.seen.lost)} lost")
    assert (load.seen.lost, load.seen.wrong) == ([], [])


@pytest.mark.parametrize("front", SERVERS)
@fault("W04", sent="SIGKILL of a worker under load", expected="only what was in it is lost; another takes its place")
def test_a_killed_worker_takes_only_its_own_requests_along(
    front: str, with_workers: Callable[[str], Running], came: Came
) -> None:
    service = with_workers(front)
    victim = wait_for_workers(service.process.pid, service.port, 2)[0]

    with Load(service.port, 4) as load:
        load.wait_for(50)
        os.kill(victim, signal.SIGSTOP)  # it accepts nobody while we look whom it has
        inside = connections_of(victim, service.port)
        os.kill(victim, signal.SIGKILL)
        wait_for_workers(service.process.pid, service.port, 2, without=victim)
        load.wait_for(50)

    came(f"{load.seen.answered} answered", f"{len(load.seen.lost)} lost, all inside")
    assert [told for port, told in load.seen.lost if port not in inside] == []
    assert load.seen.wrong == []


@fault("W08", sent="SIGSTOP of a worker", expected="the others answer; it is replaced")
@pytest.mark.front("uvicorn")
def test_a_worker_that_hangs_is_replaced(with_workers: Callable[[str], Running], came: Came) -> None:
    service = with_workers("uvicorn")
    victim = wait_for_workers(service.process.pid, service.port, 2)[0]

    os.kill(victim, signal.SIGSTOP)
    during = status(service, "/health/live")
    eventually(lambda: not is_there(victim), "the worker that hangs to be killed")
    wait_for_workers(service.process.pid, service.port, 2, without=victim)

    came(f"meanwhile {during}", "replaced")
    assert during == 200


@pytest.mark.parametrize("front", SERVERS)
@fault("W05", sent="SIGKILL of the supervisor", expected="its workers end, the port is free")
def test_workers_do_not_outlive_their_supervisor(
    front: str, with_workers: Callable[[str], Running], came: Came
) -> None:
    service = with_workers(front)
    workers = wait_for_workers(service.process.pid, service.port, 2)

    service.process.kill()
    service.process.wait()
    eventually(lambda: not any(is_there(pid) for pid in workers), "the workers to end")
    eventually(lambda: can_listen(service.port), "the port to be free")

    came("no process, and the port can be taken")


def can_listen(port: int) -> bool:
    try:
        listen("127.0.0.1", port).close()
    except OSError:
        return False
    return True


def is_there(pid: int) -> bool:
    """Whether the process still runs; one that nobody has buried does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # it went before, or while, we looked
        return False
    return state not in "ZX"

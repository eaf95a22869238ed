"""Section W: what the machine runs out of, or does not have."""

from __future__ import annotations

import ast
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import httpx
import numpy as np
import pytest

from benchmarks.processes import cpu_seconds
from benchmarks.restarts import export_model, wait_for_workers
from tests.conformance.servers import CLIENT, SERVERS, TANDEM, UNTRIED, Running, eventually, running, tandem_serve
from tests.faults.cases import Came, fault
from tests.faults.deadly import POISON, Deadly
from training.export import export

SERVICE: Final = Path(__file__).parents[2] / "service"
X: Final = np.random.RandomState(0).normal(size=(20, 2))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    export_model(folder)
    return folder


@contextmanager
def serve_in_shell(script: str, front: str, models: Path, log: Path) -> Iterator[Running]:
    """`tandem serve` as the script runs it, which ends with `exec "$@"`."""

    def command(port: int) -> tuple[str, ...]:
        arguments = (*SERVERS[front], "--models", str(models), "--port", str(port), "--log-format", "json")
        return ("bash", "-c", script, "-", *TANDEM, "serve", *arguments)

    with running(command, log=log) as service:
        yield service


def predict(service: Running, number: float = 1.0) -> int:
    response = CLIENT.post(f"{service.url}/predict", json={"x": number})
    assert response.status_code != 200 or response.json()["prediction"] == number
    return response.status_code


# -- files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("front", SERVERS)
@fault("W07", "W12", sent="100 connections and 64 open files", expected="no spin, no exit; then everybody is answered")
def test_a_process_out_of_files_waits_and_recovers(front: str, models: Path, tmp_path: Path, came: Came) -> None:
    with serve_in_shell('ulimit -n 64; exec "$@"', front, models, tmp_path / "log") as service:
        with ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=60))
            before, began = cpu_seconds(service.process.pid), time.monotonic()
            time.sleep(1.0)
            assert before is not None
            busy = (cpu_seconds(service.process.pid) or 0) - before
            lasted = time.monotonic() - began

        live = CLIENT.get(f"{service.url}/health/live").status_code
        status = predict(service)

    came(f"{100 * busy / lasted:.0f} % of a core", f"live {live}", status)
    assert busy < 0.5 * lasted
    assert (live, status) == (200, 200)


# -- logs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("front", SERVERS)
@fault("W15", sent="a log that nobody reads, then one whose reader has gone", expected="every request is answered")
def test_nobody_waits_for_a_reader_of_the_log(front: str, models: Path, tmp_path: Path, came: Came) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with (
        serve_in_shell(f'exec "$@" 2>{shlex.quote(str(fifo))}', front, models, tmp_path / "log") as service,
        httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client,
    ):
        # A pipe holds 64 KiB, and a line has some 200 bytes.
        stuck = {client.get("/health/live").status_code for _ in range(500)}
        held = len(os.read(reader, 1 << 20))
        os.close(reader)
        gone = {client.get("/health/live").status_code for _ in range(20)}

    came(f"stuck at {held} bytes: {stuck}", f"gone: {gone}")
    assert held > 60_000
    assert stuck == gone == {200}


@fault("W14", sent="a log on a device without space", expected="every request is answered")
@pytest.mark.front("uvicorn")
def test_a_full_disk_for_logs_fails_no_request(models: Path, tmp_path: Path, came: Came) -> None:
    with serve_in_shell('exec "$@" 2>/dev/full', "uvicorn", models, tmp_path / "log") as service:
        status = predict(service)

    came(status)
    assert status == 200


# -- what is not there -------------------------------------------------------------------------------

# Of mounts of its own everything is read-only but /dev/shm, as in a container; there is no home and nowhere to be.
READ_ONLY: Final = "mount -o remount,ro,bind / && cd / && ! touch /tmp/x && unset HOME TMPDIR && "


def may_have_own_mounts() -> bool:
    tried = subprocess.run(["unshare", "-r", "-m", "mount", "-o", "remount,ro,bind", "/"], capture_output=True)
    return tried.returncode == 0


@pytest.mark.parametrize("front", SERVERS)
@fault("W16", sent="a read-only root, no HOME, no /tmp that takes anything", expected="starts and answers")
def test_a_read_only_machine_is_enough(front: str, models: Path, tmp_path: Path, came: Came) -> None:
    if not may_have_own_mounts():
        pytest.skip("this user may not have mounts of its own here (unshare -r -m)")
    root = shlex.quote(str(SERVICE.parent))
    script = f'exec unshare -r -m bash -c \'{READ_ONLY} export PYTHONPATH="$0"; exec "$@"\' {root} "$@"'

    with serve_in_shell(script, front, models, tmp_path / "log") as service:
        status = predict(service)

    came(status)
    assert status == 200


@fault("W23", sent="SIGTERM to process 1", expected="exit 0")
@pytest.mark.parametrize("front", SERVERS)
def test_process_one_ends_when_it_is_told(front: str, models: Path, tmp_path: Path, came: Came) -> None:
    if subprocess.run(["unshare", "-r", "-p", "-f", "true"], capture_output=True).returncode != 0:
        pytest.skip("this user may not have processes of its own here (unshare -r -p)")
    # The signal comes from outside, where it has another number; unshare hands none on.
    script = "unshare -r -p -f \"$@\" & trap 'kill -TERM $(cat /proc/$!/task/$!/children)' TERM; wait; wait $!"

    with serve_in_shell(script, front, models, tmp_path / "log") as service:
        status = predict(service)
        service.terminate()
        exit_code = service.exit_code()

    came(status, f"exit {exit_code}")
    assert (status, exit_code) == (200, 0)


# -- memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("front", SERVERS)
@fault("W11", sent="a request that gets its worker killed, as by lack of memory", expected="not asked again; recovers")
def test_a_request_that_kills_its_worker_is_not_replayed(front: str, tmp_path: Path, came: Came) -> None:
    export(Deadly(str(tmp_path)).fit(X), X, name="deadly", repository=tmp_path / "models")
    arguments = (*SERVERS[front], "--models", str(tmp_path / "models"), "--trust", "tests.faults.deadly.Deadly")
    with tandem_serve(*arguments, "--workers", "2", log=tmp_path / "log", environment=UNTRIED) as service:
        wait_for_workers(service.process.pid, service.port, 2)
        eventually(lambda: answered(service, 10), "both workers to have loaded")

        with pytest.raises(httpx.TransportError):
            CLIENT.post(f"{service.url}/predict", json={"x0": POISON, "x1": 0.0})
        answers = eventually(lambda: answered(service, 10), "ten answers in a row")
        killed = [int(path.name.removeprefix("killed-")) for path in tmp_path.glob("killed-*")]
        wait_for_workers(service.process.pid, service.port, 2, without=killed[0])
        is_supervised = service.process.poll() is None

    came("closed", f"asked {len(killed)} time", f"then {answers} answers")
    assert (len(killed), is_supervised) == (1, True)


def answered(service: Running, times: int) -> int | None:
    for _ in range(times):
        try:
            reply = CLIENT.post(f"{service.url}/predict", json={"x0": 1.0, "x1": 1.0})
        except httpx.TransportError:
            return None
        if reply.status_code != 200:
            return None
    return times


# -- clocks ------------------------------------------------------------------------------------------

# What asks what time of day it is, and why; whatever waits or measures asks a clock that does not jump.
TELLS_THE_TIME: Final = {
    "guards/guard.py": "when a token expires",
    "guards/store.py": "when a key expires",
    "observability/logs.py": "when a line was written",
    "repository/manifest.py": "when a version was exported",
    "runtimes/device_process.py": "how old a left-over folder is, by the clock of the file system",
}


@fault("W17", sent="a clock that jumps", expected="nothing that waits or measures looks at it")
def test_only_what_tells_the_time_of_day_asks_for_it(came: Came) -> None:
    asking = {
        path.relative_to(SERVICE).as_posix()
        for path in SERVICE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if is_wall_clock(node)
    }

    came(", ".join(sorted(asking)))
    assert asking <= set(TELLS_THE_TIME)


def is_wall_clock(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node) in {
        "time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "time.localtime", "time.gmtime", "date.today",
    }  # fmt: skip


@pytest.mark.parametrize("source", ["time.time()", "datetime.now(UTC)"])
def test_the_search_for_clocks_finds_one(source: str) -> None:
    assert any(is_wall_clock(node) for node in ast.walk(ast.parse(source)))

"""All of it for real, without a GPU: the process hosts engines of the CPU that crash, hang and run out of memory."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from service.core.contracts import Engine
from service.core.table import Matrix
from service.runtimes import device_process
from service.runtimes.breaker import Breaker
from service.runtimes.device_errors import DeviceUnavailable
from service.runtimes.device_process import DeviceProcess, Phase, remove_leftovers
from service.runtimes.remote import DeviceClient, RemoteEngine
from service.runtimes.spawn import environment
from tests.faults.cases import fault
from tests.service.hosted_engines import DIE, HANG, HANG_WITH_LOCK, POISON

_OPENER: Final = "tests.service.hosted_engines:open_engine"
_PATIENCE_S: Final = 30.0

Start = Callable[..., DeviceProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[DeviceProcess] = []

    def make(**options: Any) -> DeviceProcess:
        process = DeviceProcess(**{"opener": _OPENER, "first_pause_s": 0.0, **options})
        started.append(process)
        process.start()
        return process

    yield make
    for process in started:
        process.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[DeviceProcess]:
    """For tests that do it no harm, which they see from its restarts."""
    process = DeviceProcess(_OPENER)
    process.start()
    assert process.wait_until_ready(_PATIENCE_S)
    yield process
    assert process.status.restarts == 0
    process.close()


def _engine(process: DeviceProcess, **spec: Any) -> RemoteEngine:
    """Open, and eager to come back."""
    engine = RemoteEngine(DeviceClient(process.path), spec, breaker=Breaker(first_pause_s=0.0, longest_pause_s=0.05))
    engine.open()
    return engine


def _rows(first: float, n: int = 1) -> Matrix:
    values = np.ones((n, 2))
    values[0, 0] = first
    return Matrix(values)


def _doubled(engine: Engine, value: float, n: int = 1) -> bool:
    got = engine.run(_rows(value, n), ["predict"])["predict"]
    return isinstance(got, np.ndarray) and got.shape == (n, 2) and float(got[0, 0]) == 2 * value


def _answered_again(engine: RemoteEngine) -> bool:
    """Ask as a service would, which answers from the CPU in between, until the engine is back."""
    until = time.monotonic() + _PATIENCE_S
    pause = threading.Event()
    while time.monotonic() < until:
        try:
            return _doubled(engine, 3.0)
        except DeviceUnavailable:
            pause.wait(0.01)
    return False


def _fails_while_others_wait(engine: RemoteEngine, first: float) -> list[Future[bool]]:
    """Ask what ends the process, and then more, over one connection; all answers, when all are there."""
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(_doubled, engine, first)]
        asked += [threads.submit(_doubled, engine, 1.0, 30_000) for _ in range(7)]
    return asked


def _leaves_in_time(pid: int) -> bool:
    """Whether the process ends; it may be no child of ours."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(handle) as file:
        return bool(select.select([file], [], [], _PATIENCE_S)[0])


def test_engine_answers_from_a_process_of_its_own(shared: DeviceProcess) -> None:
    engine = _engine(shared)

    answers = engine.run(_rows(3.0), ["predict", "pid"])

    assert np.array_equal(answers["predict"], [[6.0, 2.0]])  # type: ignore[arg-type]
    assert np.array_equal(answers["pid"], [shared.status.pid])  # type: ignore[arg-type]
    assert shared.status.pid != os.getpid()


def test_socket_is_private(shared: DeviceProcess) -> None:
    modes = [path.stat().st_mode & 0o777 for path in (shared.path.parent, shared.path)]

    assert modes == [0o700, 0o600]


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n\r\n", b"TDM1\xff\xff\xff\xff\xff\xff\xff\xff", b"TDM1\x02\0\0\0\0\0\0\0{}"]
)
def test_garbage_ends_its_own_connection_only(shared: DeviceProcess, sent: bytes) -> None:
    engine = _engine(shared)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(_PATIENCE_S)
        stranger.connect(str(shared.path))

        stranger.sendall(sent)

        assert _is_hung_up(stranger)
    assert _doubled(engine, 3.0)


def _is_hung_up(connection: socket.socket) -> bool:
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


@fault("G02", sent="a batch that the device has no memory for", expected="in halves, or left to another engine")
@pytest.mark.parametrize(("n", "is_answered"), [(3, True), (6, True), (7, False)])
def test_batch_that_fits_in_halves_is_answered_and_a_larger_one_left_to_others(
    shared: DeviceProcess, n: int, is_answered: bool
) -> None:
    engine = _engine(shared, most_rows=3)

    try:
        answered = _doubled(engine, 1.0, n)
    except DeviceUnavailable:
        answered = False

    assert answered is is_answered


_CLIENT: Final = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from service.core.table import Matrix
from service.runtimes.remote import DeviceClient, RemoteEngine
engine = RemoteEngine(DeviceClient(Path(sys.argv[1])), {"opened": sys.argv[2], "merges": True})
engine.open()
def ask(value):
    rows = Matrix(np.full((1 + value % 3 * 5000, 2), float(value)))
    got = engine.run(rows, ["predict"])["predict"]
    return got.shape == rows.values.shape and bool((got == 2 * value).all())
with ThreadPoolExecutor(4) as threads:
    print("open", flush=True)
    sys.stdin.read()
    print(sum(threads.map(ask, range(200))))
"""


@fault("G07", sent="three processes that ask one engine", expected="each its own answers")
def test_processes_share_an_engine_and_each_gets_its_own_answers(shared: DeviceProcess, tmp_path: Path) -> None:
    log = tmp_path / "opened"
    line = [sys.executable, "-c", _CLIENT, str(shared.path), str(log)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment()}
    clients = [subprocess.Popen(line, **pipes) for _ in range(3)]
    for client in clients:
        assert client.stdout is not None and client.stdout.readline() == "open\n"

    counts = [client.communicate(timeout=_PATIENCE_S)[0] for client in clients]

    assert counts == ["200\n"] * 3
    assert log.read_text() == "opened\n"


@fault(
    "B12",
    "B13",
    "G03",
    sent="a call that kills its process, hangs, holds the interpreter lock, poisons CUDA",
    expected="others told at once; a new process answers",
)
@pytest.mark.parametrize(
    ("first", "options", "end"),
    [
        pytest.param(DIE, {}, "signal 9", id="killed"),
        pytest.param(HANG, {"call_limit_s": 0.5}, "call hung", id="hanging"),
        pytest.param(
            HANG_WITH_LOCK, {"hang_s": 2.5}, "it was killed: it said nothing for 2.5 s", id="hanging with the lock"
        ),
        pytest.param(POISON, {}, "sticky error", id="poisoned"),
    ],
)
def test_process_that_fails_is_replaced_and_nothing_is_lost(
    start: Start, first: float, options: dict[str, float], end: str
) -> None:
    process = start(**options)
    engine = _engine(process)
    before = process.status.pid

    asked = _fails_while_others_wait(engine, first)

    # Each one was answered, or told at once that somebody else must.
    assert "ended before it answered" in str(asked[0].exception())
    assert all(one.exception() is None or isinstance(one.exception(), DeviceUnavailable) for one in asked)
    assert process.wait_for_restart(1, _PATIENCE_S)
    # The parent's word and the kernel's come at the same time where both have noticed.
    assert process.status.last_end in (end, "signal 14" if first == HANG_WITH_LOCK else end)
    assert process.status.pid != before
    assert _answered_again(engine)


def test_process_that_is_stopped_is_killed(start: Start) -> None:
    process = start(hang_s=2.5)
    assert process.wait_until_ready(_PATIENCE_S)
    assert process.status.pid is not None

    os.kill(process.status.pid, signal.SIGSTOP)

    assert process.wait_for_restart(1, _PATIENCE_S)
    assert process.status.last_end == "it was killed: it said nothing for 2.5 s"


def test_engine_comes_back_only_after_its_golden_rows_agree(start: Start) -> None:
    process = start()
    checked = threading.Semaphore(0)

    def check(engine: Engine) -> None:
        assert _doubled(engine, 5.0)
        checked.release()

    engine = RemoteEngine(DeviceClient(process.path), {}, check, breaker=Breaker(first_pause_s=0.0))
    engine.open()
    assert process.status.pid is not None
    os.kill(process.status.pid, signal.SIGKILL)

    assert _answered_again(engine)

    assert checked.acquire(blocking=False) and checked.acquire(blocking=False)


@fault("B13", sent="a process that cannot start", expected="tried again, with pauses; told meanwhile")
def test_process_that_cannot_start_is_tried_again_and_again(start: Start) -> None:
    process = start(opener="tests.service.hosted_engines:no_such_opener")

    with process._changed:
        tried = process._changed.wait_for(lambda: process.status.restarts >= 2, _PATIENCE_S)

    assert tried
    assert process.status.last_end == "exit status 1"


def test_one_that_never_gets_ready_is_killed(start: Start) -> None:
    process = start(opener="tests.service.hosted_engines:open_engine", start_limit_s=0.01)

    with process._changed:
        tried = process._changed.wait_for(lambda: process.status.restarts >= 1, _PATIENCE_S)

    assert tried
    assert process.status.last_end in ("it was killed: it said nothing for 0.01 s", "signal 14")


def test_closing_leaves_nothing(start: Start) -> None:
    process = start()
    assert process.wait_until_ready(_PATIENCE_S)
    engine = _engine(process)
    assert _doubled(engine, 1.0, 30_000)
    pid = process.status.pid
    assert pid is not None

    process.close()

    assert _leaves_in_time(pid)
    assert not process.path.parent.exists()
    assert process.status.phase is Phase.STOPPED
    with pytest.raises(DeviceUnavailable):
        engine.run(_rows(1.0), ["predict"])


def test_forked_worker_does_not_end_the_process_of_its_parent(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start()
    engine = _engine(process)
    with monkeypatch.context() as forked:
        forked.setattr(device_process.os, "getpid", lambda: 1)

        process.close()

    assert _doubled(engine, 1.0)


_PARENT: Final = """
import sys, time
from service.runtimes.device_process import DeviceProcess
process = DeviceProcess(sys.argv[1], hang_s=2.5)
process.start()
assert process.wait_until_ready(30)
print(process.status.pid, process.path, flush=True)
time.sleep(600)
"""


@pytest.fixture
def orphan() -> Iterator[tuple[subprocess.Popen[str], int, Path]]:
    """A parent in a process of its own, the process that it started, and its socket."""
    line = [sys.executable, "-c", _PARENT, _OPENER]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment()) as parent:
        assert parent.stdout is not None
        pid, path = parent.stdout.readline().split()
        yield parent, int(pid), Path(path)
        parent.kill()


def test_process_ends_with_a_parent_that_was_killed(orphan: tuple[subprocess.Popen[str], int, Path]) -> None:
    parent, pid, path = orphan

    parent.kill()

    assert _leaves_in_time(pid)
    assert not path.parent.exists()


def test_process_that_hangs_ends_without_its_parent_too(
    orphan: tuple[subprocess.Popen[str], int, Path], tmp_path: Path
) -> None:
    parent, pid, path = orphan
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    engine = RemoteEngine(DeviceClient(path), {"begun": str(begun)})
    engine.open()
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(_doubled, engine, HANG_WITH_LOCK)
        assert begun.read_text() == "begun\n"

        parent.kill()

        assert _leaves_in_time(pid)
    assert isinstance(asked.exception(), DeviceUnavailable)
    with contextlib.suppress(FileNotFoundError):  # a service that started meanwhile was first
        os.utime(path.parent, (0, 0))
    remove_leftovers()  # of any service that starts later
    assert not path.parent.exists()


def test_folders_of_living_services_are_left_alone(shared: DeviceProcess) -> None:
    os.utime(shared.path.parent, (0, 0))

    remove_leftovers()

    assert shared.path.exists()


def test_long_temporary_folders_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(long))

    process = DeviceProcess(_OPENER)

    assert str(process.path).startswith("/tmp/")
    process.close()

"""The web servers as people start them: processes on loopback, ended with SIGTERM.

Whatever happens in a test, `running` leaves no process behind: the server leads a process
group of its own, and the group is killed on the way out. A free port is one the kernel just
gave out and took back; somebody may take it in between, so the start is tried again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import httpx

T = TypeVar("T")

TANDEM: Final = (sys.executable, "-c", "from training.cli import main; main()")

# Every way of serving that answers alike: by name, what `tandem serve` is told.
SERVERS: Final[Mapping[str, tuple[str, ...]]] = {
    "uvicorn": ("--framework", "fastapi"),
    "granian": ("--framework", "flask", "--server", "granian"),
    "gunicorn": ("--framework", "flask", "--server", "gunicorn"),
}

# Asks over a new connection each time. One client for all, because each costs 35 ms to make.
CLIENT: Final = httpx.Client(trust_env=False, timeout=60, limits=httpx.Limits(max_keepalive_connections=0))

# A model of a test's own need not be tried out in a child first: that takes seconds.
UNTRIED: Final = {"TANDEM_SANDBOX": "false"}

# A server starts within two seconds on an idle machine; a busy one with two cores may take
# long. These bounds only decide when a hanging server is given up.
START_S: Final = 90.0
STOP_S: Final = 60.0
LOOK_AGAIN_S: Final = 0.05
ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready. `log` holds what it and its workers wrote."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self) -> int:
        """Wait for the end."""
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running {STOP_S:g} s after SIGTERM:\n{self.told()}") from None

    def told(self) -> str:
        return self.log.read_text(errors="replace")[-5000:]


@contextlib.contextmanager
def tandem_serve(
    *arguments: str, log: Path, environment: Mapping[str, str] | None = None, ends_with: int | None = 0
) -> Iterator[Running]:
    """`tandem serve` with these arguments, ready on a port of its own."""

    def command(port: int) -> tuple[str, ...]:
        return (*TANDEM, "serve", *arguments, "--port", str(port), "--log-format", "json")

    with running(command, log=log, environment=environment, ends_with=ends_with) as server:
        if "--workers" in arguments:
            eventually(lambda: are_ready(server), "workers that are all ready")
        yield server


@contextlib.contextmanager
def running(
    command: Callable[[int], tuple[str, ...]],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    ends_with: int | None = 0,
) -> Iterator[Running]:
    """The server that `command(port)` starts; at the end SIGTERM, and then it must exit with `ends_with`, if given."""
    server = _start(command, log, environment or {})
    try:
        yield server
        if server.process.poll() is None:
            server.terminate()
        exit_code = server.exit_code()
        assert ends_with is None or exit_code == ends_with, f"exit code {exit_code}:\n{server.told()}"
    finally:
        _kill(server.process)


@contextlib.contextmanager
def side_by_side(starts: Mapping[str, AbstractContextManager[T]]) -> Iterator[Mapping[str, T]]:
    """Enters all at once, by name: one core imports while another waits."""
    with contextlib.ExitStack() as stack:
        with ThreadPoolExecutor(len(starts)) as pool:
            entered = {name: pool.submit(stack.enter_context, start) for name, start in starts.items()}
        yield {name: future.result() for name, future in entered.items()}


def tandem(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """One `tandem` command that ends by itself."""
    return subprocess.run(
        [*TANDEM, *arguments],
        env=_environment(environment or {}),
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )


def eventually(look: Callable[[], T | None], what: str) -> T:
    """What `look` returns once it is true: other processes tell nobody when they are done."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        found = look()
        if found:
            return found
        time.sleep(LOOK_AGAIN_S)
    raise AssertionError(f"waited {START_S:g} s in vain for {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start(command: Callable[[int], tuple[str, ...]], log: Path, environment: Mapping[str, str]) -> Running:
    told = ""
    for _ in range(ATTEMPTS):
        port = free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(port),
                env=_environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = Running(port, process, log)
        try:
            if eventually(lambda: process.poll() is not None or _is_ready(server), "a ready server"):  # noqa: B023
                if process.poll() is None:
                    return server
                told = server.told()
        except BaseException:
            _kill(process)
            raise
        _kill(process)
    raise AssertionError(f"the server ended before it was ready:\n{told}")


def are_ready(server: Running) -> bool:
    """Whether whoever takes a connection is ready: of several workers, one may still load its models."""
    with ThreadPoolExecutor(8) as pool:
        return all(pool.map(lambda _: _is_ready(server), range(40)))


def _is_ready(server: Running) -> bool:
    try:
        return CLIENT.get(f"{server.url}/health/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The process with its workers, whatever is left of them."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment(changes: Mapping[str, str]) -> dict[str, str]:
    """This environment without settings of Tandem, so that a developer's own do not leak into a test.

    Unless the test says so, nothing is drained, no file is tried out, and engines are hardly timed: five seconds, two
    seconds, and one second of every server.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TANDEM_")}
    quick = {"TANDEM_DRAIN_S": "0", "TANDEM_SANDBOX": "false", "TANDEM_MEASURE_S": "0.005"}
    return {**kept, "NO_PROXY": "127.0.0.1", **quick, **changes}

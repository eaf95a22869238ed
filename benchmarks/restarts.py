"""Restarts and killed workers under load: no accepted request is lost. `python -m benchmarks.restarts`

Clients send one request after the other over kept-alive connections, each with a number that its answer must repeat.
A client tries again where its connection was not accepted, and only there: a connection that was, and breaks before
the answer, is a lost request.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import free_port, tree

RESULTS: Final = Path(__file__).parent / "results" / "restarts.json"
TANDEM: Final = (sys.executable, "-c", "from training.cli import main; main()")
FRONTS: Final = {
    "uvicorn": ("--framework", "fastapi"),
    "granian": ("--framework", "flask", "--server", "granian"),
    "gunicorn": ("--framework", "flask", "--server", "gunicorn"),
}
CLIENTS: Final = 8
LOADING_S: Final = 2.5  # a worker that has just started loads its models, and takes nobody meanwhile
PATIENCE_S: Final = 60.0


@dataclass(slots=True)
class Seen:
    """What the clients saw. `lost` has the local port of each connection that broke, and how."""

    answered: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    lost: list[tuple[int, str]] = field(default_factory=list)


class Load:
    """Clients that ask for as long as the context lasts. What they see is added up in `seen`."""

    def __init__(self, port: int, clients: int = CLIENTS) -> None:
        self._port = port
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(clients)]
        self.seen = Seen()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads), "a client got no answer"

    def wait_for(self, answers: int) -> None:
        """Until so many more have come."""
        enough = self.seen.answered + answers
        until = time.monotonic() + PATIENCE_S
        while self.seen.answered < enough:
            assert time.monotonic() < until, f"no answers: {self.seen}"
            time.sleep(0.01)

    def _ask(self, number: int) -> None:
        connection: http.client.HTTPConnection | None = None
        asked = number
        while not self._stop.is_set():
            if connection is None:
                connection = self._connect()
                if connection is None:
                    continue
            asked += CLIENTS
            port = connection.sock.getsockname()[1]
            try:
                connection.request("POST", "/predict", json.dumps({"x": asked}), {"Content-Type": "application/json"})
                reply = connection.getresponse()
                content = reply.read()
            except (OSError, http.client.HTTPException) as error:
                with self._lock:
                    self.seen.lost.append((port, repr(error)))
                connection.close()
                connection = None
                continue
            with self._lock:
                if reply.status == 200 and json.loads(content)["prediction"] == asked:
                    self.seen.answered += 1
                else:
                    self.seen.wrong.append(f"{reply.status} {content[:300]!r}")
            if reply.will_close:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection | None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        try:
            connection.connect()
        except OSError:
            with self._lock:
                self.seen.refused += 1
            time.sleep(0.01)
            return None
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


@dataclass(frozen=True, slots=True)
class Round:
    """`lost_elsewhere` are requests that were lost and not inside the killed worker."""

    front: str
    event: str
    answered: int
    lost: int
    lost_elsewhere: int
    wrong: int
    exit_code: int | None
    seconds: float


def export_model(models: Path) -> None:
    """One that answers with the number it is asked."""
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LinearRegression

    from training import export

    rows = pd.DataFrame({"x": np.arange(16.0)})
    estimator = LinearRegression(fit_intercept=False).fit(rows, rows["x"])
    estimator.coef_ = np.ones(1)  # exactly
    export(estimator, rows, name="echo", repository=models)


@contextlib.contextmanager
def serving(front: str, models: Path, port: int, log: Path, *options: str, drain_s: float = 1.0) -> Iterator[Any]:
    """`tandem serve`, ready. Connections that came before wait until its models are loaded."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TANDEM_")}
    environment = {**own, "TANDEM_LOAD_FIRST": "true", "TANDEM_DRAIN_S": str(drain_s)}
    command = [*TANDEM, "serve", *FRONTS[front], "--models", str(models), "--port", str(port), *options]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "--log-format", "json", "--log-level", "warning"],
            env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_ready(port: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.02)
    raise AssertionError(f"nobody is ready on port {port}")


def restart_rounds(front: str, models: Path, log: Path, rounds: int) -> list[Round]:
    """Each: load, SIGTERM, the end, a new service on the same port, load."""
    port = free_port()
    found = []
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(serving(front, models, port, log))
        wait_until_ready(port)
        for _ in range(rounds):
            began = time.monotonic()
            with Load(port) as load:
                load.wait_for(100)
                process.send_signal(signal.SIGTERM)
                exit_code = process.wait(PATIENCE_S)
                process = stack.enter_context(serving(front, models, port, log))
                load.wait_for(100)
            seen = load.seen
            found.append(
                Round(
                    front, "SIGTERM", seen.answered, len(seen.lost), len(seen.lost), len(seen.wrong), exit_code,
                    round(time.monotonic() - began, 3),
                )
            )  # fmt: skip
            _tell(found[-1], seen)
    return found


def kill_rounds(front: str, models: Path, log: Path, rounds: int, workers: int = 2) -> list[Round]:
    """Each: load, SIGKILL of one worker, load until there are as many again."""
    port = free_port()
    found = []
    with serving(front, models, port, log, "--workers", str(workers)) as process:
        wait_until_ready(port)
        for _ in range(rounds):
            everybody = wait_for_workers(process.pid, port, workers)
            time.sleep(LOADING_S)
            began = time.monotonic()
            with Load(port) as load:
                load.wait_for(100)
                victim = everybody[0]
                os.kill(victim, signal.SIGSTOP)  # it accepts nobody while we look whom it has
                inside = connections_of(victim, port)
                os.kill(victim, signal.SIGKILL)
                wait_for_workers(process.pid, port, workers, without=victim)
                load.wait_for(100)
            seen = load.seen
            elsewhere = [port for port, _ in seen.lost if port not in inside]
            found.append(
                Round(
                    front, "SIGKILL", seen.answered, len(seen.lost), len(elsewhere), len(seen.wrong), process.poll(),
                    round(time.monotonic() - began, 3),
                )
            )  # fmt: skip
            _tell(found[-1], seen)
    return found


def wait_for_workers(supervisor: int, port: int, count: int, without: int | None = None) -> list[int]:
    """The processes below `supervisor` that can take connections, once there are `count` of them."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        workers = [pid for pid in listening(supervisor, port) if pid not in (supervisor, without)]
        if len(workers) >= count:
            return workers
        time.sleep(0.05)
    raise AssertionError(f"fewer than {count} workers below {supervisor}")


def listening(supervisor: int, port: int) -> list[int]:
    """The process and those below it that have the listening socket of `port` open."""
    inode = next((inode for local, remote, inode in _sockets() if local == port and remote == 0), None)
    with contextlib.suppress(OSError):
        return [pid for pid in tree(supervisor) if inode in _open_sockets(pid)]
    return []


def connections_of(pid: int, port: int) -> set[int]:
    """The callers' own ports of the connections that process `pid` has accepted on `port`."""
    inodes = _open_sockets(pid)
    return {remote for local, remote, inode in _sockets() if local == port and remote and inode in inodes}


def _sockets() -> Iterator[tuple[int, int, str]]:
    """Local port, remote port and inode of each TCP socket over IPv4."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        yield int(fields[1].rpartition(":")[2], 16), int(fields[2].rpartition(":")[2], 16), fields[9]


def _open_sockets(pid: int) -> set[str]:
    found = set()
    folder = Path(f"/proc/{pid}/fd")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for link in folder.iterdir():
            with contextlib.suppress(OSError):
                found.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
    return found


def _tell(done: Round, seen: Seen) -> None:
    lost = f"lost {done.lost:3} ({done.lost_elsewhere} elsewhere) wrong {done.wrong}"
    print(f"{done.front:9} {done.event} answered {done.answered:6} {lost} exit {done.exit_code} {done.seconds} s")
    for broken in (*seen.lost[:3], *seen.wrong[:3]):
        print("   ", broken)
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--fronts", nargs="+", choices=FRONTS, default=list(FRONTS))
    parser.add_argument("--dry", action="store_true", help="print, and write nothing")
    chosen = parser.parse_args(arguments)
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory() as folder:
        models, log = Path(folder) / "models", Path(folder) / "log"
        export_model(models)
        for front in chosen.fronts:
            rounds += restart_rounds(front, models, log, chosen.rounds)
            rounds += kill_rounds(front, models, log, chosen.rounds)
    if not chosen.dry:
        about = {"machine": platform.platform(), "cores": os.cpu_count(), "when": datetime.now(UTC).isoformat()}
        RESULTS.write_text(json.dumps({**about, "rounds": [asdict(done) for done in rounds]}, indent=2) + "\n")
    sys.exit(any(done.lost_elsewhere or done.wrong for done in rounds))


if __name__ == "__main__":
    main()

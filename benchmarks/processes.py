"""Servers as processes of their own, pinned to a core, and the memory they take."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

READY_WITHIN_S: Final = 120.0
LOOK_AGAIN_S: Final = 0.1
STOP_WITHIN_S: Final = 40.0
# A server is idle that takes less than this part of a core; the clock of /proc ticks every 10 ms.
IDLE: Final = 0.11
SETTLE_S: Final = 0.1
SETTLE_WITHIN_S: Final = 10.0
# Several worker processes take turns: answers in a row until all of them are taken to be up.
ANSWERS_IN_A_ROW: Final = 20


class ServerFailed(Exception):
    """The server ended, was never ready, or answered with an error; the message ends with its log."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Sums over a process and its children, in MiB.

    `pss` counts a page that n processes share as 1/n in each; `rss` counts it in full in each.
    """

    pss: float
    rss: float


@dataclass(frozen=True, slots=True)
class Server:
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    command: str

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of one POST, or GET, on a connection of its own; status 0 where there was no answer."""
        request = urllib.request.Request(self.url(path), body, {"Content-Type": "application/json"})
        try:
            with _DIRECT.open(request, timeout=60) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def wait_until_ready(self, path: str, body: bytes) -> None:
        """Raises ServerFailed."""
        until = time.monotonic() + READY_WITHIN_S
        in_a_row = 0
        while in_a_row < ANSWERS_IN_A_ROW:
            if self.process.poll() is not None or time.monotonic() > until:
                raise ServerFailed(f"not ready: {self.command}\n{self.told()}")
            if self.ask(path, body)[0] == 200:
                in_a_row += 1
            else:
                in_a_row = 0
                time.sleep(LOOK_AGAIN_S)

    def settle(self) -> None:
        """Wait until nothing is computed any more for clients that are gone, so that the next one has the core."""
        until = time.monotonic() + SETTLE_WITHIN_S
        before = cpu_seconds(self.process.pid)
        while time.monotonic() < until:
            time.sleep(SETTLE_S)
            now = cpu_seconds(self.process.pid)
            if now is None or before is None or now - before <= IDLE * SETTLE_S:
                return
            before = now

    def told(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def memory(self) -> Memory | None:
        """None where the system does not tell (anything but Linux)."""
        parts = []
        for pid in tree(self.process.pid):
            with contextlib.suppress(OSError):  # one that has just ended
                parts.append(_rollup(pid))
        return Memory(sum(p.pss for p in parts), sum(p.rss for p in parts)) if parts else None


_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextlib.contextmanager
def serving(
    command: Sequence[str], environment: Mapping[str, str], port: int, log: Path, core: int
) -> Iterator[Server]:
    """The process, not waited for. On the way out it is ended with all its children."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TANDEM_")}
    with log.open("wb") as output, pinned(core):  # a child runs where its parent ran when it was born
        process = subprocess.Popen(
            command, env={**own, "TANDEM_DRAIN_S": "0", **environment}, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield Server(port, process, log, " ".join(command))
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_WITHIN_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def end_on_sigterm() -> None:
    """Leave by SystemExit, so that whoever stops a benchmark leaves no server behind."""
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """This thread, and what it starts meanwhile, on one core, where the system has a way to say so."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """Below those that the system gives to connections: one of them had taken it before the server was there."""
    while True:
        port = random.randrange(20_000, 30_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def tree(pid: int) -> list[int]:
    """The process and all its descendants, as far as Linux knows them."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):  # a process, or a thread of it, that has just ended
            for task in (Path("/proc") / str(parent) / "task").iterdir():
                with contextlib.suppress(OSError):
                    found += map(int, (task / "children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float | None:
    """What the process and its descendants have computed so far; None where the system does not tell."""
    ticks = 0
    try:
        for each in tree(pid):
            # The name, in brackets, may hold anything; user and system time are the 12th and 13th field after it.
            fields = (Path("/proc") / str(each) / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    except OSError:
        return None
    return ticks / os.sysconf("SC_CLK_TCK")


def _rollup(pid: int) -> Memory:
    kib = parse_rollup((Path("/proc") / str(pid) / "smaps_rollup").read_text())
    return Memory(kib["Pss"] / 1024, kib["Rss"] / 1024)


def parse_rollup(text: str) -> dict[str, int]:
    """KiB by field of a `smaps_rollup` file; its first line names the address range, not a field."""
    return {
        name: int(rest.split()[0])
        for name, _, rest in (line.partition(":") for line in text.splitlines()[1:])
        if rest.strip().endswith("kB")
    }

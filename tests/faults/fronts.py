"""One of the web servers as a test meets it: requests byte by byte or by httpx, and what must hold after every case."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx

from tests.conformance.servers import CLIENT, Running
from tests.conformance.wire import Reply, request, talk

MODEL: Final = "numbers"
GOOD: Final = {"instances": [[0.5, -0.25, 1.0, 2.0]]}
KNOWN: Final = [2]  # its answer
PREDICT: Final = f"/models/{MODEL}/predict"
PROBLEM: Final = "application/problem+json"

# A busy machine answers late; what hangs does not answer at all.
PATIENCE_S: Final = 20.0
# So long after an answer nothing comes that is not to come, and so long after anything else.
MOMENT_S: Final = 0.3
SILENCE_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Front:
    """`name` is a column of the table. `running` is shared by all tests of the session: leave it as it was."""

    name: str
    running: Running

    @property
    def port(self) -> int:
        return self.running.port

    def ask(self, method: str = "POST", path: str = PREDICT, **arguments: Any) -> httpx.Response:
        """By httpx: `json=`, `content=`, `headers=`."""
        return CLIENT.request(
            method,
            f"{self.running.url}{path}",
            timeout=PATIENCE_S,
            follow_redirects=False,
            **arguments,
        )

    def send(self, *messages: bytes) -> list[Reply]:
        """Over one connection, each when the one before was answered."""
        return talk(self.port, messages)

    def post(self, body: bytes, *headers: tuple[str, str], path: str = PREDICT) -> Reply:
        return self.send(request("POST", path, body, headers=headers or [("Content-Type", "application/json")]))[0]

    @contextlib.contextmanager
    def connect(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield connection

    def raw(self, *parts: bytes, pause_s: float = 0.0, until_closed: bool = False) -> Raw:
        """Everything that comes until the other side closes, or is silent: for long, if its close is to be shown."""
        with self.connect() as connection:
            try:
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause_s)
            except OSError:  # closed before all was sent
                pass
            return received(connection, moment_s=SILENCE_S if until_closed else MOMENT_S)

    def is_well(self, since: int) -> None:
        """What holds after every case: the same process, the known answer, JSON in each line of the log's new bytes."""
        assert self.running.process.poll() is None, self.running.told()
        reply = self.ask(json=GOOD)
        assert reply.status_code == 200, reply.text
        assert reply.json()["predictions"] == KNOWN, reply.text
        for line in self.running.log.read_bytes()[since:].decode().split("\n")[:-1]:
            json.loads(line)

    def cut_short(self, sent: bytes) -> Raw:
        """As `raw`, but the caller says that nothing follows."""
        with self.connect() as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            return received(connection)

    def pid(self) -> int:
        return self.running.process.pid

    def descriptors(self) -> int:
        """Open files of the server's processes, all together."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self._processes())

    def threads(self) -> int:
        """Of the server's processes, all together."""
        return sum(len(os.listdir(f"/proc/{pid}/task")) for pid in self._processes())

    def memory_bytes(self) -> int:
        """Resident memory of the server's processes, all together."""
        pages = 0
        for pid in self._processes():
            with open(f"/proc/{pid}/statm") as statm:
                pages += int(statm.read().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _processes(self) -> Sequence[int]:
        group = self.running.process.pid
        found = []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError):
                if os.getpgid(int(entry)) == group:
                    found.append(int(entry))
        return found


@dataclass(frozen=True, slots=True)
class Raw:
    """All bytes that came, and whether the other side closed the connection."""

    received: bytes
    closed: bool

    @property
    def statuses(self) -> list[int]:
        """Of every reply; 100 Continue is one, too."""
        return [int(status) for status in re.findall(rb"HTTP/1\.[01] ([1-5]\d\d) [A-Z]", self.received)]

    def __str__(self) -> str:
        statuses = ", ".join(map(str, self.statuses)) or "nothing"
        return f"{statuses}{', closed' if self.closed else ''}"


def received(connection: socket.socket, silence_s: float = SILENCE_S, moment_s: float = SILENCE_S) -> Raw:
    """All that comes until the other side closes, or says nothing for so long; after whole answers, for a moment."""
    came = b""
    try:
        connection.settimeout(silence_s)
        while chunk := connection.recv(65536):
            came += chunk
            connection.settimeout(moment_s if is_whole(came) else silence_s)
    except TimeoutError:
        return Raw(came, closed=False)
    except OSError:
        pass
    return Raw(came, closed=True)


def is_whole(came: bytes) -> bool:
    """Whether these are answers with a length, up to their end, and the last one announces no close."""
    head = b""
    while came:
        head, end, rest = came.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        size = 0 if head.startswith(b"HTTP/1.1 100 ") else int(length[1]) if length else None
        if not end or size is None or len(rest) < size or (not rest and length is None):
            return False
        came = rest[size:]
    return re.search(rb"(?i)\r\nconnection: *close", head) is None


def is_problem(reply: httpx.Response | Reply, status: int | None = None) -> dict[str, Any]:
    """The problem in the reply, which must be one, and tell nothing of the service's inside."""
    got, headers, body = (
        (reply.status, reply.headers, reply.body)
        if isinstance(reply, Reply)
        else (reply.status_code, dict(reply.headers), reply.content)
    )
    assert status is None or got == status, f"{got}: {body[:500]!r}"
    assert headers["content-type"] == PROBLEM
    problem: dict[str, Any] = json.loads(body)
    assert {"type", "title", "status", "detail", "request_id"} <= problem.keys()
    assert problem["status"] == got
    assert problem["request_id"] == headers["x-request-id"]
    assert len(body) < 8 * 1024
    assert b"Traceback" not in body and b"/site-packages/" not in body
    return problem

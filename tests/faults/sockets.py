"""WebSockets as the cases of section S meet them: servers with narrow limits, and frames written by hand."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.conformance.servers import Running, tandem_serve
from tests.conformance.wire import request
from tests.faults.fronts import GOOD, KNOWN, PATIENCE_S
from tests.faults.guarded import NAMES, ORIGIN, SHOP, Guarded, write_keys

FRONTS: Final[Mapping[str, tuple[str, ...]]] = {
    "uvicorn": ("--framework", "fastapi"),
    "gunicorn": ("--framework", "flask", "--server", "gunicorn"),
    "gunicorn-gevent": ("--framework", "flask", "--server", "gunicorn", "--worker-class", "gevent"),
}
MAX_MESSAGE_BYTES: Final = 64 * 1024
MAX_STREAMS: Final = 12
MAX_OF_CALLER: Final = 8
NARROW: Final = {
    "TANDEM_MAX_MESSAGE_BYTES": str(MAX_MESSAGE_BYTES),
    "TANDEM_MAX_STREAMS": str(MAX_STREAMS),
    "TANDEM_MAX_STREAMS_PER_CALLER": str(MAX_OF_CALLER),
    "TANDEM_PING_S": "1",
    "TANDEM_WRITE_TIMEOUT_S": "1",
    "TANDEM_WRONG_KEYS_LIMIT": "10000/day",
}
HANDSHAKE: Final = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
CONTINUATION: Final = 0x0


@dataclass(frozen=True, slots=True)
class Speaker(Guarded):
    """A front that speaks WebSocket."""

    def open(
        self,
        key: str | None = SHOP,
        model: str = "numbers",
        query: str = "",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> ClientConnection:
        known = {"Authorization": f"Bearer {key}"} if key is not None else {}
        return connect(
            f"ws://127.0.0.1:{self.port}/models/{model}/ws{query}",
            additional_headers={**known, **headers},
            proxy=None,
            max_size=None,
            open_timeout=PATIENCE_S,
            close_timeout=PATIENCE_S,
        )

    def handshake(self, *headers: tuple[str, str]) -> bytes:
        known = ("Authorization", f"Bearer {SHOP}")
        return request("GET", "/models/numbers/ws", headers=[*HANDSHAKE, known, *headers])

    def speak(self, *headers: tuple[str, str], receive_bytes: int | None = None) -> Frames:
        """A connection on which frames are written by hand."""
        connection = socket.socket()
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.settimeout(PATIENCE_S)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall(self.handshake(*headers))
        return Frames(connection)


class Frames:
    """One WebSocket, after its handshake."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._received = b""
        while b"\r\n\r\n" not in self._received:
            self._received += self._more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1").lower()
        assert head.startswith(b"HTTP/1.1 101 "), head

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def send(self, *frames: bytes) -> None:
        self.connection.sendall(b"".join(frames))

    def next(self) -> tuple[int, bytes]:
        """Opcode and payload of what comes next."""
        opcode, length = self._take(2)
        if length >= 126:
            length = int.from_bytes(self._take(2 if length == 126 else 8))
        return opcode & 0xF, self._take(length)

    def close_code(self) -> int:
        """Of the close that comes, whatever comes before it."""
        while (came := self.next())[0] != CLOSE:
            pass
        return int.from_bytes(came[1][:2])

    def answer(self) -> Any:
        """The message that comes next. Pings that come before are answered."""
        while (came := self.next())[0] != TEXT:
            assert came[0] != CLOSE, f"closed: {came[1]!r}"
            if came[0] == PING:
                self.send(frame(PONG, came[1]))
        return json.loads(came[1])

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            self._received += self._more()
        taken, self._received = self._received[:count], self._received[count:]
        return taken

    def _more(self) -> bytes:
        came = self.connection.recv(65536)
        assert came, "the connection ended"
        return came


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, reserved: int = 0) -> bytes:
    """One frame (RFC 6455, 5.2). The mask is zero, which is a mask, too."""
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    mask = 0x80 if masked else 0
    if len(payload) < 126:
        head = bytes([first, mask | len(payload)])
    elif len(payload) < 65536:
        head = bytes([first, mask | 126]) + len(payload).to_bytes(2)
    else:
        head = bytes([first, mask | 127]) + len(payload).to_bytes(8)
    return head + (bytes(4) if masked else b"") + payload


def ask(client: ClientConnection, message: Any = GOOD) -> Any:
    client.send(json.dumps(message))
    return json.loads(client.recv(PATIENCE_S))


def works(client: ClientConnection) -> bool:
    return bool(ask(client)["predictions"] == KNOWN)


@pytest.fixture(scope="session")
def socket_models(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    for name in ("numbers", "amounts"):
        shutil.copytree(repository / name, models / name)
    return models


@pytest.fixture(scope="session")
def speakers(
    socket_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, tuple[Running, Path]]]:
    folder = tmp_path_factory.mktemp("sockets")
    with ExitStack() as stack:
        found = {}
        for name, arguments in FRONTS.items():
            keys = folder / f"{name}.json"
            write_keys(keys, *NAMES)
            known = ("--keys", str(keys), "--cors-origin", ORIGIN)
            serving = tandem_serve(
                *arguments, "--models", str(socket_models), *known, log=folder / name, environment=NARROW
            )
            found[name] = stack.enter_context(serving), keys
        yield found


@pytest.fixture(params=FRONTS)
def speaker(request: pytest.FixtureRequest, speakers: Mapping[str, tuple[Running, Path]]) -> Iterator[Speaker]:
    """Each of them in turn; after the test it must be as well as before."""
    speaker = Speaker(request.param, *speakers[request.param], None)
    since = speaker.running.log.stat().st_size
    yield speaker
    speaker.is_well(since)

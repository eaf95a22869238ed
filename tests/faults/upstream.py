"""A scripted language model: an HTTP server on a thread, byte by byte, that does what the prompt says.

A test writes its script into the prompt (`Upstream.script`), and every answer is a plain function over a socket. What
came is kept: requests as bytes, and how each connection ended.
"""

from __future__ import annotations

import gzip
import json
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

MODEL: Final = "org/tiny-1:1b"
TEXTS: Final = ("Once", " upon", " a", " time")
USAGE: Final = {"prompt_tokens": 3, "completion_tokens": len(TEXTS), "total_tokens": 3 + len(TEXTS)}
SECRET: Final = "/srv/models/secret-path.gguf"

PATIENCE_S: Final = 20.0


@dataclass
class Asked:
    """One request. `left_at` is when the service closed the connection, in seconds of `time.monotonic`."""

    head: str
    body: dict[str, Any]
    left_at: float | None = None

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def is_chat(self) -> bool:
        return "messages" in self.body

    @property
    def script(self) -> list[str]:
        text = self.body["messages"][-1]["content"] if self.is_chat else self.body["prompt"]
        found = re.search(r"do: ([^;]+)", text if isinstance(text, str) else text[-1]["text"])
        return found[1].split() if found is not None else ["well"]


class Upstream:
    """Serves until it is closed. `asked` grows by one for each request, in the order in which they came."""

    def __init__(self, port: int = 0) -> None:
        self.asked: list[Asked] = []
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self._connections: list[socket.socket] = []
        self._is_open = True
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def close(self) -> None:
        self._is_open = False
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def told(self, nonce: str) -> Asked:
        """The one request whose body has `nonce`."""
        (found,) = [asked for asked in list(self.asked) if nonce in json.dumps(asked.body)]
        return found

    def _accept(self) -> None:
        while self._is_open:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if (asked := _read(connection)) is not None:
                self.asked.append(asked)
                name, *arguments = asked.script
                _DOES[name](connection, asked, *arguments)
        except OSError:  # the service has closed the connection, as some tests want it to
            pass
        finally:
            connection.close()


def _read(connection: socket.socket) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: (\d+)", head)
    length = int(found[1]) if found is not None else 0
    while len(body) < length:
        body += connection.recv(65536)
    return Asked(head.decode("latin-1"), json.loads(body))


def chunk_of(asked: Asked, text: str | None, reason: str | None = None, **others: Any) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "finish_reason": reason}
    if asked.is_chat:
        choice["delta"] = {} if text is None else {"content": text}
    else:
        choice["text"] = text or ""
    kind = "chat.completion.chunk" if asked.is_chat else "text_completion"
    return {"id": "x-1", "object": kind, "created": 1, "model": MODEL, "choices": [choice], **others}


def event(content: Any) -> bytes:
    return b"data: " + (content if isinstance(content, bytes) else json.dumps(content).encode()) + b"\n\n"


def answer(asked: Asked) -> bytes:
    text = "".join(TEXTS)
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    choice |= {"message": {"role": "assistant", "content": text}} if asked.is_chat else {"text": text}
    kind = "chat.completion" if asked.is_chat else "text_completion"
    whole = {"id": "x-1", "object": kind, "created": 1, "model": MODEL, "choices": [choice], "usage": USAGE}
    return json.dumps(whole).encode()


def head(status: int = 200, kind: str = "text/event-stream", length: int | None = None, *fields: str) -> bytes:
    """Of an answer that ends with its connection, where it has no length."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Type: {kind}", *fields]
    lines += ["Connection: close", *([] if length is None else [f"Content-Length: {length}"])]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def _send(connection: socket.socket, asked: Asked, content: bytes) -> None:
    """Raises OSError where the service has closed the connection, and notes it."""
    if asked.left_at is None and _is_closed(connection):
        asked.left_at = time.monotonic()
    if asked.left_at is not None:
        raise ConnectionResetError
    try:
        connection.sendall(content)
    except OSError:
        asked.left_at = time.monotonic()
        raise


def _is_closed(connection: socket.socket, wait_s: float = 0.0) -> bool:
    readable, _, _ = select.select([connection], [], [], wait_s)
    return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""


def _wait(connection: socket.socket, asked: Asked, seconds: float) -> None:
    """So long, or until the service closes the connection, which is noted."""
    if _is_closed(connection, seconds):
        asked.left_at = time.monotonic()
        raise ConnectionResetError


def _well(connection: socket.socket, asked: Asked, pause_s: str = "0", *_: str) -> None:
    """The answer; `pause_s` goes before each of its four texts."""
    if not asked.streams:
        _wait(connection, asked, 4 * float(pause_s))
        body = answer(asked)
        return _send(connection, asked, head(200, "application/json", len(body)) + body)
    _send(connection, asked, head())
    for text in TEXTS:
        _wait(connection, asked, float(pause_s))
        _send(connection, asked, event(chunk_of(asked, text)))
    _send(connection, asked, event(chunk_of(asked, None, "stop")))
    if asked.body.get("stream_options", {}).get("include_usage"):
        _send(connection, asked, event({**chunk_of(asked, None), "choices": [], "usage": USAGE}))
    _send(connection, asked, event(b"[DONE]"))
    return None


def _says(status: int, content: Any, *fields: str, kind: str = "application/json") -> Callable[..., None]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()

    def say(connection: socket.socket, asked: Asked, *_: str) -> None:
        _send(connection, asked, head(status, kind, len(body), *fields) + body)

    return say


def _redirect(connection: socket.socket, asked: Asked, target: str) -> None:
    _send(connection, asked, head(307, "text/plain", 0, f"Location: {target}"))


def _streams(*pieces: bytes, pause_s: float = 0.0) -> Callable[..., None]:
    """These bytes after a good beginning, and the end of the connection."""

    def stream(connection: socket.socket, asked: Asked, *_: str) -> None:
        _send(connection, asked, head() + event(chunk_of(asked, TEXTS[0])))
        for piece in pieces:
            _wait(connection, asked, pause_s)
            _send(connection, asked, piece)

    return stream


def _endless(piece: bytes) -> Callable[..., None]:
    def stream(connection: socket.socket, asked: Asked, *_: str) -> None:
        kind = "text/event-stream" if asked.streams else "application/json"
        _send(connection, asked, head(200, kind) + (event(chunk_of(asked, TEXTS[0])) if asked.streams else b"{"))
        while True:
            _send(connection, asked, piece * 64)

    return stream


def _silent(connection: socket.socket, asked: Asked, after: str = "nothing", *_: str) -> None:
    if after != "nothing":
        _send(connection, asked, head())
    if after == "text":
        _send(connection, asked, event(chunk_of(asked, TEXTS[0])))
    _wait(connection, asked, PATIENCE_S)


def _drip(connection: socket.socket, asked: Asked, *_: str) -> None:
    _send(connection, asked, head())
    while True:
        _send(connection, asked, event(chunk_of(asked, TEXTS[0])))
        _wait(connection, asked, 0.2)


def _zipped(connection: socket.socket, asked: Asked, *_: str) -> None:
    body = _bomb()
    kind = "text/event-stream" if asked.streams else "application/json"
    _send(connection, asked, head(200, kind, len(body), "Content-Encoding: gzip") + body)


@cache
def _bomb() -> bytes:
    return gzip.compress(b"\0" * 50_000_000)


def _split(connection: socket.socket, asked: Asked, *_: str) -> None:
    """A text of several bytes a letter, a byte at a time, with the three ends of lines that there are."""
    _send(connection, asked, head())
    content = json.dumps(chunk_of(asked, "grün 漢字 🦉"), ensure_ascii=False).encode()
    for byte in b": hello\r\rdata: " + content + b"\r\n\r\n" + event(chunk_of(asked, None, "stop")) + event(b"[DONE]"):
        _send(connection, asked, bytes([byte]))


_INTERNALS: Final = {"error": {"message": f"Traceback: {SECRET} broke", "type": "boom", "code": 500}}
_LONG: Final = {"error": {"message": SECRET, "type": "exceed_context_size_error", "code": 400}}
_DOES: Final[dict[str, Callable[..., None]]] = {
    "well": _well,
    "redirect": _redirect,
    "status400": _says(400, _INTERNALS),
    "status500": _says(500, _INTERNALS),
    "status429": _says(429, _INTERNALS, "Retry-After: 7"),
    "too-long": _says(400, _LONG),
    "html": _says(200, b"<html>it works</html>", kind="text/html"),
    "error200": _says(200, _INTERNALS),
    "garbage": lambda connection, asked: _send(
        connection, asked, b"\x00\x01 nothing like HTTP\r\n\r\n" + SECRET.encode()
    ),
    "no-json": _says(200, b"<html>"),
    "odd-json": _says(200, {"choices": [{"text": 3, "message": {"content": 3}}]}),
    "hangs-up": lambda connection, asked: None,
    "broken": _streams(),
    "late-error": _streams(event(_INTERNALS)),
    "named-error": _streams(b"event: error\ndata: " + SECRET.encode() + b"\n\n"),
    "bad-events": _streams(b"data: {nothing\n\n"),
    "nul": _streams(b'data: {"choices": []\x00}\n\n'),
    "bad-utf8": _streams(b'data: {"choices": [], "x": "\xff\xfe"}\n\n'),
    "cut-utf8": _streams(b'data: {"choices": [], "x": "\xe6\xbc"}\n\n'),
    "endless": _endless(event({"choices": [], "x": "y" * 500})),
    "one-line": _endless(b"y" * 500),
    "silent": _silent,
    "drip": _drip,
    "zipped": _zipped,
    "split": _split,
}


@contextmanager
def scripted(port: int = 0) -> Iterator[Upstream]:
    upstream = Upstream(port)
    try:
        yield upstream
    finally:
        upstream.close()

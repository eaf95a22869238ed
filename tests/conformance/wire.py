"""A client that sends exactly the bytes it is given, and hands back what came, unpolished.

HTTP libraries mend paths, merge headers and refuse what is odd; here the odd is the point.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

# What decides how a client understands the reply. `date`, `server` and `connection` are the web server's own.
COMPARED: Final = (
    "content-type", "content-length", "allow", "retry-after", "x-request-id", "cache-control",
    "x-content-type-options", "location", "set-cookie", "content-encoding", "accept-encoding", "vary",
    "www-authenticate", "ratelimit-policy", "access-control-allow-origin",
    "inference-header-content-length", "x-model-name", "x-model-version",
)  # fmt: skip

# In the description of a model: seconds by rows, measured when the server loaded it.
MEASURED: Final = re.compile(rb'"seconds":\{[^}]*\}')

PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def compared(self) -> tuple[int, dict[str, str], bytes]:
        """What must not depend on the server. What its engines cost there does, and with it the length."""
        headers = {name: self.headers[name] for name in COMPARED if name in self.headers}
        body = MEASURED.sub(b'"seconds":{}', self.body)
        if body != self.body or (self.status == 200 and not self.body):  # the latter are replies to HEAD
            headers.pop("content-length")
        return self.status, headers, body


def request(
    method: str,
    target: str,
    body: bytes | None = None,
    *,
    headers: Sequence[tuple[str, str]] = (),
    version: str = "1.1",
    chunks: Sequence[bytes] | None = None,
) -> bytes:
    """One request as bytes. With a body comes its length; with `chunks`, chunked coding instead."""
    lines = [f"{method} {target} HTTP/{version}", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers]
    if chunks is not None:
        lines.append("Transfer-Encoding: chunked")
        body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])
    elif body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


def talk(port: int, messages: Sequence[bytes], *, at_once: bool = False, address: str = "127.0.0.1") -> list[Reply]:
    """One connection, from `address`: each message is sent when the one before was answered, or all `at_once`."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S, (address, 0)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection.makefile("rb") as stream:
            replies = []
            if at_once:
                connection.sendall(b"".join(messages))
            for message in messages:
                if not at_once:
                    connection.sendall(message)
                replies.append(_read_reply(stream, is_head=message.startswith(b"HEAD ")))
            return replies


def _read_reply(stream: BinaryIO, *, is_head: bool) -> Reply:
    status = 100
    while status < 200:  # 100 Continue comes before the reply
        line = stream.readline()
        assert line.startswith(b"HTTP/1."), f"no status line: {line!r}"
        status = int(line.split()[1])
        headers: dict[str, str] = {}
        while (line := stream.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            name = name.lower()
            assert name not in headers or name not in COMPARED, f"{name} comes twice"
            headers[name] = value.strip()
    if is_head:
        return Reply(status, headers, b"")
    if "content-length" not in headers:  # up to the end of the connection; only servers' own replies do so
        return Reply(status, headers, stream.read())
    length = int(headers["content-length"])
    body = stream.read(length)
    assert len(body) == length, f"{len(body)} of {length} bytes came"
    return Reply(status, headers, body)

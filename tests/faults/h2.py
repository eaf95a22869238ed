"""HTTP/2 by hand: a client's frames as bytes, and the frames that come back. No library would send what is sent here.

Source: RFC 9113 (frames) and RFC 7541 (headers). Headers are literals that are never indexed, without Huffman coding:
every server reads them, and neither side keeps a table.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8, 0x9
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
CANCEL: Final = 0x8
INITIAL_WINDOW_SIZE: Final = 0x4
# What the other side may send before anybody says that there is room: all that a test waits for.
WINDOW: Final = 2**30
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# A busy machine answers late; what hangs does not answer at all.
PATIENCE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, stream: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A block of literals (RFC 7541, 6.2.3)."""
    return b"".join(b"\x10" + _string(name) + _string(value) for name, value in fields)


def call_headers(path: bytes, more: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """Of a gRPC call."""
    return headers(
        [
            (b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"127.0.0.1"),
            (b"te", b"trailers"), (b"content-type", b"application/grpc"), *more,
        ]
    )  # fmt: skip


def message(content: bytes) -> bytes:
    """A message of gRPC, uncompressed: a flag and its length before it."""
    return struct.pack(">BI", 0, len(content)) + content


class Connection:
    """One connection on which both sides know the settings of the other. Use as a context."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream: BinaryIO = self._socket.makefile("rb")
        window = struct.pack(">HI", INITIAL_WINDOW_SIZE, WINDOW)
        self.send(PREFACE, frame(SETTINGS, 0, window), frame(WINDOW_UPDATE, 0, struct.pack(">I", WINDOW)))
        next(one for one in self.frames() if one.kind == SETTINGS and not one.flags & ACK)
        self.send(frame(SETTINGS, flags=ACK))

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.close()
        self._socket.close()

    def send(self, *frames: bytes) -> bool:
        """False where the other side has closed the connection."""
        try:
            self._socket.sendall(b"".join(frames))
        except OSError:
            return False
        return True

    def patience(self, seconds: float) -> None:
        """From now on `frames` waits so long for the next."""
        self._socket.settimeout(seconds)

    def frames(self) -> Iterator[Frame]:
        """What comes, up to the end of the connection; raises TimeoutError where it stays open and silent."""
        while True:
            try:
                head = self._stream.read(9)
                if len(head) < 9:
                    return
                length = int.from_bytes(head[:3], "big")
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                yield Frame(kind, flags, stream & 0x7FFFFFFF, self._stream.read(length))
            except ConnectionError:
                return


def _string(text: bytes) -> bytes:
    """A length of a prefix of 7 bits (RFC 7541, 5.1), and the octets."""
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, size = len(text) - 127, b"\x7f"
    while rest >= 128:
        size += bytes([rest % 128 + 128])
        rest //= 128
    return size + bytes([rest]) + text

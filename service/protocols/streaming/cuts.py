"""Where a line or a message ends, in bytes that come in pieces. Nothing is held but what is not complete yet."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from service.core.errors import RequestTooLarge, UnreadableRequest
from service.protocols.columnar.sizes import Malformed, body_bytes


class Lines:
    """Cuts at line feeds. Of a line of more than `most` bytes `most + 1` are kept: it can be seen to be too long."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._begun = bytearray()

    def cut(self, piece: bytes) -> list[bytes]:
        """The lines that are complete with `piece`, but for blank ones."""
        end = piece.rfind(b"\n")
        if end < 0:
            self._keep(piece)
            return []
        first, *others = piece[:end].split(b"\n")
        self._keep(first)
        lines = [bytes(self._begun), *others]
        self._begun.clear()
        self._keep(piece[end + 1 :])
        return [line for line in lines if line.strip()]

    def rest(self) -> list[bytes]:
        """The last line, which need not end with a line feed; empty where it is blank."""
        line = bytes(self._begun)
        return [line] if line.strip() else []

    def _keep(self, piece: bytes) -> None:
        self._begun += piece[: self._most + 1 - len(self._begun)]


# What a message begins with, but for those of before Arrow 0.15, and in the place of its length the end of the stream.
_CONTINUATION: Final = 0xFFFFFFFF
_END: Final = 0


class Messages:
    """Cuts an Arrow IPC stream into its messages, of at most `most` bytes each.

    Source: the encapsulated message format of Arrow: a marker, the length of the metadata, the metadata (a FlatBuffer,
    which says how long the body is), the body.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._begun = bytearray()
        self._needed = 4  # bytes of the message that are needed to know more of it
        self._is_over = False

    def cut(self, piece: bytes) -> Iterator[bytes]:
        """The messages that are complete with `piece`. What comes behind the end of the stream is dropped.

        Raises:
            UnreadableRequest: no message.
            RequestTooLarge: one that says that it is longer than it may be.
        """
        if self._is_over:
            return
        self._begun += piece
        while len(self._begun) >= self._needed and not self._is_over:
            size = self._size()
            if size is not None:
                message = bytes(memoryview(self._begun)[:size])
                del self._begun[:size]
                self._needed = 4
                yield message

    def require_end(self) -> None:
        """Raises UnreadableRequest where the stream broke off within a message."""
        if self._begun and not self._is_over:
            raise UnreadableRequest("the Arrow stream broke off within a message")

    def _size(self) -> int | None:
        """Of the message that has begun; None where too little of it is there, or there is none any more."""
        (length,) = struct.unpack_from("<I", self._begun)
        start = 4
        if length == _CONTINUATION:
            start = 8
            if not self._has(start):
                return None
            (length,) = struct.unpack_from("<I", self._begun, 4)
        if length == _END:
            self._is_over = True
            self._begun.clear()
            return None
        if not self._has(start + length):
            return None
        try:
            size = start + length + body_bytes(self._begun[start : start + length])
        except Malformed as error:
            raise UnreadableRequest(f"the body is not a readable Arrow stream: {error}") from None
        return size if self._has(size) else None

    def _has(self, size: int) -> bool:
        if size > self._most:
            raise RequestTooLarge(f"a message of the Arrow stream is larger than {self._most} bytes")
        self._needed = size
        return len(self._begun) >= size

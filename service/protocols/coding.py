"""Bodies coded for the way: gzip and deflate, in and out (RFC 9110, 8.4)."""

from __future__ import annotations

import gzip
import zlib
from typing import Final

from service.core.errors import RequestTooLarge, UnreadableRequest, UnsupportedCoding
from service.protocols.http import HttpReply, HttpRequest

CODINGS: Final = ("gzip", "deflate")

# Smaller replies fit into one packet anyway.
LEAST_BYTES: Final = 1024
# A member of gzip copies what is left of its piece, so that a body of nothing but empty ones stays cheap.
_PIECE_BYTES: Final = 4096
# Of numbers as text, higher levels gain a tenth at three times the price.
_LEVEL: Final = 1


def uncoded(body: bytes, coding: str, limit: int) -> bytes:
    """`body` as it was before `coding`, the value of Content-Encoding.

    Raises:
        UnsupportedCoding: neither gzip nor deflate, or several.
        UnreadableRequest: cut off, corrupt, or followed by something else.
        RequestTooLarge: more than `limit` bytes come out of it.
    """
    name = coding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in (*CODINGS, "x-gzip"):
        raise UnsupportedCoding(name)
    try:
        return _inflated(body, zlib.MAX_WBITS if name == "deflate" else zlib.MAX_WBITS | 16, limit)
    except zlib.error:
        pass
    try:
        if name == "deflate":  # many send it without the wrapper that the standard asks for
            return _inflated(body, -zlib.MAX_WBITS, limit)
    except zlib.error:
        pass
    raise UnreadableRequest(f"the body is not what its Content-Encoding says: {name}")


def _inflated(body: bytes, window: int, limit: int) -> bytes:
    """Raises zlib.error too where the end is missing."""
    parts: list[bytes] = []
    left, at = limit + 1, 0
    while at < len(body):  # gzip may consist of several members
        stream = zlib.decompressobj(window)
        while not stream.eof:
            if at >= len(body):
                raise zlib.error("the end is missing")
            parts.append(stream.decompress(body[at : at + _PIECE_BYTES], left))
            left -= len(parts[-1])
            if left <= 0:
                raise RequestTooLarge(f"the body is larger than {limit} bytes once it is decompressed")
            at += _PIECE_BYTES
        at = min(at, len(body)) - len(stream.unused_data)
    return b"".join(parts)


def coded(reply: HttpReply, http: HttpRequest) -> HttpReply:
    """`reply`, compressed where its caller says that it reads that, and there is enough of it."""
    accepted = {
        name.strip().lower()
        for name, _, weight in (part.partition(";") for part in http.headers.get("accept-encoding", "").split(","))
        if weight.replace(" ", "").lower().rstrip(".0") != "q="
    }
    name = next((name for name in CODINGS if name in accepted), None)
    if name is None or len(reply.body) < LEAST_BYTES:
        return reply
    body = gzip.compress(reply.body, _LEVEL, mtime=0) if name == "gzip" else zlib.compress(reply.body, _LEVEL)
    headers = {**reply.headers, "content-encoding": name, "vary": "accept-encoding"}
    return HttpReply(reply.status, body, reply.content_type, headers)

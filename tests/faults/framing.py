"""Requests whose end or meaning two readers could take differently, written for this suite.

Where a case carries a second request, it asks for `SMUGGLED`, which no route has: an answer of its own, 404, says that
bytes of one message were taken for another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.faults.fronts import PREDICT

BODY: Final = b'{"instances": [[0.5, -0.25, 1.0, 2.0]]}'
SMUGGLED: Final = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"

_CHUNKED: Final = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
_LENGTH: Final = b"Content-Length: %d" % len(BODY)


@dataclass(frozen=True, slots=True)
class Case:
    """`sent` on a fresh connection gets one reply with one of `statuses`, and where it `closes` the connection ends."""

    id: str
    name: str
    sent: bytes
    statuses: frozenset[int] = frozenset({400})
    closes: bool = True


def post(*lines: bytes, body: bytes = BODY, target: str = PREDICT, version: bytes = b"1.1") -> bytes:
    """A prediction with these header lines, as they are."""
    start = b"POST %s HTTP/%s" % (target.encode(), version)
    return b"\r\n".join([start, b"Host: localhost", b"Content-Type: application/json", *lines, b"", body])


def _two_framings() -> list[Case]:
    te = b"Transfer-Encoding: chunked"
    return [
        Case("H01", "length, then chunked", post(_LENGTH, te, body=_CHUNKED)),
        Case("H01", "chunked, then length", post(te, _LENGTH, body=_CHUNKED)),
        Case("H01", "length 0 and chunked", post(b"Content-Length: 0", te, body=_CHUNKED)),
        Case("H01", "length ends before the chunks do", post(b"Content-Length: 5", te, body=b"0\r\n\r\n" + SMUGGLED)),
        Case("H01", "length and chunked in odd letters", post(_LENGTH, b"tRANSFER-eNCODING: Chunked", body=_CHUNKED)),
    ]


def _two_lengths() -> list[Case]:
    body = BODY + SMUGGLED
    return [
        Case("H02", "twice the same", post(_LENGTH, _LENGTH)),
        Case("H02", "two lengths", post(_LENGTH, b"Content-Length: %d" % len(body), body=body)),
        Case("H02", "two lengths, the longer first", post(b"Content-Length: %d" % len(body), _LENGTH, body=body)),
        Case("H02", "a list", post(b"Content-Length: %d, %d" % (len(BODY), len(BODY)))),
        Case("H02", "a sign", post(b"Content-Length: +%d" % len(BODY))),
        Case("H02", "minus one", post(b"Content-Length: -1")),
        Case("H02", "hexadecimal", post(b"Content-Length: 0x%x" % len(BODY))),
        Case("H02", "a space within", post(b"Content-Length: 3 9")),
        Case("H02", "an underscore", post(b"Content-Length: 3_9")),
        Case("H02", "beyond 64 bits", post(b"Content-Length: 18446744073709551655"), frozenset({400, 413})),
        Case("H02", "superscript digits", post(b"Content-Length: \xb3\xb9")),
        Case("H02", "nothing", post(b"Content-Length: ")),
    ]


def _codings() -> list[Case]:
    refused = frozenset({400, 501})
    odd = {
        "xchunked": b"Transfer-Encoding: xchunked",
        "chunked, identity": b"Transfer-Encoding: chunked, identity",
        "identity": b"Transfer-Encoding: identity",
        "identity, chunked": b"Transfer-Encoding: identity, chunked",
        "gzip, chunked": b"Transfer-Encoding: gzip, chunked",
        "chunked, chunked": b"Transfer-Encoding: chunked, chunked",
        "two lines of chunked": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "chunked and identity on two lines": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "quoted": b'Transfer-Encoding: "chunked"',
        "with a parameter": b"Transfer-Encoding: chunked;q=1",
        "a vertical tab before it": b"Transfer-Encoding: \x0bchunked",
        "a comma before it": b"Transfer-Encoding: ,chunked",
        "folded": b"Transfer-Encoding:\r\n chunked",
        "a space before the colon": b"Transfer-Encoding : chunked",
        "a tab before the colon": b"Transfer-Encoding\t: chunked",
        "empty": b"Transfer-Encoding: ",
    }
    return [
        *(Case("H03", name, post(line, body=_CHUNKED + SMUGGLED), refused) for name, line in odd.items()),
        Case(
            "H03",
            "chunked under HTTP/1.0",
            post(b"Transfer-Encoding: chunked", b"Connection: keep-alive", body=_CHUNKED + SMUGGLED, version=b"1.0"),
            refused,
        ),
    ]


def _chunks() -> list[Case]:
    size = b"%x" % len(BODY)
    odd = {
        "plus": b"+" + size + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
        "minus": b"-" + size + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
        "0x": b"0x" + size + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
        "an underscore": b"2_7\r\n" + BODY + b"\r\n0\r\n\r\n",
        "a space within": b"2 7\r\n" + BODY + b"\r\n0\r\n\r\n",
        "a space before": b" 27\r\n" + BODY + b"\r\n0\r\n\r\n",
        "a space behind": b"27 \r\n" + BODY + b"\r\n0\r\n\r\n",
        "no size": b"\r\n" + BODY + b"\r\n0\r\n\r\n",
        "beyond 64 bits": b"1" + b"0" * 14 + size + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
        "a bare LF after the size": size + b"\n" + BODY + b"\r\n0\r\n\r\n",
        "a bare CR in an extension": size + b";a=\rb\r\n" + BODY + b"\r\n0\r\n\r\n",
        "a bare LF in an extension": size + b";a=\nb\r\n" + BODY + b"\r\n0\r\n\r\n",
        "junk after the data": size + b"\r\n" + BODY + b"XX0\r\n\r\n",
        "a bare LF after the data": size + b"\r\n" + BODY + b"\n0\r\n\r\n",
        "a bare LF after the last chunk": size + b"\r\n" + BODY + b"\r\n0\n\n",
        "a size that is too small": b"5\r\n" + BODY + b"\r\n0\r\n\r\n",
    }
    chunked = b"Transfer-Encoding: chunked"
    return [Case("H04", name, post(chunked, body=body + SMUGGLED)) for name, body in odd.items()]


def _headers() -> list[Case]:
    odd = {
        "CR": b"X-Odd: a\rb",
        "LF": b"X-Odd: a\nb",
        "NUL": b"X-Odd: a\x00b",
        "DEL": b"X-Odd: a\x7fb",
        "ESC": b"X-Odd: a\x1bb",
        "a folded line": b"X-Odd: a\r\n b",
        "a space in the name": b"X Odd: a",
        "a space before the colon": b"X-Odd : a",
        "a name that is not ASCII": b"X-\xd6dd: a",
        "no colon": b"X-Odd",
        "no name": b": a",
    }
    readable = {"UTF-8": "X-Odd: é".encode(), "Latin-1": b"X-Odd: \xe9"}
    return [
        *(Case("H15", name, post(line, _LENGTH)) for name, line in odd.items()),
        *(Case("H15", name, post(line, _LENGTH), closes=False) for name, line in readable.items()),
    ]


def _versions() -> list[Case]:
    refused = frozenset({400, 505})
    get = b"\r\nHost: localhost\r\n\r\n"
    return [
        Case("H24", "HTTP/0.9", b"GET /health/live\r\n\r\n" + SMUGGLED, refused),
        Case("H24", "HTTP/3.9", b"GET /health/live HTTP/3.9" + get, refused),
        Case("H24", "HTTP/2.0", b"GET /health/live HTTP/2.0" + get, refused),
        Case("H24", "http/1.1", b"GET /health/live http/1.1" + get, refused),
        Case("H24", "no digits", b"GET /health/live HTTP/" + get, refused),
        Case("H24", "two digits", b"GET /health/live HTTP/1.10" + get, refused),
    ]


CORPUS: Final = (*_two_framings(), *_two_lengths(), *_codings(), *_chunks(), *_headers(), *_versions())

# What Granian's parser (hyper) reads otherwise, before anything of ours is asked; `left_out.py` says how.
GRANIAN_READS: Final = frozenset(
    {
        ("H01", "length, then chunked"),
        ("H01", "chunked, then length"),
        ("H01", "length 0 and chunked"),
        ("H01", "length and chunked in odd letters"),
        ("H02", "twice the same"),
        ("H04", "a space behind"),
        ("H04", "junk after the data"),
        ("H04", "a bare LF after the data"),
        ("H04", "a bare LF after the last chunk"),
        ("H15", "UTF-8"),
        ("H15", "Latin-1"),
    }
)

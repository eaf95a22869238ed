"""What every request must keep to before it is looked at: sizes, characters, and one way of saying where it ends.

Web servers refuse most of this themselves, each in its own way and within limits of its own. These are the checks that
both web entry points make, so that the rest is the same everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from service.core.errors import (
    HeadersTooLarge,
    NotOffered,
    TargetTooLong,
    UnreadableRequest,
)

# One line of a header, and how many there may be. The usual limits of web servers and proxies, which some of them
# cannot be told to change.
HEADER_BYTES: Final = 8 * 1024
HEADERS: Final = 100

# Of a line of a header, beside name and value: ": " and the end of the line.
_BESIDE: Final = 4

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Framing:
    """The limits that an operator may change, in bytes: of a request's target, and of its headers together."""

    url_bytes: int
    headers_bytes: int

    def check(self, target_bytes: int, headers: Mapping[str, str], *, fields: int, version: str) -> None:
        """Takes about a microsecond.

        Args:
            target_bytes: of path and query, as they came.
            headers: by lower-case name; the bytes of a value are its characters (Latin-1).
            fields: lines of headers, of which several may be one entry of `headers`.
            version: of HTTP, as "1.1".

        Raises:
            TargetTooLong, HeadersTooLarge: beyond the limits.
            UnreadableRequest: a value holds bytes that are not printable ASCII; or a chunked body under HTTP/1.0,
                whose readers know no chunks (RFC 9112, 6.1).
            NotOffered: the body is coded for its transfer in another way than in chunks. Who takes one for the other
                does not know where it ends.
        """
        if target_bytes > self.url_bytes:
            raise TargetTooLong(f"the URL has {target_bytes} bytes; up to {self.url_bytes} are read")
        values = "".join(headers.values())
        size = len(values) + len("".join(headers)) + _BESIDE * fields
        if size > HEADER_BYTES:  # else none of them is
            self._check_sizes(headers, size)
        if fields > HEADERS:
            raise HeadersTooLarge(f"the request has {fields} headers; up to {HEADERS} are read")
        if not (values.isascii() and values.isprintable()):
            _check_characters(headers)
        if "transfer-encoding" in headers:
            _check_coding(headers["transfer-encoding"], version)

    def _check_sizes(self, headers: Mapping[str, str], size: int) -> None:
        if size > self.headers_bytes:
            raise HeadersTooLarge(f"the headers have {size} bytes; up to {self.headers_bytes} are read")
        for name, value in headers.items():
            if len(name) + len(value) + _BESIDE > HEADER_BYTES:
                raise HeadersTooLarge(f"the header {name[:100]} is larger than {HEADER_BYTES} bytes")


# By default, and where nobody has said otherwise.
STRICT: Final = Framing(url_bytes=4096, headers_bytes=16 * 1024)


def _check_characters(headers: Mapping[str, str]) -> None:
    """A tab is the one character beside printable ASCII that a value may hold (RFC 9110, 5.5)."""
    for name, value in headers.items():
        if not value.isascii() or _CONTROL.search(value):
            raise UnreadableRequest(f"the header {name[:100]} holds bytes that are not printable ASCII")


def _check_coding(coding: str, version: str) -> None:
    if coding.lower() != "chunked":
        raise NotOffered("Transfer-Encoding: a body comes whole or chunked, coded in no other way")
    if version == "1.0":
        raise UnreadableRequest("Transfer-Encoding: there are no chunks in HTTP/1.0")

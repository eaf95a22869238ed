from __future__ import annotations

from typing import Any

import pytest

from service.core.errors import (
    HeadersTooLarge,
    NotOffered,
    TargetTooLong,
    UnreadableRequest,
)
from service.protocols.framing import HEADER_BYTES, HEADERS, Framing

FRAMING = Framing(url_bytes=100, headers_bytes=10_000)


def check(target_bytes: int = 1, *, fields: int | None = None, version: str = "1.1", **headers: str) -> None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    FRAMING.check(target_bytes, named, fields=len(named) if fields is None else fields, version=version)


def large(size: int) -> str:
    """A value for the header `x` that makes `size` bytes with it."""
    return "v" * (size - len("x: \r\n"))


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="no headers"),
        pytest.param({"target_bytes": 100}, id="URL at the limit"),
        pytest.param({"fields": HEADERS}, id="headers at the limit"),
        pytest.param({"x": large(HEADER_BYTES)}, id="one header at the limit"),
        pytest.param({"x": large(6_000), "y": large(4_000)}, id="all headers at the limit"),
        pytest.param({"x": "a\tb ~"}, id="a tab"),
        pytest.param({"transfer_encoding": "Chunked"}, id="chunked"),
    ],
)
def test_what_is_within_the_limits_passes(given: dict[str, Any]) -> None:
    check(**given)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        pytest.param({"target_bytes": 101}, TargetTooLong, "101 bytes; up to 100", id="URL"),
        pytest.param({"fields": HEADERS + 1}, HeadersTooLarge, "101 headers; up to 100", id="number"),
        pytest.param({"x": large(HEADER_BYTES + 1)}, HeadersTooLarge, "the header x is larger", id="one"),
        pytest.param({"x": large(6_000), "y": large(4_001)}, HeadersTooLarge, "10001 bytes; up to 10000", id="all"),
        pytest.param({"x": "\x00"}, UnreadableRequest, "the header x", id="NUL"),
        pytest.param({"x": "a\rb"}, UnreadableRequest, "the header x", id="CR"),
        pytest.param({"x": "a\nb"}, UnreadableRequest, "the header x", id="LF"),
        pytest.param({"x": "\x7f"}, UnreadableRequest, "the header x", id="DEL"),
        pytest.param({"x": "\xe9"}, UnreadableRequest, "the header x", id="Latin-1"),
        pytest.param({"transfer_encoding": "gzip, chunked"}, NotOffered, "Transfer-Encoding", id="two codings"),
        pytest.param({"transfer_encoding": ""}, NotOffered, "Transfer-Encoding", id="no coding"),
        pytest.param({"transfer_encoding": "chunked", "version": "1.0"}, UnreadableRequest, "HTTP/1.0", id="1.0"),
    ],
)
def test_what_is_beyond_is_refused_without_a_copy_of_it(
    given: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as refused:
        check(**given)

    assert len(str(refused.value)) < 200
    assert str(refused.value).isascii()

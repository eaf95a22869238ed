"""Requests that are well framed and odd all the same: sizes, methods, targets, headers that ask for something else."""

from __future__ import annotations

import json
import re
import socket
import struct
from typing import Final

import pytest

from service.protocols.framing import HEADER_BYTES, HEADERS, STRICT
from tests.conformance.wire import request
from tests.faults.cases import Came, fault
from tests.faults.framing import BODY
from tests.faults.fronts import KNOWN, PREDICT, PROBLEM, Front, is_problem

LIVE: Final = "/health/live"
JSON: Final = [("Content-Type", "application/json")]


def headers_of(size: int) -> list[tuple[str, str]]:
    """Headers that make `size` bytes with those that `request` sends, none of them large."""
    rest = size - len("Host: localhost\r\n")
    headers = []
    while rest > 4000:
        headers.append((f"X-Padding-{len(headers)}", "x" * (4000 - len("X-Padding-0: \r\n"))))
        rest -= 4000
    return [*headers, ("X-Rest", "x" * (rest - len("X-Rest: \r\n")))]


@fault("H13", sent="headers of 16 KiB, and of one byte more", expected="200, then 431")
def test_size_of_all_headers(front: Front, came: Came) -> None:
    fits = front.send(request("GET", LIVE, headers=headers_of(STRICT.headers_bytes)))[0]
    above = front.raw(request("GET", LIVE, headers=headers_of(STRICT.headers_bytes + 1)))

    came(fits.status, above)
    assert fits.status == 200
    assert above.statuses == [431]


@fault("H13", sent="a header of 8 KiB, and of one byte more", expected="200, then 431")
def test_size_of_a_header(front: Front, came: Came) -> None:
    value = "x" * (HEADER_BYTES - len("X-Large: \r\n"))
    fits = front.send(request("GET", LIVE, headers=[("X-Large", value)]))[0]
    above = front.raw(request("GET", LIVE, headers=[("X-Large", value + "x")]))

    came(fits.status, above)
    assert fits.status == 200
    assert above.statuses == [431]
    assert value.encode() not in above.received
    assert value[:1000] not in front.running.log.read_text()


@fault("H13", sent="100 headers, and 101", expected="200, then 431")
@pytest.mark.parametrize("same", [True, False], ids=["of one name", "of many names"])
def test_number_of_headers(front: Front, same: bool, came: Came) -> None:
    headers = [("X-Many" if same else f"X-Many-{index}", "1") for index in range(HEADERS)]
    fits = front.send(request("GET", LIVE, headers=headers[1:]))[0]  # Host is one, too
    above = front.raw(request("GET", LIVE, headers=headers))

    came(fits.status, above)
    assert fits.status == 200
    assert above.statuses == [431]


@fault("H13", sent="a megabyte of headers without an end", expected="431, connection closed, not read to the end")
def test_headers_without_an_end(front: Front, came: Came) -> None:
    padding = [b"X-Padding: %s\r\n" % (b"x" * 1000)] * 1000
    raw = front.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n", *padding, until_closed=True)

    came(raw)
    assert raw.statuses in ([431], [])  # what is sent on after the answer may lose it
    assert raw.closed


@fault("H14", sent="a URL of 4 KiB, and of one byte more", expected="404, then 414")
@pytest.mark.parametrize("part", ["path", "query"])
def test_length_of_the_url(front: Front, part: str, came: Came) -> None:
    prefix = "/" if part == "path" else f"{LIVE}?x="
    target = prefix + "x" * (STRICT.url_bytes - len(prefix))
    fits = front.send(request("GET", target))[0]
    above = front.raw(request("GET", target + "x"))

    came(fits.status, above)
    assert fits.status == (404 if part == "path" else 200)
    assert above.statuses == [414]


@fault(
    "H16",
    sent="a request id of 10 KB, with spaces, with quotes; a traceparent in no hexadecimal",
    expected="a fresh id",
)
@pytest.mark.parametrize(
    "given", ["x" * 129, "a b", 'a"b', "a;b", "", "<script>"], ids=lambda given: given[:8] or "empty"
)
def test_a_request_id_that_is_not_fit_for_a_log(front: Front, given: str, came: Came) -> None:
    headers = [("X-Request-Id", given), ("traceparent", "00-zz-<odd>-01")]

    reply = front.send(request("GET", "/nothing", headers=headers))[0]

    came("a fresh id" if reply.headers["x-request-id"] != given else "the one that was given")
    problem = is_problem(reply, 404)
    assert re.fullmatch("[0-9a-f]{32}", problem["request_id"])
    assert "<odd>" not in front.running.log.read_text()


@fault("H17", sent="TRACE, CONNECT, FOO, get, PATCH", expected="405 with Allow, or 501; nothing is reflected")
@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "FOO", "get", "PATCH", "PROPFIND", "M-SEARCH"])
def test_methods(front: Front, method: str, came: Came) -> None:
    raw = front.raw(request(method, LIVE, headers=[("X-Secret", "s3cret"), ("Connection", "close")]))

    came(raw)
    assert raw.statuses in ([405], [501], *([[400]] if front.name == "granian" and method == "CONNECT" else []))
    assert b"s3cret" not in raw.received
    if raw.statuses == [405]:
        assert b"\r\nallow: get, head\r\n" in raw.received.lower()


@fault("H17", sent="CONNECT host:443", expected="405 or 501, no tunnel")
def test_no_tunnel(front: Front, came: Came) -> None:
    raw = front.raw(b"CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n", request("GET", "/smuggled"))

    came(raw)
    assert raw.statuses[0] in (400, 405, 421, 501)
    assert b"HTTP/1.1 2" not in raw.received


@fault("H18", sent="GET with X-HTTP-Method-Override and friends", expected="ignored: 405")
@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_the_method_is_that_of_the_request_line(front: Front, name: str, came: Came) -> None:
    reply = front.send(request("GET", f"{PREDICT}?_method=POST", BODY, headers=[*JSON, (name, "POST")]))[0]

    came(reply.status)
    is_problem(reply, 405)


@fault("H20", sent="absolute-form, asterisk-form and authority-form targets", expected="routed by path, or 400")
@pytest.mark.parametrize(
    ("target", "statuses"),
    [
        pytest.param("http://localhost/health/live", {200, 400}, id="absolute"),
        pytest.param("http://localhost/nothing", {404, 400}, id="absolute, no route"),
        pytest.param("http://other/health/live", {200, 400, 421}, id="absolute, another host"),
        pytest.param("*", {400, 404, 405}, id="asterisk"),
        pytest.param("localhost:80", {400, 404}, id="authority"),
        pytest.param("health/live", {400, 404}, id="no slash"),
        pytest.param("//health/live", {400, 404}, id="two slashes"),
    ],
)
def test_targets(front: Front, target: str, statuses: set[int], came: Came) -> None:
    raw = front.raw(request("GET", target, headers=[("Connection", "close")]))

    came(raw)
    assert len(raw.statuses) == 1
    assert raw.statuses[0] in statuses


@fault(
    "H25", sent="the HTTP/2 preface and 1000 frames on the port of HTTP/1.1", expected="400 or 505, connection closed"
)
def test_no_http_2(front: Front, came: Came) -> None:
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    reset = b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08"

    raw = front.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + reset * 1000, until_closed=True)

    came(raw)
    assert raw.statuses in ([400], [501], [505], [])
    assert raw.closed


@fault("H26", sent="1000 ranges on the page of documentation", expected="ignored: 200, all of it, once")
@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_ranges(front: Front, path: str, came: Came) -> None:
    whole = front.send(request("GET", path))[0]
    ranges = "bytes=" + ",".join(f"{index}-{index + 1}" for index in range(1000))

    reply = front.send(request("GET", path, headers=[("Range", ranges[: HEADER_BYTES - 100])]))[0]

    came(reply.status)
    assert (reply.status, reply.body) == (200, whole.body)


@fault("H29", sent="Upgrade: websocket, h2c", expected="ignored, and nothing behind it is read as another protocol")
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(
            [
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ],
            id="websocket",
        ),
        pytest.param(
            [("Upgrade", "h2c"), ("Connection", "Upgrade, HTTP2-Settings"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")],
            id="h2c",
        ),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_upgrades(front: Front, method: str, headers: list[tuple[str, str]], came: Came) -> None:
    path, body = (LIVE, None) if method == "GET" else (PREDICT, BODY)

    raw = front.raw(request(method, path, body, headers=[*JSON, *headers]))

    came(raw)
    assert raw.statuses in ([200], [400], [426])


@fault("H31", sent="TLS bytes on the plain port, 100 times", expected="closed; few lines in the log")
def test_tls_on_the_plain_port(front: Front, came: Came) -> None:
    hello = bytes.fromhex("160301002a010000260303") + bytes(32) + bytes.fromhex("000002130101000000")
    lines = len(front.running.log.read_bytes().splitlines())

    replies = [front.raw(hello, until_closed=True) for _ in range(100)]

    came(replies[0], f"{len(front.running.log.read_bytes().splitlines()) - lines} lines")
    assert all(raw.closed for raw in replies)
    assert len(front.running.log.read_bytes().splitlines()) - lines <= 100
    assert PROBLEM.encode() in replies[0].received or front.name == "granian"


@fault("H08", sent="65,537 one-byte chunks", expected="read, three times over, in little more memory")
def test_small_chunks(front: Front, came: Came) -> None:
    body = BODY + b" " * (65_537 - len(BODY))
    message = request("POST", PREDICT, headers=JSON, chunks=[bytes([byte]) for byte in body])
    front.send(message)
    before = front.memory_bytes()

    replies = front.send(message, message, message)

    grown = front.memory_bytes() - before
    came(replies[0].status, f"{grown >> 20} MiB more")
    assert [json.loads(reply.body)["predictions"] for reply in replies] == [KNOWN] * 3
    assert grown < 16 * 1024 * 1024


@fault("H08", sent="1,000,000 one-byte chunks", expected="413")
def test_too_many_chunks(front: Front, came: Came) -> None:
    if front.name == "granian":
        pytest.skip("Granian hands the app no chunks, only what they hold; see left_out.py")
    message = request("POST", PREDICT, headers=JSON, chunks=[b" "] * 1_000_000)

    raw = front.raw(message, until_closed=True)

    came(raw)
    assert raw.statuses in ([413], [])  # what is sent on after the answer may lose it
    assert raw.closed


@fault("H28", sent="50 predictions, and the connection reset at once", expected="slots freed, no traceback")
def test_callers_that_hang_up(front: Front, came: Came) -> None:
    since = front.running.log.stat().st_size
    for _ in range(50):
        with front.connect() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(request("POST", PREDICT, BODY, headers=JSON))

    reply = front.post(BODY)

    log = front.running.log.read_bytes()[since:]
    came(reply.status, f"{log.count(b'499')} logged as 499")
    assert json.loads(reply.body)["predictions"] == KNOWN
    assert b"Traceback" not in log and b'"exception"' not in log

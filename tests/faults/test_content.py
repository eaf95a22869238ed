"""Section C: content types, codings, sizes."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest

from tests.conformance.wire import request
from tests.faults.cases import Came, fault
from tests.faults.fronts import GOOD, KNOWN, PREDICT, Front, is_problem

BODY: Final = json.dumps(GOOD).encode()
JSON: Final = ("Content-Type", "application/json")
NPY: Final = ("Content-Type", "application/x-npy")
ARROW: Final = ("Content-Type", "application/vnd.apache.arrow.stream")
MIB: Final = 2**20
MAX_BODY: Final = 10 * MIB

# What a request that is bounded may leave behind in allocators, and no more.
SLACK: Final = 128 * MIB


@fault("C01", sent="JSON without Content-Type to a native route", expected="415")
def test_json_without_a_content_type(front: Front, came: Came) -> None:
    reply = front.send(request("POST", PREDICT, BODY))[0]

    came(reply.status)
    is_problem(reply, 415)


@fault("C01", sent="JSON without Content-Type to V1, V2 and MLflow", expected="200: their clients send none")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/v1/models/numbers:predict", GOOD, id="V1"),
        pytest.param(
            "/v2/models/numbers/infer",
            {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": GOOD["instances"][0]}]},
            id="V2",
        ),
        pytest.param("/invocations?model=numbers", GOOD, id="SageMaker and MLflow"),
    ],
)
def test_json_without_a_content_type_where_clients_send_none(front: Front, came: Came, path: str, body: Any) -> None:
    reply = front.send(request("POST", path, json.dumps(body).encode()))[0]

    came(reply.status)
    assert reply.status == 200, reply.body


@fault("C02", sent="JSON as text/plain, a form, multipart", expected="415")
@pytest.mark.parametrize(
    "kind", ["text/plain", "text/plain;charset=utf-8", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_what_a_browser_sends_unasked(front: Front, came: Came, kind: str) -> None:
    reply = front.post(BODY, ("Content-Type", kind))

    came(reply.status)
    is_problem(reply, 415)


@fault("C03", sent="application/json with a charset that is not UTF-8", expected="415")
@pytest.mark.parametrize("charset", ["utf-16", "UTF-16LE", "latin-1", "iso-8859-1", "nonsense", '"utf-7"'])
def test_json_in_another_charset(front: Front, came: Came, charset: str) -> None:
    reply = front.post(BODY, ("Content-Type", f"application/json; charset={charset}"))

    came(reply.status)
    is_problem(reply, 415)


@fault("C04", sent="a byte order mark before the JSON, short and long", expected="400")
@pytest.mark.parametrize("rows", [1, 1000])
def test_byte_order_mark(front: Front, came: Came, rows: int) -> None:
    reply = front.post(b"\xef\xbb\xbf" + json.dumps({"instances": GOOD["instances"] * rows}).encode(), JSON)

    came(reply.status)
    is_problem(reply, 400)


@fault("C05", sent="invalid, overlong and cut UTF-8, in a key, in a text and bare", expected="400")
@pytest.mark.parametrize(
    "octets", [b"\xff", b"\xc0\xaf", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80"]
)
def test_bytes_that_are_no_utf8(front: Front, came: Came, octets: bytes) -> None:
    for body in (
        b'{"x%s": 1}',
        b'{"instances": [["%s"]]}',
        b'{"instances": [[1, 2, 3, 4]], %s}',
        b'{"x": 1e400, "%s": 1}',
    ):
        reply = front.post(body % octets)
        came(reply.status)
        is_problem(reply, 400)


@fault("C06", sent="half a surrogate pair in a text, in a key, as the name of an output", expected="400")
@pytest.mark.parametrize(
    ("model", "body"),
    [
        pytest.param("opinions", rb'{"instances": ["great \ud800 fun"]}', id="a text"),
        pytest.param("people", rb'{"since": "2024-01-01", "city": "\udc00"}', id="a category"),
        pytest.param("numbers", rb'{"instances": [{"x\ud83e": 1}]}', id="a column"),
        pytest.param("numbers", rb'{"\ud800": 1}', id="a field"),
        pytest.param("numbers", rb'{"instances": [[1, 2, 3, 4]], "outputs": ["\udfff"]}', id="an output"),
        pytest.param("numbers", rb'{"\ud800": 1e400}', id="beside a number out of range"),
    ],
)
def test_half_a_surrogate_pair(front: Front, came: Came, model: str, body: bytes) -> None:
    reply = front.post(body, path=f"/models/{model}/predict")

    came(reply.status)
    is_problem(reply, 400)


@fault("C07", sent="an empty body, spaces only", expected="400")
@pytest.mark.parametrize("body", [b"", b" ", b"\r\n\t "])
def test_empty_body(front: Front, came: Came, body: bytes) -> None:
    reply = front.post(body)

    came(reply.status)
    is_problem(reply, 400)


@fault("C08", sent='null, 1, [], "x", true, {}', expected="422")
@pytest.mark.parametrize("body", [b"null", b"1", b"[]", b'"x"', b"true", b"{}"])
def test_json_that_is_no_request(front: Front, came: Came, body: bytes) -> None:
    reply = front.post(body)

    came(reply.status)
    is_problem(reply, 422)


@fault("C09", sent="Content-Encoding br, zstd, compress, gzip twice", expected="415 with Accept-Encoding")
@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "gzip, identity", "nonsense"])
def test_coding_that_is_not_read(front: Front, came: Came, coding: str) -> None:
    reply = front.post(gzip.compress(gzip.compress(BODY)), JSON, ("Content-Encoding", coding))

    came(reply.status)
    is_problem(reply, 415)
    assert reply.headers["accept-encoding"] == "gzip, deflate"


@fault("C09", sent="Content-Encoding gzip, deflate", expected="200: they are on, see below")
@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_coding_that_is_read(front: Front, came: Came, coding: str, pack: Any) -> None:
    reply = front.post(pack(BODY), JSON, ("Content-Encoding", coding))

    came(reply.status)
    assert json.loads(reply.body)["predictions"] == KNOWN


_MEMBER: Final = gzip.compress(bytes(MIB))


@fault("C10", sent="9 GB in 9 MB of gzip: one stream, many members", expected="413, memory bounded")
@pytest.mark.parametrize("body", [_MEMBER * (9 * MIB // len(_MEMBER)), gzip.compress(bytes(500 * MIB), 1)], ids=len)
def test_compression_bomb(front: Front, came: Came, body: bytes) -> None:
    before = front.memory_bytes()
    assert len(body) < MAX_BODY

    for _ in range(3):
        reply = front.post(body, JSON, ("Content-Encoding", "gzip"))
        came(reply.status)
        is_problem(reply, 413)

    assert front.memory_bytes() - before < SLACK


@fault("C10", sent="gzip that is cut, corrupt, followed by junk, or twice what it says", expected="400")
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(gzip.compress(BODY)[:-1], id="cut"),
        pytest.param(gzip.compress(BODY)[:5], id="cut in its header"),
        pytest.param(gzip.compress(BODY) + b"junk", id="junk behind it"),
        pytest.param(gzip.compress(BODY)[:-8] + bytes(8), id="wrong checksum"),
        pytest.param(gzip.compress(gzip.compress(BODY)), id="nested"),
        pytest.param(gzip.compress(b"") * 100_000, id="empty members"),
        pytest.param(BODY, id="not compressed"),
    ],
)
def test_gzip_that_is_none(front: Front, came: Came, body: bytes) -> None:
    reply = front.post(body, JSON, ("Content-Encoding", "gzip"))

    came(reply.status)
    is_problem(reply, 400)


_HEAD: Final = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()


@fault("C11", sent="the headers of a body of 100 MB", expected="413 before any of it is sent")
def test_body_that_says_how_large_it_is(front: Front, came: Came) -> None:
    answer = answer_to_headers(front, 100_000_000)

    came(answer.split(b"\r\n")[0].decode())
    assert answer.startswith(b"HTTP/1.1 413")


def answer_to_headers(front: Front, length: int) -> bytes:
    """The beginning of what comes while none of the body was sent."""
    with front.connect() as connection:
        connection.sendall(_HEAD + b"Content-Length: %d\r\n\r\n" % length)
        return connection.recv(65536)


@fault("C11", sent="a body of 100 MB in chunks", expected="413 at the limit, memory bounded")
def test_body_that_does_not_say_how_large_it_is(front: Front, came: Came) -> None:
    before = front.memory_bytes()
    chunk = b"%x\r\n%s\r\n" % (MIB, b" " * MIB)

    raw = front.raw(_HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n", *[chunk] * 100)

    came(raw)
    assert raw.statuses in ([413], [])  # nothing, where the connection was reset while it was still being written to
    assert front.memory_bytes() - before < SLACK


@fault("C12", sent="multipart of 100 000 parts, a boundary of 10 000 bytes, a form of a million fields", expected="415")
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param("multipart/form-data; boundary=x", b"--x\r\n\r\n1\r\n" * 100_000, id="parts"),
        pytest.param("multipart/form-data; boundary=" + "x" * 5000, b"--" + b"x" * 5000, id="boundary"),
        pytest.param("application/x-www-form-urlencoded", b"a=1&" * 1_000_000, id="fields"),
    ],
)
def test_forms_are_never_parsed(front: Front, came: Came, kind: str, body: bytes) -> None:
    reply = front.post(body, ("Content-Type", kind))

    came(reply.status)
    is_problem(reply, 415)


@fault("C13", sent="Accept: text/html, application/xml", expected="406; errors are problem+json whatever is accepted")
@pytest.mark.parametrize("accept", ["text/html", "application/xml", "application/json;q=0", "image/*"])
def test_answer_in_a_form_there_is_none_of(front: Front, came: Came, accept: str) -> None:
    answered = front.post(BODY, JSON, ("Accept", accept))
    failed = front.post(b"{", JSON, ("Accept", accept))

    came(answered.status, failed.status)
    is_problem(answered, 406)
    is_problem(failed)


@fault("C13", sent="Accept: a browser's, a list, nonsense", expected="200 in JSON")
@pytest.mark.parametrize("accept", ["*/*", "text/html,application/xml;q=0.9,*/*;q=0.8", "application/*", ""])
def test_answer_in_whatever_form(front: Front, came: Came, accept: str) -> None:
    reply = front.post(BODY, JSON, ("Accept", accept))

    came(reply.status)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")


@fault("C14", sent="every kind of request", expected="its Content-Type, nosniff, no-store, no version of a server")
def test_headers_of_every_answer(front: Front, came: Came) -> None:
    for method, path, status, kind in (
        ("GET", "/health/live", 200, "application/json"),
        ("GET", "/models", 200, "application/json"),
        ("GET", "/models/numbers", 200, "application/json"),
        ("GET", "/openapi.json", 200, "application/json"),
        ("POST", PREDICT, 200, "application/json"),
        ("POST", "/models/nobody/predict", 404, "application/problem+json"),
        ("PUT", PREDICT, 405, "application/problem+json"),
        ("GET", "/nowhere", 404, "application/problem+json"),
    ):
        reply = front.ask(method, path, json=GOOD if method == "POST" else None)
        came(reply.status_code)
        assert (reply.status_code, reply.headers["content-type"]) == (status, kind)
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert not any(letter.isdigit() for letter in reply.headers.get("server", "")), reply.headers["server"]
        assert "x-powered-by" not in reply.headers


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=allow_pickle)
    return content.getvalue()


def npy_claiming(shape: tuple[int, ...]) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return content.getvalue() + bytes(32)


class Canary:
    """Fails the test process's own writing of it, and whoever opens the pickle."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('unpickled')",)


def arrow(table: Any) -> bytes:
    content = io.BytesIO()
    with pa.ipc.new_stream(content, table.schema) as writer:
        writer.write_table(table)
    return content.getvalue()


_ARROW: Final = arrow(pa.table({f"x{at}": np.zeros(8) for at in range(4)}))


@fault("C15", sent="npy of objects, of a pickle, of 10^12 elements, of the wrong length; Arrow cut or flipped",
       expected="400 or 422, nothing unpickled, memory bounded")  # fmt: skip
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param(NPY, npy(np.array([[Canary()] * 4], dtype=object), allow_pickle=True), id="objects"),
        pytest.param(NPY, b"\x80\x04cbuiltins\nexec\n.", id="a bare pickle"),
        pytest.param(NPY, npy_claiming((10**12, 4)), id="10^12 rows"),
        pytest.param(NPY, npy_claiming((2**62, 2**62)), id="a product that overflows"),
        pytest.param(NPY, npy_claiming((-1, 4)), id="negative"),
        pytest.param(NPY, npy(np.zeros((2, 4)))[:-1], id="a byte short"),
        pytest.param(NPY, npy(np.zeros((2, 4))) + b"\0", id="a byte long"),
        pytest.param(NPY, b"\x93NUMPY\x01\x00\xff\xff" + b"{" * 65535, id="no header"),
        pytest.param(ARROW, _ARROW[: len(_ARROW) // 2], id="Arrow cut"),
        pytest.param(ARROW, b"\xff\xff\xff\xff\xff\xff\xff\x7f" + _ARROW[8:], id="Arrow of 2 GB of metadata"),
    ],
)
def test_binary_that_lies(front: Front, came: Came, kind: tuple[str, str], body: bytes) -> None:
    before = front.memory_bytes()

    reply = front.post(body, kind)

    came(reply.status)
    assert is_problem(reply)["status"] in (400, 422)
    assert front.memory_bytes() - before < SLACK


@fault("C15", sent="Arrow with each of its bytes inverted in turn", expected="an answer or 4xx")
def test_arrow_with_a_byte_inverted(front: Front, came: Came) -> None:
    statuses = set()
    for at in range(0, len(_ARROW), 7):
        body = _ARROW[:at] + bytes([_ARROW[at] ^ 0xFF]) + _ARROW[at + 1 :]
        statuses.add(front.post(body, ARROW).status)

    came(*sorted(statuses))
    assert statuses <= {200, 400, 413, 422}


@fault("C16", sent="a body of the limit, and a byte less", expected="200")
@pytest.mark.parametrize("size", [MAX_BODY - 1, MAX_BODY])
def test_body_at_the_limit(front: Front, came: Came, size: int) -> None:
    reply = front.post(BODY.ljust(size))

    came(reply.status)
    assert reply.status == 200, reply.body


@fault("C16", sent="the headers of a body a byte over the limit", expected="413")
def test_body_over_the_limit(front: Front, came: Came) -> None:
    answer = answer_to_headers(front, MAX_BODY + 1)

    came(answer.split(b"\r\n")[0].decode())
    assert answer.startswith(b"HTTP/1.1 413")

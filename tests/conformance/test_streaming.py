"""`/predict/stream` on every server: the same bytes, however they come; answers before the end; bounded memory."""

from __future__ import annotations

import http.client
import select
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow as pa
import pytest

from tests.conformance.models import mixed_table
from tests.conformance.servers import SERVERS, UNTRIED, Running, eventually, tandem_serve
from tests.faults.fronts import Front
from tests.service.protocols.streaming.bodies import stream_of

LINES: Final = "application/x-ndjson"
ARROW: Final = "application/vnd.apache.arrow.stream"
PROBLEM: Final = "application/problem+json"
PATIENCE_S: Final = 60.0
MIB: Final = 2**20

# What a WSGI server collects of a body before the app gets any of it, and some more.
BLOCK_BYTES: Final = 200 * 1024


@contextmanager
def asked(
    server: Running, path: str, pieces: Iterable[bytes], content_type: str = LINES, **headers: str
) -> Iterator[http.client.HTTPResponse]:
    """The answer to a body that is sent by another thread, piece by piece, while it is read."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)) as connection:
        connection.putrequest("POST", path)
        for name, value in {"Content-Type": content_type, "Transfer-Encoding": "chunked", **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        connected: Any = connection.sock

        def write() -> None:
            try:
                for piece in pieces:
                    connected.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                connected.sendall(b"0\r\n\r\n")
            except OSError:  # the other side closed: the answer says why
                pass

        writing = threading.Thread(target=write, daemon=True)
        writing.start()
        yield connection.getresponse()
        writing.join(PATIENCE_S)


def ask(server: Running, path: str, *pieces: bytes, **more: Any) -> tuple[int, dict[str, str], bytes]:
    with asked(server, path, pieces, **more) as answer:
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, headers, answer.read()


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, servers: Mapping[str, Running]) -> Running:
    return servers[request.param]


@pytest.fixture(params=SERVERS)
def front(request: pytest.FixtureRequest, servers: Mapping[str, Running]) -> Front:
    return Front(request.param, servers[request.param])


PEOPLE: Final = b"""{"age":41,"city":"Graz","plan":"pro","member":true,"since":"2024-02-01","visits":40}
{"age":null,"city":null,"plan":"free","member":false,"since":"2024-02-01","visits":3}
nonsense

[23,"Linz","team",true,"2025-01-01T10:00",17]
{"age":"41","city":"Graz"}
{"age":41,"city":"\xff"}"""

ARROWS: Final = stream_of(
    pa.Table.from_pandas(mixed_table().head(5).astype({"plan": object}), preserve_index=False),
    pa.Table.from_pandas(mixed_table().tail(2).astype({"plan": object}), preserve_index=False),
)


@pytest.mark.parametrize(
    ("content_type", "body"), [(LINES, PEOPLE), (ARROW, ARROWS), (ARROW, ARROWS[:-100])], ids=["lines", "arrow", "cut"]
)
def test_every_server_answers_alike_however_the_body_comes(
    servers: Mapping[str, Running], content_type: str, body: bytes
) -> None:
    halves = (body[:100], body[100:])
    ways = (halves, (body,), tuple(body[at : at + 7] for at in range(0, len(body), 7)))

    answers = [
        ask(server, "/models/people/predict/stream?outputs=predict", *pieces, content_type=content_type)
        for server in servers.values()
        for pieces in ways
    ]

    assert {(status, headers["content-type"], headers["x-model-version"]) for status, headers, _ in answers} == {
        (200, content_type, "1")
    }
    assert len({content for _, _, content in answers}) == 1


@pytest.mark.parametrize("worker_class", ["gevent", "sync"])
def test_other_workers_of_gunicorn_answer_alike(
    servers: Mapping[str, Running], repository: Path, tmp_path: Path, worker_class: str
) -> None:
    arguments = ("--framework", "flask", "--server", "gunicorn", "--worker-class", worker_class)
    trusted = ("--models", str(repository), "--trust", "tests.conformance.models.days")
    path = "/models/people/predict/stream"

    with tandem_serve(*arguments, *trusted, log=tmp_path / "log", environment=UNTRIED) as server:
        found = ask(server, path, PEOPLE)
        before_the_end = _is_answered_before_the_body_ends(server)

    assert (found[0], found[2]) == (200, ask(servers["uvicorn"], path, PEOPLE)[2])
    assert before_the_end


def test_rows_and_errors_are_in_their_places(server: Running) -> None:
    _, headers, content = ask(server, "/models/people/predict/stream", PEOPLE)

    lines = [orjson.loads(line) for line in content.splitlines()]
    assert [line.get("prediction", line.get("error", {}).get("row")) for line in lines] == [
        "stays", "leaves", 2, "leaves", 4, 5,
    ]  # fmt: skip
    assert headers["x-model-name"] == "people"
    (line,) = eventually(lambda: _logged(server, headers["x-request-id"]), "a line in the log")
    assert (line["status"], line["error"]) == (200, "UnreadableRequest")


def _logged(server: Running, request_id: str) -> list[dict[str, Any]]:
    lines = server.log.read_bytes().split(b"\n")[:-1]
    return [orjson.loads(line) for line in lines if request_id.encode() in line]


def test_body_of_known_length_is_streamed_too(server: Running) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)) as connection:
        connection.request("POST", "/models/versions/predict/stream", b"[1,2]\n[3,4]", {"Content-Type": LINES})
        answer = connection.getresponse()

        assert (answer.status, answer.read().count(b"prediction")) == (200, 2)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        pytest.param("/models/nobody/predict/stream", {}, 404, id="unknown model"),
        pytest.param("/models/numbers/predict/stream?outputs=magic", {}, 422, id="unknown output"),
        pytest.param("/models/numbers/predict/stream", {"content_type": "application/json"}, 415, id="type"),
        pytest.param("/models/numbers/predict/stream", {"Content-Encoding": "gzip"}, 415, id="compressed"),
        pytest.param("/models/numbers/predict/stream", {"Content-Encoding": "br"}, 415, id="compressed otherwise"),
        pytest.param("/models/numbers/predict/stream", {"Accept": "application/json"}, 406, id="accept"),
    ],
)
def test_what_is_wrong_before_the_first_row_is_an_ordinary_error(
    server: Running, path: str, headers: dict[str, Any], status: int
) -> None:
    got, about, content = ask(server, path, b"[1,2,3,4]\n", **headers)

    assert (got, about["content-type"]) == (status, PROBLEM)
    assert orjson.loads(content)["status"] == status


def test_one_row_is_answered_before_the_next_is_sent(servers: Mapping[str, Running]) -> None:
    """Under ASGI. A WSGI server waits for a block, or the end."""
    go_on = threading.Event()

    def rows() -> Iterator[bytes]:
        yield b"[1,2]\n"
        assert go_on.wait(PATIENCE_S)
        yield b"[3,4]\n"

    with asked(servers["uvicorn"], "/models/versions/predict/stream", rows()) as answer:
        assert answer.readline().startswith(b'{"prediction":')
        go_on.set()
        assert answer.readline().startswith(b'{"prediction":')


def test_rows_are_answered_before_the_body_ends(server: Running) -> None:
    assert _is_answered_before_the_body_ends(server)


def _is_answered_before_the_body_ends(server: Running) -> bool:
    go_on = threading.Event()
    block = b"[1,2]\n" * (BLOCK_BYTES // 6)

    def rows() -> Iterator[bytes]:
        yield block
        assert go_on.wait(PATIENCE_S)
        yield b"[3,4]\n"

    with asked(server, "/models/versions/predict/stream", rows()) as answer:
        first = answer.readline()
        go_on.set()
        others = answer.readlines()

    return first.startswith(b'{"prediction":') and len(others) == len(block) // 6


def test_caller_that_waits_to_be_told_to_send_is_told(server: Running) -> None:
    head = (
        b"POST /models/versions/predict/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-ndjson\r\n"
        b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    )
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection,
        connection.makefile("rb") as answer,
    ):
        connection.sendall(head)

        assert answer.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert answer.readline() == b"\r\n"
        connection.sendall(b"6\r\n[1,2]\n\r\n0\r\n\r\n")
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"


def test_body_may_be_larger_than_that_of_a_request_and_takes_no_memory(front: Front) -> None:
    rows = 1_000
    block = b"[0.25,0.5,0.75,1.0]\n" * rows
    path = "/models/numbers/predict/stream?outputs=predict,predict_proba"

    def memory_after(blocks: int) -> int:
        with asked(front.running, path, (block for _ in range(blocks))) as answer:
            came = sum(1 for _ in answer)
        assert came == rows * blocks
        return front.memory_bytes()

    before = memory_after(20)
    grown = memory_after(150) - before  # 3 MB in, 15 MB out

    assert grown < 6 * MIB


def test_slow_reader_stops_the_reading(front: Front) -> None:
    block = b"[0.25,0.5,0.75,1.0]\n" * 1_000
    chunk = b"%x\r\n%s\r\n" % (len(block), block)
    head = (
        b"POST /models/numbers/predict/stream?outputs=predict,predict_proba HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    before = front.memory_bytes()

    with closing(socket.socket()) as connection:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):  # else the kernel itself takes megabytes
            connection.setsockopt(socket.SOL_SOCKET, option, 64 * 1024)
        connection.connect(("127.0.0.1", front.port))
        connection.sendall(head)
        connection.setblocking(False)
        sent, left = 0, b""
        while sent < 64 * MIB and select.select([], [connection], [], 2)[1]:
            left = left or chunk
            took = connection.send(left)
            sent, left = sent + took, left[took:]
        grown = front.memory_bytes() - before

        # It goes on where it stopped, once somebody reads.
        connection.settimeout(PATIENCE_S)
        writing = threading.Thread(target=connection.sendall, args=(left + b"0\r\n\r\n",))
        writing.start()
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        came = answer.read().count(b"\n")
        writing.join(PATIENCE_S)

    assert sent < 32 * MIB  # of which the kernel holds some
    assert grown < 24 * MIB
    assert came == (sent + len(left)) // len(chunk) * 1_000

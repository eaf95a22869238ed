"""The bundled load generator, against a server in the same event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.client import content_length, load, percentile, post

BODIES = (b'{"a": 1}', b'{"a": 22}')


def answers(status: str, *, closes: bool = False) -> Any:
    """A server's callback: reads requests, answers each with `status` and its own body."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(content_length(head.lower()))
                close = "Connection: close\r\n" if closes else ""
                writer.write(f"HTTP/1.1 {status}\r\n{close}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                if closes:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    return serve


def asked(serve: Any, connections: int, *, steady: bool = False) -> dict[str, float]:
    async def main() -> dict[str, float]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await load(f"http://127.0.0.1:{port}/predict?x=1", BODIES, connections, 0.2, steady=steady)

    return asyncio.run(main())


@pytest.mark.parametrize("steady", [False, True])
def test_good_replies_are_counted(steady: bool) -> None:
    serve = answers("200 OK")

    found = asked(serve, 4, steady=steady)

    assert found["requests"] > 4
    assert found["status"] == found["read"] == found["connect"] == 0
    assert 0 < found["p50_us"] <= found["p99_us"] <= found["max_us"]


def test_bad_replies_are_counted_as_errors() -> None:
    serve = answers("503 Service Unavailable")

    found = asked(serve, 2)

    assert found["status"] >= found["requests"] > 0


def test_connection_that_the_server_closes_is_opened_again() -> None:
    serve = answers("200 OK", closes=True)

    found = asked(serve, 1)

    assert found["requests"] > 1
    assert found["read"] == 0


@pytest.mark.parametrize(("steady", "counted"), [(True, 0), (False, 3)])
def test_first_reply_of_a_connection_is_not_a_steady_one(steady: bool, counted: int) -> None:
    async def answers_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.read()  # until the client has gone
        writer.close()

    found = asked(answers_once, 3, steady=steady)

    assert found["requests"] == counted


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        pytest.param([3, 1, 2], 50, 2, id="middle"),
        pytest.param([1, 2, 3, 4], 50, 2, id="even"),
        pytest.param(range(1, 101), 99, 99, id="one of a hundred is above"),
        pytest.param([7], 99, 7, id="one"),
        pytest.param([], 99, 0, id="none"),
    ],
)
def test_percentile_is_the_nearest_rank(values: Sequence[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


def test_request_names_its_length_and_keeps_its_query() -> None:
    request = post("/predict?outputs=predict_proba", "127.0.0.1:80", b'{"a": 1}')

    assert request.startswith(b"POST /predict?outputs=predict_proba HTTP/1.1\r\n")
    assert b"Content-Length: 8\r\n" in request
    assert request.endswith(b'\r\n\r\n{"a": 1}')


def test_reply_without_a_length_is_refused() -> None:
    head = b"http/1.1 200 ok\r\ntransfer-encoding: chunked\r\n\r\n"

    with pytest.raises(ValueError, match="without Content-Length"):
        content_length(head)

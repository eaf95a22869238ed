from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn import config
from gunicorn.http.wsgi import Response

from service.entrypoints.gunicorn_replies import telling, whole
from service.entrypoints.limits import LIVES


class Socket:
    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)


def send(pieces: list[bytes], *, method: str = "POST", headers: list[tuple[str, str]] | None = None) -> list[bytes]:
    """What gunicorn's workers do with an app that answers `pieces`: what is written, call by call."""
    sock = Socket()
    request: Any = SimpleNamespace(method=method, version=(1, 1), should_close=lambda: False, headers=[])

    def app(environ: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", headers or [])
        return pieces

    response = Response(request, sock, config.Config())
    for piece in whole(app)({}, response.start_response):
        response.write(piece)
    response.close()
    return sock.sent


def test_a_short_answer_is_written_at_once() -> None:
    (sent,) = send([b"answer"], headers=[("Content-Length", "6")])

    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent.endswith(b"Content-Length: 6\r\n\r\nanswer")


def test_pieces_are_written_as_they_come() -> None:
    first, *others = send([b"a", b"bc"])

    assert first.endswith(b"\r\n\r\n1\r\na\r\n")
    assert others == [b"2\r\nbc\r\n", b"0\r\n\r\n"]


@pytest.mark.parametrize(
    ("method", "pieces", "headers"),
    [
        pytest.param("GET", [], [("Content-Length", "0")], id="nothing"),
        pytest.param("HEAD", [b"answer"], [("Content-Length", "6")], id="no body by HTTP"),
    ],
)
def test_an_answer_without_a_body_has_its_head(
    method: str, pieces: list[bytes], headers: list[tuple[str, str]]
) -> None:
    (sent,) = send(pieces, method=method, headers=headers)

    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent.endswith(b"\r\n\r\n")


def test_no_pieces_of_an_answer_of_unknown_length_are_said_to_be_none() -> None:
    head, end = send([])

    assert head.endswith(b"Transfer-Encoding: chunked\r\n\r\n")
    assert end == b"0\r\n\r\n"


def test_replies_of_other_kinds_stay_what_they_are() -> None:
    class Other(Response):  # type: ignore[misc]
        """As gunicorn has one for HTTP/2."""

    response = Other(SimpleNamespace(version=(1, 1)), Socket(), config.Config())

    whole(lambda environ, start_response: [])({}, response.start_response)

    assert type(response) is Other


class Pieces:
    closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"a", b"b"])

    def close(self) -> None:
        self.closed += 1


def test_worker_says_that_it_lives_with_each_piece_and_the_app_may_do_so() -> None:
    told: list[str] = []
    pieces = Pieces()

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[LIVES]()
        return pieces

    body: Any = telling(app, lambda: told.append("lives"))({}, lambda *_: None)
    came = [(piece, len(told)) for piece in body]
    body.close()

    assert came == [(b"a", 2), (b"b", 3)]
    assert pieces.closed == 1


def test_answer_that_is_there_is_handed_on_as_it_is() -> None:
    answer = (b"answer",)

    assert telling(lambda environ, start_response: answer, lambda: pytest.fail("why?"))({}, lambda *_: None) is answer

from __future__ import annotations

import asyncio
import io
import socket
import threading
from typing import Any

import pytest

from service.core.errors import NotReceived
from service.entrypoints.flask_app import _View
from service.entrypoints.flask_streams import Streamed
from service.entrypoints.flask_waiting import CallerLeft
from service.entrypoints.limits import IN_PIECES
from service.entrypoints.seats import Seats
from service.protocols.http import Reply
from tests.service.entrypoints.streaming import Count, Echo, Streams, counting, echoing


class Input(io.BytesIO):
    """The body of a request, under a server that has a time for bodies."""

    in_pieces = 0


def count_in_pieces(body: Input) -> None:
    body.in_pieces += 1


def ask(streams: Streams, sent: bytes = b"", **environ: Any) -> Streamed:
    body = Input(sent)
    setattr(body, IN_PIECES, lambda: count_in_pieces(body))
    known = {"REQUEST_METHOD": "POST", "PATH_INFO": "/s", "CONTENT_LENGTH": str(len(sent)), "wsgi.input": body}
    view = _View(streams.api, streams.paths["/s"], Seats(1))
    reply = view.answer({**known, **environ}, "/s", {})
    assert isinstance(reply, Streamed)
    return reply


def test_pieces_are_passed_on_as_they_come() -> None:
    count = Count()
    streams = counting(count)

    reply = ask(streams)
    pieces = list(reply.body)
    reply.body.close()

    assert (reply.status, reply.content_type, pieces) == (200, "text/plain", [b"1", b"2", b"3"])
    assert (streams.recorded, count.closed, streams.api.places.taken) == ([(200, None)], True, 0)
    streams.loop.stop()


def test_stream_holds_a_place_and_no_seat_until_it_is_closed() -> None:
    streams = counting(Count())
    seats = Seats(1)
    view = _View(streams.api, streams.paths["/s"], seats)

    reply = view.answer(
        {"REQUEST_METHOD": "POST", "PATH_INFO": "/s", "wsgi.input": io.BytesIO(), "CONTENT_LENGTH": "0"}, "/s", {}
    )

    assert isinstance(reply, Streamed)
    assert (streams.api.places.taken, seats.take() is not None) == (1, True)
    reply.body.close()
    assert streams.api.places.taken == 0
    streams.loop.stop()


def test_caller_who_has_left_is_seen_before_the_next_piece_where_the_server_shows_the_connection() -> None:
    count = Count()
    streams = counting(count)
    caller, connection = socket.socketpair()
    with connection:
        reply = ask(streams, **{"gunicorn.socket": connection})
        first = next(iter(reply.body))
        caller.close()
        with pytest.raises(CallerLeft):
            next(iter(reply.body))
        reply.body.close()

    assert (first, streams.recorded, count.closed) == (b"1", [(499, None)], True)
    streams.loop.stop()


def test_place_is_free_once_the_server_may_write_the_end() -> None:
    streams = counting(Count())
    reply = ask(streams)

    pieces = list(reply.body)

    assert (pieces[-1], streams.api.places.taken) == (b"3", 0)
    reply.body.close()
    streams.loop.stop()


@pytest.mark.parametrize("read", [0, 2], ids=["at once", "in the middle"])
def test_stream_is_given_up_when_its_caller_leaves(read: int) -> None:
    count = Count(endless=True)
    streams = counting(count)
    reply = ask(streams)
    for _ in range(read):
        next(reply.body)

    reply.body.close()

    assert ([status for status, _ in streams.recorded], count.closed) == ([499], True)
    streams.loop.stop()


def test_stream_that_has_not_begun_is_given_up_when_its_caller_leaves() -> None:
    started, given_up = threading.Event(), threading.Event()

    async def never() -> Reply:
        started.set()
        try:
            return await asyncio.Event().wait()  # type: ignore[return-value]
        finally:
            given_up.set()

    streams = Streams(lambda loop: loop.run(never()), can_be_given_up=True)
    ours, theirs = socket.socketpair()
    theirs.close()

    with ours, pytest.raises(CallerLeft):
        ask(streams, **{"gunicorn.socket": ours})

    assert started.is_set() and given_up.wait(20)
    assert (streams.recorded, streams.api.places.taken) == ([(499, None)], 0)
    streams.loop.stop()


def test_body_is_answered_as_it_is_read() -> None:
    echo = Echo()
    streams = echoing(echo)

    reply = ask(streams, b"abc")
    pieces = list(reply.body)
    reply.body.close()

    assert pieces == [b"ABC", b"END"]
    assert (streams.recorded, streams.api.places.taken) == ([(200, None)], 0)
    assert echo.closed


def test_body_of_unknown_length_is_read_to_its_end() -> None:
    reply = ask(echoing(Echo()), b"x" * 100_000, CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked")

    assert [len(piece) for piece in reply.body] == [65_536, 34_464, 3]


def test_body_that_breaks_off_ends_the_connection() -> None:
    echo = Echo()
    streams = echoing(echo)
    reply = ask(streams, b"abc", CONTENT_LENGTH="10")

    assert next(reply.body) == b"ABC"
    with pytest.raises(ConnectionResetError):
        next(reply.body)
    reply.body.close()

    assert [status for status, _ in streams.recorded] == [499]
    assert echo.closed


class LateInput(Input):
    """The rest of the body does not come in time."""

    def read(self, size: int | None = -1) -> bytes:
        if piece := super().read(size):
            return piece
        raise NotReceived("body", 1)


@pytest.mark.parametrize("headers", [{}, {"HTTP_EXPECT": "100-continue"}], ids=["sent", "held back"])
@pytest.mark.parametrize("sent", [b"abc", b""])
def test_body_that_is_late_is_told_so_at_the_end(sent: bytes, headers: dict[str, str]) -> None:
    echo = Echo()
    streams = echoing(echo)

    reply = ask(streams, **{"CONTENT_LENGTH": "10", "wsgi.input": LateInput(sent), **headers})
    pieces = list(reply.body)
    reply.body.close()

    assert pieces == [piece for piece in (sent.upper(), b"NotReceived") if piece]
    assert [(status, type(error)) for status, error in streams.recorded] == [(200, NotReceived)]
    assert echo.closed


def test_body_is_read_no_further_than_it_is_answered() -> None:
    echo = Echo()
    body = Input(b"enough" + b"x" * 100_000)
    body.read = lambda size=-1: io.BytesIO.read(body, 6)  # type: ignore[method-assign]
    streams = echoing(echo)
    view = _View(streams.api, streams.paths["/s"], Seats(1))
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/s", "CONTENT_LENGTH": "100006", "wsgi.input": body}

    reply = view.answer(environ, "/s", {})
    assert isinstance(reply, Streamed)

    assert list(reply.body) == [b"ENOUGH"]
    assert body.tell() == 6
    reply.body.close()
    assert streams.recorded == [(200, None)]


@pytest.mark.parametrize(
    ("headers", "read"), [({}, 0), ({"HTTP_EXPECT": "100-continue"}, 3)], ids=["sent", "held back"]
)
def test_body_that_waits_to_be_asked_for_is_read_before_the_answer_begins(headers: dict[str, str], read: int) -> None:
    body = Input(b"abc")

    reply = ask(echoing(Echo()), **{"CONTENT_LENGTH": "3", "wsgi.input": body, **headers})

    assert body.tell() == read
    assert list(reply.body) == [b"ABC", b"END"]


def test_body_that_waits_to_be_asked_for_and_breaks_off_ends_the_connection() -> None:
    echo = Echo()
    streams = echoing(echo)
    reply = ask(streams, b"", CONTENT_LENGTH="10", HTTP_EXPECT="100-continue")

    with pytest.raises(ConnectionResetError):
        next(reply.body)
    reply.body.close()

    assert (echo.closed, streams.api.places.taken) == (1, 0)

"""Answers that come in pieces, under WSGI: bodies that the server iterates, and closes."""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

from service.core.errors import RequestError
from service.core.futures import Done
from service.entrypoints.flask_waiting import CallerLeft, has_left, watched_connection
from service.entrypoints.limits import IN_PIECES
from service.protocols.api import Api
from service.protocols.http import Duplex, DuplexReply, HttpRequest, StreamReply

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# A WSGI server reads until it has so many bytes, or the body ends.
READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Streamed:
    """What a WSGI app answers with: `body` is iterated once, and closed."""

    status: int
    body: StreamBody | DuplexBody
    content_type: str
    headers: dict[str, str]


def streamed(api: Api, http: HttpRequest, reply: StreamReply | DuplexReply, environ: WSGIEnvironment) -> Streamed:
    body: StreamBody | DuplexBody
    if isinstance(reply, StreamReply):
        body = StreamBody(api, http, reply, environ)
    else:
        body = DuplexBody(api, http, reply, environ)
    return Streamed(reply.status, body, reply.content_type, reply.headers)


class StreamBody:
    """The pieces of a `StreamReply`. Closed before its end where the caller has left.

    Only the second write to a caller who has left fails; where the connection can be looked at, none is needed.
    """

    def __init__(self, api: Api, http: HttpRequest, reply: StreamReply, environ: WSGIEnvironment) -> None:
        self._api = api
        self._http = http
        self._reply = reply
        self._pieces = api.loop.iterate(reply.pieces)
        self._connection = watched_connection(environ)
        self._is_complete = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        for piece in self._pieces:
            if self._connection is not None and has_left(self._connection):
                raise CallerLeft
            if piece:  # to some servers, an empty one is the end
                return piece
        self._is_complete = True
        # Before the server writes the end: whoever has it may ask again at once, and needs the place.
        self._api.streamed(self._http, self._reply)
        raise StopIteration

    def close(self) -> None:
        if not self._is_complete:
            self._api.gone(self._http)
        self._api.loop.run(self._reply.close()).result()
        self._api.streamed(self._http, self._reply)


class DuplexBody:
    """The answers of a `DuplexReply` to the pieces of a body, read as they are asked for."""

    def __init__(self, api: Api, http: HttpRequest, reply: DuplexReply, environ: WSGIEnvironment) -> None:
        self._api = api
        self._http = http
        self._reply = reply
        pieces = _body(environ)
        # To read is what says 100 Continue, where the server has not said it by itself, and an answer has not begun.
        self._answers = _answers(reply, _read_ahead(pieces) if "HTTP_EXPECT" in environ else pieces)
        self._is_complete = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        for answer in self._answers:
            if answer:
                return answer
        self._is_complete = True
        self._api.streamed(self._http, self._reply)  # as above
        raise StopIteration

    def close(self) -> None:
        if not self._is_complete:
            self._api.gone(self._http)
        self._answers.close()
        self._reply.duplex.close()
        self._api.streamed(self._http, self._reply)


def _answers(reply: DuplexReply, pieces: Iterator[bytes]) -> Generator[bytes, None, None]:
    """Raises ConnectionResetError where the body breaks off: there is nobody to tell."""
    duplex = reply.duplex
    for step in _steps(duplex, pieces):
        for answer in step:
            yield answer.result()
        if duplex.is_over:
            return


def _steps(duplex: Duplex, pieces: Iterator[bytes]) -> Iterator[Iterator[Future[bytes]]]:
    """The answers to each piece, and to the end."""
    try:
        for piece in pieces:
            yield duplex.feed(piece)
    except RequestError as error:  # raised by our own worker under gunicorn
        yield duplex.fail(error)
    else:
        yield duplex.finish()


def _read_ahead(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same, the first of which is read now. What that raises is raised when it is asked for."""
    first: Future[bytes]
    try:
        first = Done(next(pieces, b""))
    except Exception as error:
        first = Done(exception=error)
    return chain((one.result() for one in (first,)), pieces)


def _body(environ: WSGIEnvironment) -> Iterator[bytes]:
    source = environ["wsgi.input"]
    in_pieces = getattr(source, IN_PIECES, None)
    if in_pieces is not None:
        in_pieces()
    if "HTTP_TRANSFER_ENCODING" in environ:
        while piece := source.read(READ_BYTES):
            yield piece
        return
    left = int(environ.get("CONTENT_LENGTH") or 0)
    while left:
        piece = source.read(min(left, READ_BYTES))
        if not piece:
            raise ConnectionResetError(errno.ECONNRESET, "the body broke off before its end")
        left -= len(piece)
        yield piece

"""HTTP under uvicorn: its protocol for httptools, and what that leaves to a proxy.

Deadlines for receiving and for being read, a limit on connections, no reading beyond what is allowed, and errors that
are problem details. All of it costs a request nothing but a few comparisons, unless it comes in several pieces.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from service.core.errors import (
    HeadersTooLarge,
    NotOffered,
    NotReceived,
    RequestTooLarge,
    TandemError,
    TargetTooLong,
    UnreadableRequest,
)
from service.entrypoints.deadlines import Deadlines
from service.entrypoints.limits import IN_PIECES, MAX_CHUNKS, HttpLimits
from service.entrypoints.refusals import refuse
from service.entrypoints.uvicorn_whole import WholeRequests
from service.protocols.socket import has_socket, is_handshake

_VERSIONS: Final = frozenset({"1.0", "1.1"})
_UNKNOWN_METHOD: Final = NotOffered("this method is not known here")


class Protocols:
    """Makes the protocol of each connection (uvicorn's `http=`). Travels to worker processes before it has made any."""

    def __init__(self, limits: HttpLimits) -> None:
        self.limits = limits
        self.headers = Deadlines(limits.headers_timeout_s)
        self.bodies = Deadlines(limits.body_timeout_s)
        self.writes = Deadlines(limits.write_timeout_s)

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> Protocol:
        return Protocol(self, config, server_state, app_state, _loop)


class _Stage(Enum):
    """What of a request is read."""

    NONE = auto()
    HEADERS = auto()
    BODY = auto()


class _Refused(Exception):
    """Raised in callbacks of the parser, which ends there."""

    def __init__(self, error: TandemError) -> None:
        super().__init__(str(error))
        self.error = error


class Protocol(WholeRequests):
    """One connection."""

    def __init__(
        self,
        shared: Protocols,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._shared = shared
        self._limits = shared.limits
        self._stage = _Stage.NONE
        self._watched = _Stage.NONE  # for which of them a deadline runs
        self._headers_bytes = 0  # of packets that held nothing else
        self._chunks = 0
        self._is_in_pieces = False  # the app answers the body while it comes
        self._is_handshake = False
        self._is_broken = False

    # What uvicorn and the event loop call.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections and not self._shared.headers.end_first():
            transport.abort()
            return
        self._shared.headers.begin(self, self._headers_late)
        self._watched = _Stage.HEADERS

    def connection_lost(self, exc: Exception | None) -> None:
        self._begin_cycle()
        super().connection_lost(exc)
        for deadlines in (self._shared.headers, self._shared.bodies, self._shared.writes):
            deadlines.end(self)

    def data_received(self, data: bytes) -> None:
        if self._is_broken:
            return
        self._unset_keepalive_if_required()
        if self._stage is _Stage.NONE or self.has_begun:
            if self.take(data):
                self._stage = _Stage.BODY if self.has_begun else _Stage.NONE
                if self._stage is not self._watched:
                    self._watch()
                return
            self._stage, data = _Stage.NONE, self.begun() + data
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        began_in = self._stage
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._is_broken = True
            if self._is_handshake:
                self._shared.headers.end(self)
                self.handle_websocket_upgrade()
                return
            # It asks for a protocol that is not spoken here: it is answered, and what follows is not read.
            self._close_after_answer()
        except httptools.HttpParserError as error:
            self._refuse(_meaning(error))
            return
        if began_in is self._stage is _Stage.HEADERS:
            self._headers_bytes += len(data)
            if self._headers_bytes > self._limits.max_headers_bytes + self._limits.max_url_bytes:
                self._refuse(HeadersTooLarge(f"more than {self._limits.max_headers_bytes} bytes of headers"))
                return
        if self._stage is not self._watched or self._is_in_pieces:
            self._watch()

    def shutdown(self) -> None:
        self._begin_cycle()  # what has begun is answered before
        super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._shared.writes.begin(self, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._shared.writes.end(self)

    # What the parser calls.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._stage = _Stage.HEADERS
        self._headers_bytes = self._chunks = 0
        self._is_in_pieces = False
        if self._watched is not _Stage.NONE:
            self._unwatch()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self._limits.max_url_bytes:
            raise _Refused(TargetTooLong(f"the URL is longer than {self._limits.max_url_bytes} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        # Fields behind a chunked body arrive here, too, and count for nothing (RFC 9110, 6.5.1).
        if self._stage is _Stage.HEADERS:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.get_http_version() not in _VERSIONS:
            raise _Refused(UnreadableRequest("only HTTP/1.0 and HTTP/1.1 are spoken here"))
        if self.parser.get_method() == b"CONNECT":
            raise _Refused(_UNKNOWN_METHOD)
        self._is_handshake = self.parser.should_upgrade() and self._begins_socket()
        if not self._is_handshake:
            self._stage = _Stage.BODY
        super().on_headers_complete()
        if self._is_handshake:
            return
        self.cycle.__class__ = _Cycle  # uvicorn makes it, and lets nobody say of which class
        extensions: Any = {IN_PIECES: self._read_in_pieces}
        self.cycle.scope["extensions"] = extensions

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks > MAX_CHUNKS and not self._is_in_pieces:
            raise _Refused(RequestTooLarge(f"the body comes in more than {MAX_CHUNKS} chunks"))

    def _read_in_pieces(self) -> None:
        self._is_in_pieces = True

    def on_message_complete(self) -> None:
        self._stage = _Stage.NONE
        super().on_message_complete()

    # Elsewhere an upgrade is ignored (RFC 9110, 7.8).

    def _should_upgrade(self) -> bool:
        return self._is_handshake

    def _begins_socket(self) -> bool:
        is_busy = self.cycle is not None and not self.cycle.response_complete
        if self.ws_protocol_class is None or is_busy or not self.url.startswith(b"/"):
            return False
        if not has_socket(unquote(httptools.parse_url(self.url).path.decode("ascii"))):
            return False
        headers: dict[str, str] = {}
        for name, value in self.headers:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            headers[key] = f"{headers[key]},{text}" if key in headers else text
        return is_handshake(self.parser.get_method().decode("ascii"), headers)

    # What was not in time, and what is no request.

    def _watch(self) -> None:
        """A packet ended within a request, or ended one that had come in pieces."""
        self._unwatch()
        self._watched = self._stage
        if self._stage is _Stage.HEADERS:
            self._shared.headers.begin(self, self._headers_late)
        elif self._stage is _Stage.BODY:
            self._shared.bodies.begin(self, self._body_late)

    def _unwatch(self) -> None:
        (self._shared.headers if self._watched is _Stage.HEADERS else self._shared.bodies).end(self)
        self._watched = _Stage.NONE

    def _headers_late(self) -> None:
        if self._stage is _Stage.NONE:  # nothing was asked
            self.transport.close()
        else:
            self._refuse(NotReceived("head", self._limits.headers_timeout_s))

    def _begin_cycle(self) -> None:
        """Of a request whose body will not come in time, if ever: the app says so."""
        if self.has_begun:
            self._stage = _Stage.NONE
            self._parse(self.begun())

    def _body_late(self) -> None:
        if self.has_begun:
            self._begin_cycle()
            self._unwatch()
        if self.flow.read_paused or self.pipeline:  # it is us who do not read on
            self._shared.bodies.begin(self, self._body_late)
        else:
            self._refuse(NotReceived("body", self._limits.body_timeout_s))

    def _refuse(self, error: TandemError) -> None:
        """Answer, and read no more: nobody knows where another request would begin."""
        self._is_broken = True
        if self.transport.is_closing():  # the last answer was written
            return
        if self.cycle is None or self.cycle.response_complete:
            if self._stage is not _Stage.BODY:  # else it has its answer
                self.transport.write(refuse(error))
            self.transport.close()
        elif self._stage is _Stage.BODY:
            self._close_after_answer()
            cast(_Cycle, self.cycle).fail(error)
        else:  # the answers to what came before come first, and then none
            self._close_after_answer()

    def _close_after_answer(self) -> None:
        if self.cycle is not None:
            self.cycle.keep_alive = False


def _meaning(error: httptools.HttpParserError) -> TandemError:
    if isinstance(error.__context__, _Refused):
        return error.__context__.error
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return _UNKNOWN_METHOD
    return UnreadableRequest("these bytes are no request of HTTP/1.1")


class _Cycle(RequestResponseCycle):
    """One request. What is wrong with its body is raised where the app reads it, so that the app answers that.

    Nothing in here may lead back to it: garbage that refers to itself stays until Python's collector comes, which
    then stops everything for tens of milliseconds.
    """

    _error: TandemError | None = None

    def fail(self, error: TandemError) -> None:
        self._error = error
        self.more_body = False
        self.message_event.set()

    async def receive(self) -> Any:
        message: Any = await super().receive()
        if self._error is not None:
            if not message.get("body"):
                raise self._error
            # Who answers the body while it comes answers what came before.
            message["more_body"] = True
            self.message_event.set()
        return message

"""Predictions over a WebSocket: many messages on one connection, each answered when its answer is there.

    {"id": "a1", "instances": [[41, "Graz"]]}   → {"id": "a1", "predictions": […], "model": …, "version": …}
    {"id": "a2", "age": 41, "city": 7}          → {"id": "a2", "error": {"type": …, "title": …, "status": 422, …}}

A message is what `native.py` reads, with an `id` of the caller's beside it, and its answer what HTTP would say, with
the same id. Each message is a request of its own: the same guards and limits, a line in the access log, counted under
the method `WS`. Its request id is that of the handshake with a number. What the handshake said holds for all of them:
the key, `X-Request-Timeout-Ms`, and `?outputs=`.

`id` always has this meaning, as the words of `native.py` have theirs: of a model with a column of that name, a flat
record is refused, and the two forms for many rows are taken.

Nothing here reads or writes: entry points hand messages to a `Session`, and write what its futures hold.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from enum import Enum
from itertools import count
from typing import Any, Final

import orjson

from service.core.contracts import Server
from service.core.errors import (
    InvalidRequest,
    NotAllowed,
    NotOffered,
    RequestError,
    Unavailable,
    UpgradeRequired,
    shorten,
)
from service.core.futures import Done, then
from service.core.messages import InferRequest, Target
from service.core.signature import Signature
from service.guards.view import seen_by
from service.protocols.api import Api
from service.protocols.http import HttpReply, HttpRequest, json_reply
from service.protocols.json_body import read_json
from service.protocols.native import Exchange
from service.protocols.predict import target_of
from service.protocols.route import Route, Scope, place
from service.protocols.values import NeedsExactParse

PATH: Final = "/models/{name}/ws"
METHOD: Final = "WS"

# Messages of one session that are not answered yet, or whose answers were not taken: beyond it nothing is read.
MAX_IN_FLIGHT: Final = 16
# How often a session asks whether it may go on. Files of keys are read again every second (`guards/reread.py`), so a
# revoked key ends its sessions within twice that.
CHECK_S: Final = 0.5
# A caller that was told of the end has so long to say that it has read it.
PARTING_S: Final = 2.0

_ID_CHARACTERS: Final = 128
_ID_BITS: Final = 63
_TARGET: Final = re.compile(r"/models/[^/]+/ws")
_REFUSED: Final = (401, 403)


class Close(Enum):
    """Why the service ends a session: the code (RFC 6455, 7.4.1), and what it says."""

    STOPPING = 1001, "the service is stopping"
    NOT_TEXT = 1003, "only text is read here"
    NOT_ALLOWED = 1008, "this key is not known any more, or not for that"
    TOO_LARGE = 1009, "the message is too large"
    NO_PONG = 1011, "no answer to a ping"

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason


def has_socket(path: str) -> bool:
    """Whether WebSockets begin at `path`, which is decoded, and without a query."""
    return _TARGET.fullmatch(path) is not None


def is_handshake(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a WebSocket begins with this request (RFC 6455, 4.2.1), where it is asked of a path that has one.

    Args:
        headers: names in small letters; of names that came twice, the values joined by commas.
    """
    if method != "GET" or headers.get("upgrade", "").strip().lower() != "websocket":
        return False
    connection = [word.strip().lower() for word in headers.get("connection", "").split(",")]
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if "upgrade" not in connection or headers.get("sec-websocket-version") != "13" or has_body:
        return False
    try:
        return len(base64.b64decode(headers.get("sec-websocket-key", ""), validate=True)) == 16
    except binascii.Error:
        return False


def refuse_plain(server: Server, http: HttpRequest) -> HttpReply:
    """Answers what arrives as an ordinary request: it began no WebSocket, or this web server cannot.

    Raises:
        UpgradeRequired, NotOffered.
    """
    if is_handshake(http.method, http.headers):
        raise NotOffered("this web server speaks no WebSocket: uvicorn does, and gunicorn with gthread or gevent")
    raise UpgradeRequired("this path speaks WebSocket (version 13): ask with a client for it")


ROUTES: Final = (
    Route("GET", PATH, refuse_plain, Scope.PREDICT, "Predictions over a WebSocket", streams=True, upgrades=True),
)


def open_session(api: Api, methods: Mapping[str, Route], http: HttpRequest) -> HttpReply | Session:
    """Answers a handshake: the session that begins, or the reply that refuses it. May wait where `admit` may.

    A session holds a place until it is closed.
    """
    if (refused := api.admit(methods, http)) is not None:
        return refused
    try:
        if api.is_closing:
            raise Unavailable("the service is stopping")
        _require_origin(http.headers.get("origin"), api.origins)
        seen_by(api.server, http.caller).version(Target(http.path_params["name"]))
    except Exception as error:
        return api.refuse(http, error)
    return Session(api, http)


def _require_origin(origin: str | None, allowed: tuple[str, ...]) -> None:
    """Browsers open WebSockets for pages of any origin, and ask nobody: they only say which page it was.

    Raises NotAllowed.
    """
    if origin is not None and origin not in allowed:
        raise NotAllowed("pages of this origin may not ask; the operator allows it with --cors-origin")


class Session:
    """One WebSocket. `feed`, `tick` and `close` are called by one thread at a time; answers come on any.

    `ending` is why it is to be closed, once that is known.
    """

    def __init__(self, api: Api, http: HttpRequest, clock: Callable[[], float] = time.monotonic) -> None:
        self.ending: Close | None = None
        self._api = api
        self._http = http
        self._headers = {name: value for name, value in http.headers.items() if name != "content-encoding"}
        self._numbers = count(1)
        # Messages without an answer, in the order in which they came, which is that of their deadlines. Who takes
        # one out (a single step, without a lock) answers it.
        self._open: dict[int, tuple[HttpRequest, _Message, Future[str]]] = {}
        self._clock = clock
        self._next_check = clock() + CHECK_S

    @property
    def headers(self) -> dict[str, str]:
        """Of the reply that opens it."""
        return {"x-request-id": self._http.request_id, **(self._http.told or {})}

    @property
    def due(self) -> float:
        """When to call `tick`, in seconds of `time.monotonic`."""
        return min([self._next_check, *(http.deadline.at for http, _, _ in list(self._open.values()))])

    def feed(self, text: str) -> Future[str]:
        """The answer to one message. Never fails: what is wrong with it is in the answer."""
        number = next(self._numbers)
        message = _Message(text.encode(), self._http.query.get("outputs"))
        http = self._request(number, message)
        reply = self._api.answer({METHOD: message.route}, http)
        if not isinstance(reply, Future):
            return Done(self._told(message, reply))
        answer: Future[str] = Future()
        self._open[number] = http, message, answer
        reply.add_done_callback(lambda done: self._answer(number, done.result()))
        return answer

    def tick(self) -> None:
        """To be called when it is `due`: answers what is too late, and asks whether to go on."""
        now = self._clock()
        for number, (http, _, _) in list(self._open.items()):
            if http.deadline.at > now:
                break
            self._answer(number, self._api.too_late(http))
        if now >= self._next_check:
            self._next_check = now + CHECK_S
            if self._api.is_closing:
                self.ending = self.ending or Close.STOPPING
            elif not self._api.knows(self._http):
                self.ending = Close.NOT_ALLOWED

    def close(self) -> None:
        """It is over: nobody waits for what is not answered. A second call does nothing."""
        for number in list(self._open):
            if (found := self._open.pop(number, None)) is not None:
                http, _, answer = found
                self._api.gone(http)
                answer.cancel()
        self._api.closed(self._http)

    def _request(self, number: int, message: _Message) -> HttpRequest:
        http = self._http
        request = HttpRequest(
            method=METHOD,
            path=http.path,
            path_params=http.path_params,
            query=http.query,
            headers=self._headers,
            body=message.body,
            request_id=f"{http.request_id}-{number}",
            peer=http.peer,
        )
        place(request, {METHOD: message.route})
        return request

    def _answer(self, number: int, reply: Any) -> None:
        if (found := self._open.pop(number, None)) is not None:
            _, message, answer = found
            answer.set_result(self._told(message, reply))

    def _told(self, message: _Message, reply: Any) -> str:
        if reply.status in _REFUSED:
            self.ending = Close.NOT_ALLOWED
        return message.told(reply)


class _Message:
    """One message, from its bytes to its answer."""

    def __init__(self, body: bytes, query_outputs: str | None) -> None:
        self.body = body
        self.route = Route(METHOD, PATH, self._ask, Scope.PREDICT, "One message of a WebSocket")
        self._exchange = Exchange(body, query_outputs)
        self._id: str | int | None = None
        self._error: RequestError | None = None
        try:
            self._content, self._exact = read_json(body, lambda content, exact: (content, exact))
            if isinstance(self._content, dict):
                self._id = _checked_id(self._content.pop("id", None))
        except RequestError as error:  # told by whoever asks
            self._error = error

    def told(self, reply: HttpReply) -> str:
        """The reply as one JSON object: with the id, where there is one, and with what is wrong as its `error`."""
        body = reply.body
        if reply.status >= 400:
            if "retry-after" in reply.headers:
                body = body[:-1] + b',"retry_after":%d}' % int(reply.headers["retry-after"])
            body = b'{"error":' + body + b"}"
        if self._id is not None:
            body = b'{"id":' + orjson.dumps(self._id) + b"," + body[1:]
        return body.decode()

    def _ask(self, server: Server, http: HttpRequest) -> Future[HttpReply]:
        if self._error is not None:
            raise self._error
        answer = server.infer(target_of(http), self._read, http.deadline)
        return then(answer, lambda reply: json_reply(self._exchange.write(reply)))

    def _read(self, signature: Signature) -> InferRequest:
        try:
            return self._build(self._content, signature, self._exact)
        except NeedsExactParse:
            return read_json(self.body, lambda content, exact: self._build(_without_id(content), signature, exact))

    def _build(self, content: Any, signature: Signature, exact: bool) -> InferRequest:
        is_record = isinstance(content, dict) and not content.keys() & {"instances", "columns"}
        if is_record and "id" in signature.names:
            raise InvalidRequest(
                'expected "instances" or "columns": a column of this model is called id, so it takes no flat record '
                "over a WebSocket"
            )
        return self._exchange.build(content, signature, exact)


def _without_id(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != "id"}


def _checked_id(given: Any) -> str | int | None:
    """Raises InvalidRequest where it is not fit to be said again."""
    match given:
        case None:
            return None
        case str() if len(given) <= _ID_CHARACTERS:
            return given
        case int() if not isinstance(given, bool) and given.bit_length() <= _ID_BITS:
            return given
    raise InvalidRequest(
        f'"id": expected a text of up to {_ID_CHARACTERS} characters, or an integer of {_ID_BITS + 1} bits; '
        f"got {shorten(given)}"
    )

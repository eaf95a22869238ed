"""Requests that came whole: answered past ASGI and WSGI, by the loop that read them.

That is what nearly all predictions are. What ASGI passes them through takes a third of the time of a short one, and the
way to a thread and back, which WSGI needs, takes more than that one. So our own connections under uvicorn
(`uvicorn_whole.py`) and under gunicorn's threads (`gunicorn_whole.py`) ask here first. Whatever is unusual goes the
long way, and gets the same answer there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from service.entrypoints.limits import LARGE_BYTES
from service.entrypoints.turns import Turns
from service.protocols.api import Api, request_id
from service.protocols.http import HttpRequest, Reply, parse_query
from service.protocols.route import Paths, Route, route_of

# What needs no decision: one method, one target, fields by plain names, each on a line. A server's own parser, which
# takes as long as a short prediction, decides about all else.
_HEAD: Final = re.compile(rb"(GET|POST) ([!-~]+) HTTP/1\.1\r\n((?:[A-Za-z0-9-]+:[\t -~]*\r\n)+)\r\n")

# Those whose head is longer go to that parser, too, which knows how long one may be.
_HEAD_BYTES: Final = 4096

# Longer targets are not remembered: a client asks for the same one every time.
_URL_BYTES: Final = 200
_URLS: Final = 256

# A target that needs no decoding.
_PLAIN: Final = re.compile(rb"(/[A-Za-z0-9/._~:@!$&'()*+,;=-]*)(?:\?([^#]*))?")

# Fields that change how the body is read, or what is spoken next.
_UNUSUAL: Final = frozenset({"content-encoding", "expect", "transfer-encoding", "upgrade"})

# The methods, as they are written in a request.
_METHODS: Final = {b"GET": "GET", b"POST": "POST"}

# A length that Python reads as HTTP does.
_LENGTH: Final = re.compile("[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Destination:
    """What a method and a target lead to."""

    method: str
    methods: Mapping[str, Route]
    route: Route
    path: str
    path_params: Mapping[str, str]
    query: Mapping[str, str]
    target_bytes: int


@dataclass(frozen=True, slots=True)
class Head:
    """That of a request: where it leads, what it says, its own size, and that of the body."""

    to: Destination
    headers: dict[str, str]
    bytes: int
    body_bytes: int

    @property
    def request_bytes(self) -> int:
        return self.bytes + self.body_bytes


class Whole:
    """Answers requests that came whole.

    Args:
        api: what answers.
        paths: the routes of each path, by method.
        turns: of those that take longer.
    """

    def __init__(self, api: Api, paths: Mapping[str, Mapping[str, Route]], turns: Turns) -> None:
        self.api = api
        self.turns = turns
        self._paths = Paths(paths)
        self.destination = lru_cache(maxsize=_URLS)(self._destination)

    def _destination(self, method: bytes, url: bytes) -> Destination | None:
        """Where a request goes, by the two parts of its first line; None where it is to go the long way."""
        if (name := _METHODS.get(method)) is None or len(url) > _URL_BYTES or (parts := _PLAIN.fullmatch(url)) is None:
            return None
        path, query = parts[1].decode("ascii"), (parts[2] or b"").decode("latin-1")
        if (found := self._paths.find(path)) is None:
            return None
        methods, params = found
        route = route_of(methods, name)
        if route is None or route.streams or route.reads_pieces or route.upgrades:
            return None
        target_bytes = len(path) + len(query) + bool(query)
        return Destination(name, methods, route, path, MappingProxyType(dict(params)), parse_query(query), target_bytes)

    def head(self, received: bytes) -> Head | None:
        """That of the request that begins here; None where it has not ended, or the request is to go the long way."""
        if (match := _HEAD.match(received)) is None or match.end() > _HEAD_BYTES:
            return None
        if (to := self.destination(match[1], match[2])) is None or self.api.admission_may_wait:
            return None
        lines = match[3].decode("ascii").split("\r\n")[:-1]
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip(" \t")
        if len(headers) != len(lines) or "host" not in headers or not _UNUSUAL.isdisjoint(headers):
            return None
        if headers.get("connection", "keep-alive").lower() != "keep-alive":
            return None
        if _LENGTH.fullmatch(length := headers.get("content-length", "0")) is None:
            return None
        if int(length) > min(LARGE_BYTES, self.api.max_body_bytes):
            return None
        return Head(to, headers, match.end(), int(length))

    def request(self, head: Head, received: bytes, peer: str) -> HttpRequest:
        """What is asked, where no more and no less than the request was received."""
        to, route, headers = head.to, head.to.route, head.headers
        return HttpRequest(
            to.method, to.path, to.path_params, to.query, headers, received[head.bytes :],
            request_id(headers.get("x-request-id")),
            problem=route.dialect.problem, peer=peer, template=route.path, dialect=route.dialect.name,
        )  # fmt: skip

    def answer(self, to: Destination, http: HttpRequest) -> Reply | Future[Reply]:
        """The answer, as `Api.answer` gives it."""
        api = self.api
        return (
            api.misframed(http, to.target_bytes, fields=len(http.headers), version="1.1")
            or api.admit(to.methods, http)
            or api.answer(to.methods, http)
        )

"""Requests that came whole, head and body in one piece: answered past ASGI and WSGI, by the loop that read them.

That is what nearly all predictions are. What ASGI passes them through takes a third of the time of a short one, and the
way to a thread and back, which WSGI needs, takes more than that one. So our own connections under uvicorn
(`uvicorn_whole.py`) and under gunicorn's threads (`gunicorn_whole.py`) ask here first. Whatever is unusual goes the
long way, and gets the same answer there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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

Fields = Sequence[tuple[bytes, bytes]]

# Longer targets are not remembered: a client asks for the same one every time.
_URL_BYTES: Final = 200
_URLS: Final = 256

# A target that needs no decoding.
_PLAIN: Final = re.compile(rb"(/[A-Za-z0-9/._~:@!$&'()*+,;=-]*)(?:\?([^#]*))?")

# Fields that change how the body is read, or what is spoken next.
_UNUSUAL: Final = frozenset({"content-encoding", "expect", "transfer-encoding", "upgrade"})

# The methods, as they are written in a request.
_METHODS: Final = {b"GET": "GET", b"POST": "POST"}


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

    def request(self, to: Destination, fields: Fields, body: bytes, peer: str) -> HttpRequest | None:
        """What is asked; None where it is to be answered the long way."""
        api = self.api
        headers = headers_of(fields)
        if not _UNUSUAL.isdisjoint(headers) or len(body) > min(LARGE_BYTES, api.max_body_bytes):
            return None
        if api.admission_may_wait:
            return None
        route = to.route
        return HttpRequest(
            to.method, to.path, to.path_params, to.query, headers, body, request_id(headers.get("x-request-id")),
            problem=route.dialect.problem, peer=peer, template=route.path, dialect=route.dialect.name,
        )  # fmt: skip

    def answer(self, to: Destination, http: HttpRequest, fields: int) -> Reply | Future[Reply]:
        """The answer, as `Api.answer` gives it, to a request whose head has so many fields."""
        api = self.api
        return (
            api.misframed(http, to.target_bytes, fields=fields, version="1.1")
            or api.admit(to.methods, http)
            or api.answer(to.methods, http)
        )


def headers_of(fields: Fields) -> dict[str, str]:
    """By lower-case name. Repeated ones are one list (RFC 9110, 5.3), as WSGI servers hand them over."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in fields}
    if len(headers) != len(fields):
        for name in headers:
            headers[name] = ",".join(v.decode("latin-1") for n, v in fields if n.decode("latin-1") == name)
    return headers

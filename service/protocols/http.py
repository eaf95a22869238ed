"""A request and a reply as plain values, so that handlers know no framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from service.core.contracts import Server
from service.core.deadline import NEVER, Deadline

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"


@dataclass(slots=True)
class HttpRequest:
    """`path_params` are percent-decoded; header names are lower-case; repeated headers are joined by commas.
    `answered` is set with the reply that goes out, so that a later one is not counted too. `may_block` says
    that whoever asks has a thread to itself, and would only wait on it.
    """

    method: str
    path: str
    path_params: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    request_id: str
    may_block: bool = False
    deadline: Deadline = NEVER
    answered: bool = False


@dataclass(slots=True)
class HttpReply:
    status: int
    body: bytes
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


class Scope(StrEnum):
    """What a caller must be allowed to do. Every route names one, so that none is left open by accident."""

    PUBLIC = "public"
    PREDICT = "predict"


Handler = Callable[[Server, HttpRequest], "HttpReply | Future[HttpReply]"]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` as in `/models/{name}`; a parameter is one path segment."""

    method: str
    path: str
    handler: Handler
    scope: Scope
    summary: str


def json_reply(content: Any, status: int = 200) -> HttpReply:
    """`content` may hold numpy arrays; keys keep their order."""
    return HttpReply(status, orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))


def parse_query(query: str) -> Mapping[str, str]:
    """The query string as both frameworks would read it; of repeated parameters the last counts."""
    if not query:
        return _NO_QUERY
    # A client asks for the same outputs every time; a long query is hardly asked twice.
    return _remembered_query(query) if len(query) < 200 else _parsed_query(query)


def _parsed_query(query: str) -> Mapping[str, str]:
    return MappingProxyType(dict(parse_qsl(query, keep_blank_values=True)))


_NO_QUERY: Final[Mapping[str, str]] = MappingProxyType({})
_remembered_query: Final = lru_cache(maxsize=256)(_parsed_query)

"""A request and a reply as plain values, so that handlers know no framework."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import lru_cache
from time import perf_counter
from types import MappingProxyType
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import orjson

from service.core.callers import Caller
from service.core.deadline import NEVER, Deadline

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"

# The template and the dialect of a request that no route answers.
NONE: Final = "none"


@dataclass(slots=True)
class HttpRequest:
    """`path_params` are percent-decoded; header names are lower-case; repeated headers are joined by commas.
    `answered` is set with the reply that goes out, so that a later one is not counted too. `may_block` says
    that whoever asks has a thread to itself, and would only wait on it. `problem` writes what goes wrong as
    the dialect of the route has it; None is the native one. `max_bytes` is what the body may take, and what is
    packed in it once it is unpacked. `peer` is the address of the other end. `caller` is who asks, once they were
    let in; `told` are fields that the reply has whatever it says. `template` and `dialect` are of the route that
    answers it, if any does; `started_at` is in seconds of `perf_counter`. `work` is what makes the answer, where that
    can be given up while it is under way.
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
    problem: Problem | None = None
    max_bytes: int = 2**31
    peer: str = ""
    caller: Caller | None = None
    told: dict[str, str] | None = None
    template: str = NONE
    dialect: str = NONE
    started_at: float = field(default_factory=perf_counter)
    work: Future[Any] | None = None

    def give_up(self) -> None:
        """Nobody waits for the answer any more."""
        self.deadline.cancel()
        if self.work is not None:
            self.work.cancel()


@dataclass(slots=True)
class HttpReply:
    status: int
    body: bytes
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class StreamReply:
    """A reply that comes in pieces, as somebody else makes them.

    `pieces` runs on the service's event loop (`core/loop.py`). What it yields first is for nobody (`begun`): what
    opens it was done by then, so that to close it always gives that up. Afterwards it raises nothing: what goes wrong
    is told in a last piece, and noted in `error`.
    """

    pieces: AsyncGenerator[bytes, None]
    content_type: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    error: BaseException | None = None

    async def begun(self) -> StreamReply:
        """The reply once its source is open. Raises what `pieces` raises until then."""
        await anext(self.pieces)
        return self

    async def close(self) -> None:
        await self.pieces.aclose()


class Duplex(Protocol):
    """Answers a body piece by piece, in order. Called by one thread at a time."""

    @property
    def error(self) -> BaseException | None:
        """What ended it before the body did, or was wrong with some of it."""
        ...

    @property
    def is_over(self) -> bool:
        """It ended before the body did: nothing more is to be read."""
        ...

    def feed(self, piece: bytes) -> Iterator[Future[bytes]]:
        """Answers to what is complete with `piece`. Each is to be waited for and written before the next is asked for,
        so that no more is held than one answer."""
        ...

    def finish(self) -> Iterator[Future[bytes]]:
        """Answers to what is left, now that the body has ended."""
        ...

    def fail(self, error: BaseException) -> Iterator[Future[bytes]]:
        """What is said last, where no more of the body can be read, or is to be answered."""
        ...

    def close(self) -> None:
        """Nobody waits any more, or all is answered. May be called twice."""
        ...


@dataclass(slots=True)
class DuplexReply:
    """A reply that is written while the request's body is read."""

    duplex: Duplex
    content_type: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


Reply = HttpReply | StreamReply | DuplexReply

# Writes an error, given the request id, as one dialect does.
Problem = Callable[[BaseException, str], HttpReply]


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

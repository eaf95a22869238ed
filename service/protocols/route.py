"""What the route table is made of: a method, a path, and who answers, in which dialect, for whom."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from service.core.callers import Scope as Scope
from service.core.contracts import Server
from service.core.errors import NotAllowed
from service.protocols.http import HttpReply, HttpRequest, Problem, Reply
from service.protocols.status import problem_reply

T = TypeVar("T")


def require_allowed(scope: Scope, *, model_control: bool) -> None:
    """Raises NotAllowed where callers would change what is served, and the operator does not let them."""
    if scope is Scope.ADMIN and not model_control:
        raise NotAllowed("callers may not change what is served; the operator allows it with --model-control")


@dataclass(frozen=True, slots=True)
class Dialect:
    """A protocol that some family of clients speaks.

    `problem` writes its errors; `prefix` is where all paths are its own, those that no route has among them.
    """

    name: str
    problem: Problem
    prefix: str | None = None


NATIVE: Final = Dialect("native", problem_reply)

Handler = Callable[[Server, HttpRequest], "HttpReply | Future[HttpReply]"]
# Of a route that streams.
StreamHandler = Callable[[Server, HttpRequest], "Reply | Future[Reply]"]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` as in `/models/{name}`; a parameter is one path segment, or the part of one before a colon.

    One that `streams` may take long, and holds one of the places that there are for such. With `reads_pieces` it is
    asked before the body is read, and reads that itself (`DuplexReply`). `timeout_s` is how long an answer, or its
    first piece, may take, where that is not what it is for predictions. Where one `upgrades`, WebSockets begin.
    `operation` is what the OpenAPI document says of it, where that is more than of any other.
    """

    method: str
    path: str
    handler: Handler | StreamHandler
    scope: Scope
    summary: str
    dialect: Dialect = NATIVE
    streams: bool = False
    reads_pieces: bool = False
    timeout_s: float | None = None
    upgrades: bool = False
    operation: Mapping[str, Any] | None = field(default=None, hash=False, compare=False)

    @property
    def needs_room(self) -> bool:
        """Whether what it is asked for may have to wait in the queue of predictions."""
        return self.scope is Scope.PREDICT and self.method != "GET" and not self.streams


def route_of(methods: Mapping[str, Route], method: str) -> Route | None:
    """The one of `methods` that answers. A HEAD is a GET whose body the web server leaves out."""
    return methods.get("GET" if method == "HEAD" else method)


class Paths(Generic[T]):
    """What is at each path, which is written as a route has it."""

    def __init__(self, at: Mapping[str, T]) -> None:
        self._plain = {path: found for path, found in at.items() if "{" not in path}
        self._patterns = [
            (re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path))), found)
            for path, found in at.items()
            if "{" in path
        ]

    def find(self, path: str) -> tuple[T, Mapping[str, str]] | None:
        """What is at `path`, and its parameters; None where nothing is."""
        if (found := self._plain.get(path)) is not None:
            return found, {}
        for pattern, found in self._patterns:
            if (match := pattern.fullmatch(path)) is not None:
                return found, match.groupdict()
        return None


def place(http: HttpRequest, methods: Mapping[str, Route]) -> None:
    """Note on a request which route it is for, whether or not that takes its method."""
    route = route_of(methods, http.method) or next(iter(methods.values()))
    http.problem, http.template, http.dialect = route.dialect.problem, route.path, route.dialect.name

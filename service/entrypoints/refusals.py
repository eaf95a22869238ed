"""What is answered to bytes that are no request, where no app is asked: the same problem details, the same log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from service.observability.logs import log_access
from service.observability.meter import count_refusal
from service.observability.stray import Limit
from service.protocols.api import request_id
from service.protocols.status import problem_reply, refusal_of

# Whoever sends rubbish can send thousands of it a second, and a log that it fills is of no use to anybody.
LINES_PER_S: Final = 20

_log = logging.getLogger("tandem.http")


def refuse(error: BaseException) -> bytes:
    """A whole HTTP/1.1 reply that ends its connection. It is logged with the request id that it carries."""
    identifier = request_id(None)
    reply = problem_reply(error, identifier)
    count_refusal(reply.status, refusal_of(error).kind)
    _refusals.log(error, reply.status, identifier)
    lines = [
        f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}",
        f"content-type: {reply.content_type}",
        f"content-length: {len(reply.body)}",
        *(f"{name}: {value}" for name, value in reply.headers.items()),
        f"x-request-id: {identifier}",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "connection: close",
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + reply.body


class SparingLog:
    """At most `LINES_PER_S` lines a second; how many were left out is said with the next one. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = Limit(LINES_PER_S, 1.0, clock)

    def log(self, error: BaseException, status: int, identifier: str) -> None:
        if not self._limit.admits():
            return
        if left_out := self._limit.take_left_out():
            _log.warning("%d more requests were refused than are logged", left_out)
        log_access(method="-", path="-", status=status, ms=0.0, request_id=identifier, error=error)


_refusals: Final = SparingLog()

"""What the table of remote procedure calls is made of; the gRPC entry point mounts it.

As with routes, a handler is pure: it takes a message and gives one, or a future of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from service.core.callers import Caller
from service.core.contracts import Server
from service.core.deadline import Deadline
from service.protocols.protos import pool
from service.protocols.route import Scope


@dataclass(slots=True)
class Call:
    """One call under way. Names in `metadata` are lower-case, as gRPC has them; repeated ones are joined by commas.
    `peer` is the address of the other end. `caller` is who asks, once they were let in.
    """

    deadline: Deadline
    request_id: str
    metadata: Mapping[str, str]
    peer: str = ""
    caller: Caller | None = None


class Kind(Enum):
    UNARY = auto()  # one message each way
    STREAM = auto()  # many each way: each is answered as if it were a call of its own, in order
    WATCH = auto()  # one in; the handler is asked again and again, and its answer is sent whenever it is another


Handler = Callable[[Server, Any, Call], "Any | Future[Any]"]
# Makes the message of a stream that stands for an answer, given the request (None where it was none) and the error.
Failed = Callable[[Any, BaseException], Any]


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method of a service, such as `inference.GRPCInferenceService`, and its message classes.

    Streams have `failed`, and go on after it.
    """

    service: str
    method: str
    request: type[Any]
    response: type[Any]
    handler: Handler
    scope: Scope
    kind: Kind = Kind.UNARY
    failed: Failed | None = None

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.method}"

    def read(self, content: bytes) -> Any:
        """The request in these bytes. Raises UnreadableRequest."""
        return pool.parse(self.request, content)

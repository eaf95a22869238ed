"""A service whose one model never answers in time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from service.core.deadline import NEVER, Deadline
from service.core.messages import InferReply, InferRequest, ModelSummary, Target
from service.core.signature import Signature
from service.protocols.api import Api
from service.protocols.http import HttpReply, HttpRequest
from service.protocols.routes import by_path
from service.scheduling.event_loop import EventLoop
from service.settings import Settings


class SlowServer:
    """Implements `core.contracts.Server`."""

    def __init__(self) -> None:
        self.answers: list[Future[InferReply]] = []
        self.deadlines: list[Deadline] = []
        self.asked = threading.Event()

    def infer(
        self,
        target: Target,
        read: Callable[[Signature], InferRequest],
        deadline: Deadline = NEVER,
        *,
        may_block: bool = False,
    ) -> Future[InferReply]:
        self.deadlines.append(deadline)
        self.answers.append(Future())
        self.asked.set()
        return self.answers[-1]

    def models(self) -> list[ModelSummary]:
        return []

    def describe(self, model: str) -> dict[str, Any]:
        return {}

    def served(self) -> list[Any]:
        return []

    def is_ready(self) -> bool:
        return True

    def drain(self) -> None: ...


class SlowTandem:
    """As much of `assembly.Tandem` as an entry point needs. `recorded` is the access log: request id and status."""

    def __init__(self, *, timeout_s: float) -> None:
        self.settings = Settings()
        self.loop = EventLoop()
        self.paths = by_path()
        self.server = SlowServer()
        self.recorded: list[tuple[str, int]] = []
        self.api = Api(self.server, max_body_bytes=1024, timeout_s=timeout_s, record=self._record)

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def answer_at_last(self) -> None:
        """The model is done, long after everybody has gone."""
        for answer in self.server.answers:
            if not answer.done():
                answer.set_exception(RuntimeError("too late to matter"))

    def _record(self, http: HttpRequest, reply: HttpReply, seconds: float, error: BaseException | None) -> None:
        self.recorded.append((http.request_id, reply.status))

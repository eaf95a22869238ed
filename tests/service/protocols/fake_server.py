"""A server that keeps what it is asked and answers what it is told, on the thread that asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
import orjson

from service.core.contracts import Served
from service.core.deadline import NEVER, Deadline
from service.core.errors import AlreadyLoaded, UnknownModel, UnknownVersion
from service.core.futures import Done
from service.core.messages import InferReply, InferRequest, ModelSummary, Target
from service.core.signature import Column, Container, Output, Signature
from service.core.table import Values
from service.protocols.http import HttpReply, HttpRequest

AGE = Column(name="age", dtype="int64")
CITY = Column(name="city", dtype="string", nullable=True, categories=["Graz", "Linz"])
PREDICT = Output(name="predict", dtype="string", classes=["no", "yes"])
PROBA = Output(name="predict_proba", dtype="float64", shape=(2,), classes=["no", "yes"])


def signature_of(
    *columns: Column, container: Container = Container.FRAME, outputs: Any = (PREDICT, PROBA)
) -> Signature:
    return Signature(container=container, columns=columns, outputs=outputs)


SHOP = signature_of(AGE, CITY)
EXAMPLE = {"age": 41, "city": "Graz"}


class FakeServer:
    """Implements `core.contracts.Server` for one model, version 3 of "shop".

    Args:
        outputs: what the engine would answer for all rows.
        error: what the engine raises instead.
        waits: the answer stays open until `finish`.
    """

    def __init__(
        self,
        signature: Signature = SHOP,
        outputs: Mapping[str, Values] | None = None,
        *,
        error: BaseException | None = None,
        waits: bool = False,
        is_ready: bool = True,
    ) -> None:
        self.signature = signature
        self.outputs = outputs or {"predict": np.array(["yes"]), "predict_proba": np.array([[0.25, 0.75]])}
        self.error = error
        self.waits = waits
        self.ready = is_ready
        self.targets: list[Target] = []
        self.requests: list[InferRequest] = []
        self.changes: list[tuple[str, str]] = []
        self.is_loaded = True
        self.deadline = NEVER
        self.pending: Future[InferReply] = Future()

    def infer(
        self,
        target: Target,
        read: Callable[[Signature], InferRequest],
        deadline: Deadline = NEVER,
        *,
        may_block: bool = False,
    ) -> Future[InferReply]:
        self.targets.append(target)
        self.deadline = deadline
        self.requests.append(read(self.signature))
        if not self.waits:
            self.finish()
        return self.pending

    def finish(self) -> None:
        chosen = {name: self.outputs[name] for name in self.requests[-1].outputs}
        if self.error is not None:
            self.pending.set_exception(self.error)
        else:
            self.pending.set_result(InferReply("shop", 3, self.signature, chosen))

    def models(self) -> list[ModelSummary]:
        return [ModelSummary("shop", (2, 3, 4), {"stable": 2}, "live", 3, {4: "the digest differs"})]

    def describe(self, model: str) -> dict[str, Any]:
        if model != "shop":
            raise UnknownModel
        return {"name": model, "version": 3}

    def version(self, target: Target) -> Served:
        if target.model not in (None, "shop"):
            raise UnknownModel
        if target.version not in (None, 3):
            raise UnknownVersion("shop", [3])
        return self.served()[0]

    def served(self) -> list[Served]:
        return [Served("shop", 3, self.signature, EXAMPLE)]

    def metrics(self, accept: str) -> Future[tuple[bytes, str]]:
        return Done((f"asked for {accept}".encode(), "text/plain"))

    def is_ready(self) -> bool:
        return self.ready

    def load(self, model: str, *, again: bool = True) -> Future[None]:
        if model != "shop":
            return Done(exception=UnknownModel())
        if self.is_loaded and not again:
            return Done(exception=AlreadyLoaded(model))
        self.is_loaded = True
        self.changes.append(("load", model))
        return Done()

    def unload(self, model: str) -> Future[bool]:
        if model != "shop":
            return Done(exception=UnknownModel())
        was_loaded, self.is_loaded = self.is_loaded, False
        self.changes.append(("unload", model))
        return Done(was_loaded)

    def promote(self, model: str, version: int) -> Future[None]:
        if model != "shop":
            return Done(exception=UnknownModel())
        if version not in (2, 3, 4):
            return Done(exception=UnknownVersion(model, [2, 3, 4]))
        self.changes.append((f"promote {version}", model))
        return Done()


def get(path: str = "/models", **path_params: str) -> HttpRequest:
    return HttpRequest("GET", path, path_params, {}, {}, b"", "req-1")


def post(
    content: Any,
    *,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    **path_params: str,
) -> HttpRequest:
    """A request to predict; `content` is a body, or what becomes one."""
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    given = {"content-type": "application/json"} if headers is None else headers
    return HttpRequest("POST", "/predict", path_params, query or {}, given, body, "req-1")


def content_of(reply: HttpReply) -> Any:
    return orjson.loads(reply.body)

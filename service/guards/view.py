"""The service as a caller sees it who may ask some of its models and shall not learn of the others."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any, Final

from service.core.callers import Caller
from service.core.contracts import HeldVersion, Served, Server
from service.core.deadline import NEVER, Deadline
from service.core.errors import UnknownModel
from service.core.messages import InferReply, InferRequest, ModelSummary, Target
from service.core.signature import Signature

# No model can have this name (`core/names.py`): whoever asks for a hidden one gets the answer of an unknown one,
# whatever state the service is in.
_HIDDEN: Final = ""


def seen_by(server: Server, caller: Caller | None) -> Server:
    """The service, or what of it `caller` may know of. None was not let in, and sees nothing of the models."""
    visible = frozenset[str]() if caller is None else caller.models
    return server if visible is None else View(server, visible)


class View:
    """Implements `core.contracts.Server` over another one, with the models in `visible`."""

    def __init__(self, server: Server, visible: Collection[str]) -> None:
        self._server = server
        self._visible = visible

    def infer(
        self,
        target: Target,
        read: Callable[[Signature], InferRequest],
        deadline: Deadline = NEVER,
        *,
        may_block: bool = False,
    ) -> Future[InferReply]:
        return self._server.infer(self._seen(target), read, deadline, may_block=may_block)

    def hold(self, target: Target, deadline: Deadline = NEVER) -> HeldVersion:
        return self._server.hold(self._seen(target), deadline)

    def models(self) -> list[ModelSummary]:
        return [model for model in self._server.models() if model.name in self._visible]

    def describe(self, model: str) -> dict[str, Any]:
        return self._server.describe(self._name(model))

    def version(self, target: Target) -> Served:
        return self._server.version(self._seen(target))

    def served(self) -> list[Served]:
        return [served for served in self._server.served() if served.model in self._visible]

    def metrics(self, accept: str) -> Future[tuple[bytes, str]]:
        """Of all models: the scope for it is one of its own."""
        return self._server.metrics(accept)

    def is_ready(self) -> bool:
        return self._server.is_ready()

    def load(self, model: str, *, again: bool = True) -> Future[None]:
        return self._server.load(self._name(model), again=again)

    def unload(self, model: str) -> Future[bool]:
        return self._server.unload(self._name(model))

    def promote(self, model: str, version: int) -> Future[None]:
        return self._server.promote(self._name(model), version)

    def _name(self, model: str) -> str:
        return model if model in self._visible else _HIDDEN

    def _seen(self, target: Target) -> Target:
        model = self._default() if target.model is None else target.model
        return Target(self._name(model), target.version, target.label)

    def _default(self) -> str:
        """The model that a request means which names none."""
        try:
            return self._server.version(Target()).model
        except UnknownModel:  # the reason counts the models that there are
            return _HIDDEN

"""The service as protocols see it: what they ask is answered from what is live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from time import perf_counter
from typing import Any, Final, Protocol, TypeVar

from service.core.contracts import Served
from service.core.deadline import NEVER, Deadline
from service.core.errors import Overloaded, Unavailable
from service.core.futures import Done, settle, then
from service.core.limits import UNLIMITED, Limits
from service.core.loop import Loop
from service.core.messages import InferReply, InferRequest, ModelSummary, Target
from service.core.signature import Signature
from service.core.table import Values
from service.core.timing import UNKNOWN, Timing
from service.repository.catalog import Catalog
from service.repository.versions import Lease, Loaded

T = TypeVar("T")

# How soon a request of a held version, for which the queue has no room, is tried again.
ROOM_PAUSE_S: Final = 0.05


class Ask(Protocol):
    def __call__(self, work: Callable[[], T]) -> Future[T]:
        """See `Watcher.ask`."""
        ...


class ModelServer:
    """Implements `core.contracts.Server` over a catalog. Safe to call from any thread.

    Args:
        ask: has something done on the one thread that may change the catalog.
        scrape: all metrics, as the header `accept` of whoever asks for them has it.
        loop: where requests of held versions wait for room in the queue.
        limits: larger requests are refused once they are read, larger answers before they are written.
    """

    def __init__(
        self,
        catalog: Catalog,
        ask: Ask,
        scrape: Callable[[str], Future[tuple[bytes, str]]],
        loop: Loop,
        limits: Limits = UNLIMITED,
    ) -> None:
        self._catalog = catalog
        self._ask = ask
        self._scrape = scrape
        self._loop = loop
        self._limits = limits
        self._is_draining = False

    def infer(
        self,
        target: Target,
        read: Callable[[Signature], InferRequest],
        deadline: Deadline = NEVER,
        *,
        may_block: bool = False,
    ) -> Future[InferReply]:
        timing = deadline.timing or Timing()
        timing.model = UNKNOWN  # as long as it is not known to be one of ours
        lease = self._catalog.lease(target)
        manifest = lease.loaded.manifest
        timing.model, timing.version = manifest.name, manifest.version
        try:
            started_at = perf_counter()
            request = read(manifest.signature)
            self._limits.check_rows(request.rows)
            timing.decoded(started_at, request.rows.n_rows)
            answer = lease.loaded.submit(request, deadline, may_block=may_block)
        except BaseException:
            lease.release()
            raise
        answer.add_done_callback(lambda _: lease.release())

        def reply(outputs: dict[str, Values]) -> InferReply:
            self._limits.check_answer(outputs)
            return InferReply(manifest.name, manifest.version, manifest.signature, outputs)

        return then(answer, reply)

    def hold(self, target: Target, deadline: Deadline = NEVER) -> Held:
        timing = deadline.timing or Timing()
        timing.model = UNKNOWN
        lease = self._catalog.lease(target)
        timing.model, timing.version = lease.loaded.manifest.name, lease.loaded.manifest.version
        return Held(lease, self._loop, self._limits)

    def models(self) -> list[ModelSummary]:
        return self._catalog.summaries()

    def describe(self, model: str) -> dict[str, Any]:
        summary, loaded = self._catalog.details(model)
        about: dict[str, Any] = {
            "name": summary.name,
            "version": summary.served,
            "versions": list(summary.versions),
            "labels": summary.labels,
            "state": summary.state,
        }
        if summary.reasons:
            about["reasons"] = {str(version): reason for version, reason in summary.reasons.items()}
        if summary.codes:
            about["codes"] = {str(version): code for version, code in summary.codes.items()}
        return about | (_about(loaded) if loaded is not None else {})

    def version(self, target: Target) -> Served:
        lease = self._catalog.lease(target)
        try:
            return _served(lease.loaded)
        finally:
            lease.release()

    def served(self) -> list[Served]:
        return [_served(loaded) for loaded in self._catalog.served()]

    def load(self, model: str, *, again: bool = True) -> Future[None]:
        return self._ask(lambda: self._catalog.load(model, again=again))

    def unload(self, model: str) -> Future[bool]:
        return self._ask(lambda: self._catalog.unload(model))

    def promote(self, model: str, version: int) -> Future[None]:
        return self._ask(lambda: self._catalog.promote(model, version))

    def metrics(self, accept: str) -> Future[tuple[bytes, str]]:
        return self._scrape(accept)

    def is_ready(self) -> bool:
        return self._catalog.is_loaded and not self._is_draining

    def welcome(self) -> None:
        """From now on the service is ready as soon as its models are loaded."""
        self._is_draining = False

    def drain(self) -> None:
        """From now on the service is not ready; what was accepted is still answered."""
        self._is_draining = True


class Held:
    """Implements `core.contracts.HeldVersion`."""

    def __init__(self, lease: Lease, loop: Loop, limits: Limits) -> None:
        self.served = _served(lease.loaded)
        self.merges = lease.loaded.merges
        self.max_rows = limits.max_rows(len(self.served.signature.columns))
        self._lease: Lease | None = lease
        self._submit = lease.loaded.submit
        self._loop = loop
        self._limits = limits
        self._answer: Future[Any] = Done()

    def infer(
        self, request: InferRequest, deadline: Deadline = NEVER, *, may_block: bool = False
    ) -> Future[InferReply]:
        self._limits.check_rows(request.rows)
        try:
            self._answer = self._submit(request, deadline, may_block=may_block)
        except Overloaded:
            self._answer = self._loop.run(self._when_there_is_room(request, deadline))
        served, limits = self.served, self._limits

        def reply(answer: Future[dict[str, Values]]) -> InferReply:
            if answer.cancelled():  # with the loop, while it waited for room
                raise Unavailable("the service is stopping")
            outputs = answer.result()
            limits.check_answer(outputs)
            return InferReply(served.model, served.version, served.signature, outputs)

        return settle(self._answer, reply)

    async def _when_there_is_room(self, request: InferRequest, deadline: Deadline) -> dict[str, Values]:
        while True:
            await asyncio.sleep(ROOM_PAUSE_S)
            try:
                answer = self._submit(request, deadline)
            except Overloaded:
                if deadline.is_over(time.monotonic() + ROOM_PAUSE_S):
                    raise
            else:
                return await asyncio.wrap_future(answer)

    def close(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            self._answer.add_done_callback(lambda _: lease.release())


def _served(loaded: Loaded) -> Served:
    return Served(loaded.manifest.name, loaded.manifest.version, loaded.manifest.signature, loaded.example)


def _about(loaded: Loaded) -> dict[str, Any]:
    manifest = loaded.manifest
    return {
        "estimator": manifest.estimator,
        "created": manifest.created,
        "digests": {name: f"sha256:{entry.sha256}" for name, entry in manifest.files.items()},
        "libraries": {"python": manifest.python, **manifest.libraries},
        "scores": manifest.scores,
        **loaded.about(),
        "signature": manifest.signature.model_dump(mode="json"),
    }

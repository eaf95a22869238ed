from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from service.core.deadline import NEVER, Deadline
from service.core.errors import (
    AlreadyLoaded,
    InvalidRequest,
    ModelFailed,
    Overloaded,
    ReplyTooLarge,
    RequestTooLarge,
    Unavailable,
    UnknownModel,
    UnknownVersion,
)
from service.core.futures import Done
from service.core.limits import UNLIMITED, Limits
from service.core.messages import InferRequest, Target
from service.core.signature import Column, Container, Output, Signature
from service.core.table import Matrix, Values
from service.repository.catalog import Catalog
from service.repository.manifest import FileEntry, Manifest
from service.repository.sources import Found, Snapshot
from service.repository.versions import Loaded
from service.scheduling.event_loop import EventLoop
from service.server import ModelServer
from tests.conformance.servers import eventually

T = TypeVar("T")

_SIGNATURE = Signature(
    container=Container.ARRAY,
    columns=(Column(name="x0", dtype="float64"),),
    outputs=(Output(name="predict", dtype="float64"),),
)
_REQUEST = InferRequest(Matrix(np.zeros((1, 1))), ("predict",))


def _at_once(work: Callable[[], T]) -> Future[T]:
    """What is asked of the thread that polls, done on this one."""
    done: Future[T] = Future()
    try:
        done.set_result(work())
    except Exception as error:
        done.set_exception(error)
    return done


class Service:
    """One live version over a catalog whose models are answered by the test."""

    def __init__(self) -> None:
        self.found = {1: Found("iris", 1, Path(), ())}
        self.stable = 1
        self.answers: list[Future[dict[str, Values]]] = []
        self.is_full_for = 0  # requests
        self.catalog = Catalog(self, self._load, keep=1)
        self.loop = EventLoop()
        self.server = self.limited(UNLIMITED)

    def limited(self, limits: Limits) -> ModelServer:
        """The same with limits."""
        return ModelServer(
            self.catalog, _at_once, lambda accept: Done((accept.encode(), "text/plain")), self.loop, limits
        )

    def promote(self, name: str, version: int) -> None:
        self.stable = version

    def scan(self) -> Snapshot:
        return Snapshot({"iris": dict(self.found)}, {"iris": {"stable": self.stable}})

    def replace_version(self) -> None:
        """Let go of version 1 and load version 2."""
        self.found = {2: Found("iris", 2, Path(), ())}
        self.catalog.poll()

    def _load(self, found: Found) -> Loaded:
        if found.version == 9:
            raise ModelFailed
        manifest = Manifest(
            name="iris", version=found.version, created="2026-01-01", exporter="", estimator="Ridge",
            signature=_SIGNATURE, files={"model.joblib": FileEntry(sha256="ab", bytes=1)},
            libraries={"numpy": "2"}, python="3.11", scores={"r2": 0.5},
        )  # fmt: skip
        return Loaded(manifest, self._submit, {"x0": 1.5})

    def _submit(
        self, request: InferRequest, deadline: Deadline = NEVER, *, may_block: bool = False
    ) -> Future[dict[str, Values]]:
        if self.is_full_for:
            self.is_full_for -= 1
            raise Overloaded("full")
        self.answers.append(Future())
        return self.answers[-1]


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    service.catalog.poll()
    yield service
    service.loop.stop()


def _leases(service: Service, version: int = 1) -> int:
    return service.catalog._versions["iris"][version].leases


def test_answer_names_the_model_and_version_that_gave_it(service: Service) -> None:
    seen: list[Signature] = []

    def read(signature: Signature) -> InferRequest:
        seen.append(signature)
        return _REQUEST

    reply = service.server.infer(Target("iris"), read)
    values = np.array([2.0])
    service.answers[0].set_result({"predict": values})

    assert seen == [_SIGNATURE]
    assert (reply.result(0).model, reply.result(0).version, reply.result(0).signature) == ("iris", 1, _SIGNATURE)
    assert reply.result(0).outputs["predict"] is values


def test_version_is_leased_until_the_answer_is_there(service: Service) -> None:
    reply = service.server.infer(Target("iris"), lambda _: _REQUEST)
    assert _leases(service) == 1

    service.answers[0].set_result({})

    assert _leases(service) == 0
    assert reply.done()


def test_answer_comes_from_the_version_that_was_asked_though_it_was_replaced(service: Service) -> None:
    reply = service.server.infer(Target("iris"), lambda _: _REQUEST)

    service.replace_version()
    service.answers[0].set_result({})

    assert reply.result(0).version == 1
    assert [summary.versions for summary in service.server.models()] == [(2,)]


def test_failure_of_the_model_is_in_the_future_and_ends_the_lease(service: Service) -> None:
    error = ModelFailed()
    reply = service.server.infer(Target("iris"), lambda _: _REQUEST)

    service.answers[0].set_exception(error)

    assert reply.exception(0) is error
    assert _leases(service) == 0


@pytest.mark.parametrize("error", [InvalidRequest("no such column"), KeyboardInterrupt()], ids=["caller", "interrupt"])
def test_request_that_cannot_be_read_ends_the_lease(service: Service, error: BaseException) -> None:
    def refuse(signature: Signature) -> InferRequest:
        raise error

    with pytest.raises(type(error)):
        service.server.infer(Target("iris"), refuse)

    assert _leases(service) == 0
    assert service.answers == []


def test_request_of_too_many_rows_is_not_computed_and_ends_the_lease(service: Service) -> None:
    server = service.limited(Limits(rows=0, cells=1, reply_bytes=8))

    with pytest.raises(RequestTooLarge, match="1 rows"):
        server.infer(Target("iris"), lambda _: _REQUEST)

    assert service.answers == []
    assert _leases(service) == 0


@pytest.mark.parametrize(("limit", "is_sent"), [(7, False), (8, True)])
def test_answer_that_is_too_large_fails_its_future_and_ends_the_lease(
    service: Service, limit: int, is_sent: bool
) -> None:
    server = service.limited(Limits(rows=1, cells=1, reply_bytes=limit))
    reply = server.infer(Target("iris"), lambda _: _REQUEST)

    service.answers[0].set_result({"predict": np.zeros(1)})

    assert isinstance(reply.exception(0), ReplyTooLarge) is not is_sent
    assert _leases(service) == 0


def test_unknown_model_is_told_before_the_request_is_read(service: Service) -> None:
    with pytest.raises(UnknownModel):
        service.server.infer(Target("wine"), lambda _: pytest.fail("was read"))


def test_description_tells_what_is_served_and_where_it_comes_from(service: Service) -> None:
    about = service.server.describe("iris")

    assert about == {
        "name": "iris", "version": 1, "versions": [1], "labels": {"stable": 1}, "state": "live",
        "estimator": "Ridge", "created": "2026-01-01", "digests": {"model.joblib": "sha256:ab"},
        "libraries": {"python": "3.11", "numpy": "2"}, "scores": {"r2": 0.5},
        "signature": _SIGNATURE.model_dump(mode="json"),
    }  # fmt: skip


@pytest.mark.parametrize("is_live", [True, False])
def test_description_tells_why_a_version_is_not_served(service: Service, is_live: bool) -> None:
    bad = {9: Found("iris", 9, Path(), ())}
    service.found = {**service.found, **bad} if is_live else bad
    service.catalog.poll()

    about: dict[str, Any] = service.server.describe("iris")

    assert list(about["reasons"]) == ["9"]
    assert about["state"] == ("live" if is_live else "failed")
    assert ("signature" in about) == is_live


def test_unknown_model_cannot_be_described(service: Service) -> None:
    with pytest.raises(UnknownModel):
        service.server.describe("wine")


def test_served_versions_are_told_with_an_example(service: Service) -> None:
    (served,) = service.server.served()

    assert (served.model, served.version, served.signature, served.example) == ("iris", 1, _SIGNATURE, {"x0": 1.5})


def test_service_is_ready_from_the_first_round_until_it_drains() -> None:
    service = Service()
    before = service.server.is_ready()

    service.catalog.poll()
    loaded = service.server.is_ready()
    service.server.drain()

    assert (before, loaded, service.server.is_ready()) == (False, True, False)


def test_draining_service_still_answers(service: Service) -> None:
    service.server.drain()

    reply = service.server.infer(Target("iris"), lambda _: _REQUEST)
    service.answers[0].set_result({})

    assert reply.result(0).version == 1


def test_unloaded_model_answers_what_was_asked_before_and_nothing_after(service: Service) -> None:
    reply = service.server.infer(Target("iris"), lambda _: _REQUEST)

    assert service.server.unload("iris").result(0)

    with pytest.raises(UnknownModel):
        service.server.infer(Target("iris"), lambda _: _REQUEST)
    service.answers[0].set_result({})
    assert reply.result(0).version == 1


def test_loaded_model_answers_again(service: Service) -> None:
    service.server.unload("iris").result(0)

    service.server.load("iris").result(0)

    assert service.server.version(Target("iris")).version == 1
    assert isinstance(service.server.load("iris", again=False).exception(0), AlreadyLoaded)


def test_promoted_version_is_what_a_plain_request_gets(service: Service) -> None:
    service.found[2] = Found("iris", 2, Path(), ())

    service.server.promote("iris", 2).result(0)

    assert service.server.version(Target("iris")).version == 2
    assert isinstance(service.server.promote("iris", 3).exception(0), UnknownVersion)


def test_held_version_answers_on_though_it_was_replaced(service: Service) -> None:
    held = service.server.hold(Target("iris"))
    service.replace_version()

    reply = held.infer(_REQUEST)
    service.answers[0].set_result({"predict": np.array([2.0])})

    assert (held.served.version, reply.result(0).version) == (1, 1)
    assert held.served.example == {"x0": 1.5}


def test_version_is_held_until_it_is_closed_and_what_is_computed_is_done(service: Service) -> None:
    held = service.server.hold(Target("iris"))
    held.infer(_REQUEST)

    held.close()
    held.close()
    assert _leases(service) == 1
    service.answers[0].set_result({})

    assert _leases(service) == 0


def test_held_version_that_was_asked_nothing_is_let_go_of_at_once(service: Service) -> None:
    held = service.server.hold(Target("iris"))
    assert _leases(service) == 1

    held.close()

    assert _leases(service) == 0


def test_held_version_has_the_limits_of_a_request(service: Service) -> None:
    held = service.limited(Limits(5, 5, 8)).hold(Target("iris"))

    assert (held.max_rows, held.merges) == (5, False)
    with pytest.raises(RequestTooLarge):
        held.infer(InferRequest(Matrix(np.zeros((6, 1))), ("predict",)))
    reply = held.infer(_REQUEST)
    service.answers[0].set_result({"predict": np.zeros(2)})
    with pytest.raises(ReplyTooLarge):
        reply.result(0)


def test_only_what_is_served_is_held(service: Service) -> None:
    with pytest.raises(UnknownModel):
        service.server.hold(Target("nobody"))


@pytest.mark.parametrize("error", [None, ModelFailed()], ids=["answered", "failed"])
def test_held_version_waits_for_room_in_the_queue(service: Service, error: Exception | None) -> None:
    held = service.server.hold(Target("iris"))
    service.is_full_for = 2

    reply = held.infer(_REQUEST)
    assert not service.answers
    answer = eventually(lambda: service.answers[0] if service.answers else None, "room")
    if error is None:
        answer.set_result({"predict": np.zeros(1)})
    else:
        answer.set_exception(error)

    assert reply.exception(20) is error


def test_held_version_waits_no_longer_than_the_deadline(service: Service) -> None:
    held = service.server.hold(Target("iris"))
    service.is_full_for = 1_000

    reply = held.infer(_REQUEST, Deadline.after(0.15))
    held.close()

    assert isinstance(reply.exception(20), Overloaded)
    assert _leases(service) == 0


def test_held_versions_that_wait_for_room_share_one_thread(service: Service) -> None:
    service.is_full_for = 1_000
    before = set(threading.enumerate())

    waiting = [service.server.hold(Target("iris")).infer(_REQUEST, Deadline.after(0.15)) for _ in range(20)]
    begun = set(threading.enumerate()) - before

    assert {thread.name for thread in begun} == {"tandem-loop"}
    assert all(isinstance(reply.exception(20), Overloaded) for reply in waiting)


def test_held_version_that_waits_for_room_is_told_that_the_service_stops(service: Service) -> None:
    service.is_full_for = 1_000
    reply = service.server.hold(Target("iris")).infer(_REQUEST)

    service.loop.stop()

    assert isinstance(reply.exception(20), Unavailable)

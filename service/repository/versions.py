"""A version in memory: what it holds, its states and the moves between them, and the leases on it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from service.core.artefact_errors import ArtefactError, OutOfMemory
from service.core.deadline import NEVER, Deadline
from service.core.errors import TandemError
from service.core.messages import InferRequest
from service.core.table import Values
from service.repository.control import Order
from service.repository.manifest import Manifest
from service.repository.sources import Found


class State(StrEnum):
    LOADING = "loading"
    LIVE = "live"
    DRAINING = "draining"
    GONE = "gone"
    FAILED = "failed"


MOVES: Final = {
    State.LOADING: {State.LIVE, State.FAILED},  # digests and golden rows must agree first
    State.LIVE: {State.DRAINING},
    State.DRAINING: {State.GONE},  # only when the last lease is returned
    State.FAILED: set[State](),  # until its files change or it is ordered anew, which makes it another version
    State.GONE: set[State](),
}


class Submit(Protocol):
    def __call__(
        self, request: InferRequest, deadline: Deadline = NEVER, *, may_block: bool = False
    ) -> Future[dict[str, Values]]:
        """See `scheduling.lane`."""
        ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version in memory, checked and able to answer.

    `example` is one record of its golden rows; `about` tells which engines may answer, and what they cost;
    `close` lets go of what other processes hold for it. `merges` says that the answer to a row does not depend on the
    rows beside it.
    """

    manifest: Manifest
    submit: Submit
    example: dict[str, Any]
    about: Callable[[], dict[str, Any]] = dict
    close: Callable[[], None] = lambda: None
    merges: bool = False


class Version:
    """One version, from the moment it is to be loaded, and under which order. Changed under the catalog's lock only.

    Of one that failed, `reason` is for people and `code` for alerts (see `ArtefactError`).
    """

    def __init__(self, found: Found, order: Order) -> None:
        self.found = found
        self.order = order
        self.state = State.LOADING
        self.loaded: Loaded | None = None
        self.reason: str | None = None
        self.code: str | None = None
        self.leases = 0

    def is_of(self, found: Found | None, order: Order) -> bool:
        """Whether it is of these files, and was loaded since this order was given."""
        return self.found == found and self.order == order

    def fail(self, error: BaseException) -> None:
        self.move(State.FAILED)
        self.code = code_of(error)
        self.reason = str(error) if isinstance(error, TandemError) else f"{type(error).__name__}: {error}"

    def move(self, state: State) -> None:
        if state not in MOVES[self.state]:
            raise AssertionError(f"{self.found.name}/{self.found.version}: {self.state} to {state}")
        self.state = state
        if state is State.GONE and self.loaded is not None:
            self.loaded.close()
            self.loaded = None  # the memory goes with the last reference


def code_of(error: BaseException) -> str:
    """What went wrong, in a word that stays the same from version to version."""
    if isinstance(error, MemoryError):
        return OutOfMemory.code
    return error.code if isinstance(error, ArtefactError) else "load-failed"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to use a version: it stays in memory until `release` is called, exactly once."""

    loaded: Loaded
    release: Callable[[], None]

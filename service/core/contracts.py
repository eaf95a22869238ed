"""What the parts expect of each other, so that none needs to import another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from service.core.deadline import NEVER, Deadline
from service.core.messages import InferReply, InferRequest, ModelSummary, Target
from service.core.signature import Signature
from service.core.table import Table, Values


class Engine(Protocol):
    """Computes outputs for rows; keeps nothing between calls.

    A reentrant one may be called by several threads at once; of any other, the calls come one by one.
    """

    @property
    def is_reentrant(self) -> bool: ...

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        """Each value has `rows.n_rows` rows. Steps that outputs share are computed once.

        The rows are used up: an estimator may work in place on them.

        Raises:
            RowsRefused: the model raised ValueError.
            ModelFailed: the model raised anything else, or answered with another number of rows.
            CannotAnswer: another engine must answer some of these rows.
        """
        ...


@dataclass(frozen=True, slots=True)
class Served:
    """A version that answers now, as documents need it. `example` is one record it takes."""

    model: str
    version: int
    signature: Signature
    example: dict[str, Any]


class HeldVersion(Protocol):
    """One version that answers requests one after another, and stays loaded until `close`."""

    @property
    def served(self) -> Served: ...

    @property
    def merges(self) -> bool:
        """Whether the answer to a row does not depend on the rows beside it."""
        ...

    @property
    def max_rows(self) -> int:
        """So many rows one request may have; at least 1."""
        ...

    def infer(
        self, request: InferRequest, deadline: Deadline = NEVER, *, may_block: bool = False
    ) -> Future[InferReply]:
        """As `Server.infer`, of rows that are decoded. Where too much is waiting, it waits for room: the future fails
        with Overloaded where there was none until the deadline.

        Raises:
            RequestTooLarge: more rows or values than a request may have.
        """
        ...

    def close(self) -> None:
        """What is being computed still has the version. May be called twice."""
        ...


class Server(Protocol):
    """What a protocol may ask of the service. Safe to call from any thread."""

    def infer(
        self,
        target: Target,
        read: Callable[[Signature], InferRequest],
        deadline: Deadline = NEVER,
        *,
        may_block: bool = False,
    ) -> Future[InferReply]:
        """Choose the version, let `read` decode the rows against its signature, and compute.

        Work that is not begun by the deadline is not begun at all. With `may_block` the caller would only
        wait for the answer, so that it may be computed on its thread.
        The version stays loaded until the future is done, whatever is exported meanwhile.

        Raises:
            UnknownModel, UnknownVersion, UnknownLabel, Unavailable: nothing to ask.
            Overloaded: too much is waiting.
            Whatever `read` raises. What the engine raises is in the future.
        """
        ...

    def hold(self, target: Target, deadline: Deadline = NEVER) -> HeldVersion:
        """The version that `target` means now, for as long as the caller likes.

        Raises:
            UnknownModel, UnknownVersion, UnknownLabel, Unavailable: nothing to ask.
        """
        ...

    def models(self) -> list[ModelSummary]: ...

    def describe(self, model: str) -> dict[str, Any]:
        """What `GET /models/{name}` shows. Raises UnknownModel."""
        ...

    def version(self, target: Target) -> Served:
        """The version that `target` means, to be described. Raises what `infer` does before it reads."""
        ...

    def served(self) -> list[Served]:
        """One per model, the version that a plain request gets, ordered by name."""
        ...

    def metrics(self, accept: str) -> Future[tuple[bytes, str]]:
        """What was counted, and its content type: the one of those in the header `accept` that is known, else text."""
        ...

    def is_ready(self) -> bool: ...

    def load(self, model: str, *, again: bool = True) -> Future[None]:
        """Load the model anew, or again after `unload`; what serves meanwhile serves on until it is there.

        The future fails with UnknownModel, with AlreadyLoaded where it serves and was not to be loaded `again`, or
        with Unavailable where the version that a plain request should get cannot be loaded.
        """
        ...

    def unload(self, model: str) -> Future[bool]:
        """Let go of the model until somebody loads it; requests under way are answered.

        The future tells whether that changed anything, or fails with UnknownModel.
        """
        ...

    def promote(self, model: str, version: int) -> Future[None]:
        """Make `version` the one that a plain request gets.

        The future fails with UnknownModel, UnknownVersion, NotAllowed where this cannot be written, or Unavailable
        where the version cannot be loaded.
        """
        ...

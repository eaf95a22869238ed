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

    def is_ready(self) -> bool: ...

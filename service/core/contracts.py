"""What the parts expect of each other, so that none needs to import another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from service.core.messages import InferReply, InferRequest, ModelSummary, Target
from service.core.signature import Signature
from service.core.table import Table, Values


class Engine(Protocol):
    """Computes outputs for rows. Called by one thread at a time; keeps nothing between calls."""

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        """Each value has `rows.n_rows` rows. Steps that outputs share are computed once.

        The rows are used up: an estimator may work in place on them.

        Raises:
            RowsRefused: the model raised ValueError.
            ModelFailed: the model raised anything else, or answered with another number of rows.
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

    def infer(self, target: Target, read: Callable[[Signature], InferRequest]) -> Future[InferReply]:
        """Choose the version, let `read` decode the rows against its signature, and compute.

        The version stays loaded until the future is done, whatever is exported meanwhile.

        Raises:
            UnknownModel, UnknownVersion, UnknownLabel, Unavailable: nothing to ask.
            Whatever `read` raises. What the engine raises is in the future.
        """
        ...

    def models(self) -> list[ModelSummary]: ...

    def describe(self, model: str) -> dict[str, Any]:
        """What `GET /models/{name}` shows. Raises UnknownModel."""
        ...

    def served(self) -> list[Served]:
        """One per model, the version that a plain request gets, ordered by name."""
        ...

    def is_ready(self) -> bool: ...

"""Requests that wait for an engine."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from service.core.deadline import Deadline
from service.core.errors import DeadlinePassed
from service.core.futures import Soon
from service.core.messages import InferRequest
from service.core.table import Values
from service.scheduling.batch import kind

Answer = dict[str, Values]


@dataclass(slots=True, eq=False)
class Waiting:
    """One of them; `size` and `seconds` are what it counts in the admission."""

    request: InferRequest
    deadline: Deadline
    rows: int
    size: int = 0
    seconds: float = 0.0
    future: Soon[Answer] = field(default_factory=Soon)

    @property
    def key(self) -> Hashable:
        """Equal for those that can be one batch."""
        return self.request.outputs, kind(self.request.rows)

    def is_wanted(self, now: float) -> bool:
        """Whether to compute it. A late one is told so."""
        if self.deadline.is_over(now):
            self.future.set_exception(DeadlinePassed(self.deadline.seconds))
            return False
        return True

    def note(self, begun_at: float, done_at: float) -> None:
        """Write down when it was computed."""
        if (timing := self.deadline.timing) is not None:
            timing.begun_at, timing.done_at = begun_at, done_at


def alike(waiting: Iterable[Waiting], max_rows: int) -> list[list[Waiting]]:
    """Those that can be one batch each, of no more rows than that; one request may have more."""
    batches: list[list[Waiting]] = []
    open_ones: dict[Hashable, tuple[list[Waiting], int]] = {}
    for one in waiting:
        batch, rows = open_ones.get(one.key, ([], max_rows))
        if rows + one.rows > max_rows:
            batch, rows = [], 0
            batches.append(batch)
        batch.append(one)
        open_ones[one.key] = batch, rows + one.rows
    return batches

"""The event loop of a service, as those see it who give it work (`scheduling/event_loop.py` is it)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Loop(Protocol):
    """For what waits for others, hundreds at a time, and computes next to nothing. Safe to call from any thread."""

    def run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin `work`. To cancel the future cancels it."""
        ...

    def iterate(self, pieces: AsyncGenerator[T, None]) -> Iterator[T]:
        """What `pieces` yields, for a thread that waits. To close the iterator closes `pieces`."""
        ...

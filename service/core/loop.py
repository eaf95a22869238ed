"""The loops of a service, as those see them who give them work (`scheduling/event_loop.py` knows them)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
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


class Turning(Protocol):
    """What reads many connections by turns, on one thread: an event loop, or the loop of a web server with threads."""

    def call_soon(self, call: Callable[..., object], *arguments: Any) -> object:
        """Have `call` called on this thread once everything that had come when the turn began is read."""
        ...

"""Who is told what is computed, in which parts and by whom. Called on the threads that compute, so it must be quick."""

from __future__ import annotations

from typing import Final, Protocol


class Observer(Protocol):
    def batch(self, rows: int, requests: int) -> None:
        """So much is computed together."""
        ...

    def call(self, engine: str, rows: int) -> None:
        """The engine of this name is asked."""
        ...

    def fallback(self, engine: str) -> None:
        """It could not answer, or only some of the rows; another one is asked."""
        ...


class _Nobody:
    def batch(self, rows: int, requests: int) -> None: ...

    def call(self, engine: str, rows: int) -> None: ...

    def fallback(self, engine: str) -> None: ...


NOBODY: Final[Observer] = _Nobody()

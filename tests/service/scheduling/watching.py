"""An observer that keeps what it is told."""

from __future__ import annotations


class Watching:
    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.calls: list[tuple[str, int]] = []
        self.fallbacks: list[str] = []

    def batch(self, rows: int, requests: int) -> None:
        self.batches.append((rows, requests))

    def call(self, engine: str, rows: int) -> None:
        self.calls.append((engine, rows))

    def fallback(self, engine: str) -> None:
        self.fallbacks.append(engine)

"""Many things that must each be done within the same time, for the price of one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable


class Deadlines:
    """What is begun and not ended after `seconds` is late: `late(key)` is called once, on the event loop.

    All have the same time, so they are due in the order in which they began, and one timer waits for the first.
    To begin and to end takes well under a microsecond, where a timer of the event loop takes several. Belongs to the
    event loop it is first used on.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._due: dict[Hashable, tuple[float, Callable[[], None]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, key: Hashable, late: Callable[[], None]) -> None:
        """Begin anew where it has begun already."""
        loop = asyncio.get_running_loop()
        self._due.pop(key, None)
        self._due[key] = (loop.time() + self.seconds, late)
        if self._timer is None:
            self._timer = loop.call_later(self.seconds, self._ring, loop)

    def end(self, key: Hashable) -> None:
        """Nothing happens where it has not begun, or was late."""
        self._due.pop(key, None)

    def end_first(self) -> bool:
        """Call what is due first late, now. False where nothing is under way."""
        if not self._due:
            return False
        self._call(next(iter(self._due)))
        return True

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        while self._due:
            key, (at, _) = next(iter(self._due.items()))
            if at > loop.time():
                self._timer = loop.call_at(at, self._ring, loop)
                return
            self._call(key)

    def _call(self, key: Hashable) -> None:
        _, late = self._due.pop(key)
        late()

"""Requests that take a loop some time: a few of them each time round, so that those that do not get in between.

One turn of a loop reads whatever has come on any connection. Were all of it answered within that turn, whoever asks
whether the service lives would wait for 64 bodies of 100 rows to be decoded, and for as many refusals to be written.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from service.core.loop import Turning

T = TypeVar("T")

# Bodies that take longer to read than the rest of their request.
LONG_BYTES: Final = 16 * 1024
# Of one turn. To let the loop go round once more costs some 10 µs.
TURN_S: Final = 0.002


class Turns:
    """Work of one loop, in the order that it came. To be used on its thread only.

    Args:
        here: the loop.
        turn_s: when it is over, what still waits is left for the next turn.
        clock: seconds.
    """

    def __init__(
        self, here: Callable[[], Turning], turn_s: float = TURN_S, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._here = here
        self._turn_s = turn_s
        self._clock = clock
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_due = False

    def add(self, work: Callable[[], None]) -> None:
        """Have `work` called when its turn comes."""
        self._waiting.append(work)
        self._come()

    async def result(self, work: Callable[[], T]) -> T:
        """Of an event loop: what `work`, which raises nothing, returns when its turn comes.

        It is not called for a task that is over.
        """
        found: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def run() -> None:
            if not found.done():
                found.set_result(work())

        self.add(run)
        return await found

    def _come(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._here().call_soon(self._run)

    def _run(self) -> None:
        self._is_due = False
        until = self._clock() + self._turn_s
        try:
            while self._waiting:
                self._waiting.popleft()()
                if self._clock() >= until:
                    break
        finally:  # whatever one of them raises, the others are not forgotten
            if self._waiting:
                self._come()

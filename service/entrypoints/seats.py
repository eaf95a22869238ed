"""The threads that may be held by what takes long; the others answer at once.

A WSGI server has a number of threads, and whoever waits for a prediction holds one. Were all of them held, nobody
would be left to say that the service lives, or that it has no room.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

# How long a request waits for a seat, at most. Health is asked on the threads that wait meanwhile, and is to be
# answered within 50 ms.
WAIT_S: Final = 0.01
# Seats were held as long as the last handful of requests held them.
LEARNS: Final = 0.1


class Seats:
    """Safe to call from any thread.

    Args:
        count: how many may be taken; None means that there are enough for all.
    """

    def __init__(self, count: int | None, clock: Callable[[], float] = time.perf_counter) -> None:
        self._count = count
        self._clock = clock
        self._free = None if count is None else threading.Semaphore(count)
        self._lock = threading.Lock()
        self._waiting = 0
        self._held_s = 0.0

    def take(self) -> float | None:
        """When the seat was taken, which is to be said when it is given back; None where there is none.

        Seats that short requests hold are soon free. Where they are held for so long that this one would wait in
        vain, it does not, so that the spare threads do not wait, too.
        """
        if self._free is None or self._count is None:
            return self._clock()
        if not self._free.acquire(blocking=False):
            with self._lock:
                if (self._waiting + 1) * self._held_s / self._count > WAIT_S:
                    return None
                self._waiting += 1
            try:
                if not self._free.acquire(timeout=WAIT_S):
                    return None
            finally:
                with self._lock:
                    self._waiting -= 1
        return self._clock()

    def give(self, taken_at: float) -> None:
        self._held_s += LEARNS * (self._clock() - taken_at - self._held_s)  # a lost update changes nothing much
        if self._free is not None:
            self._free.release()

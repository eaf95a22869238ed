"""How much may wait. Beyond it a request is turned away at once, which is kinder than to let it time out."""

from __future__ import annotations

import math
import threading
from typing import Final

from service.core.errors import Overloaded

# Nobody is sent away for longer than this: the prediction knows nothing of models that are unloaded meanwhile.
LONGEST_RETRY_S: Final = 60


class Admission:
    """Counts the rows and bytes that wait, over all lanes of the process. Safe to call from any thread.

    Args:
        max_rows: may wait together; too small turns bursts away, too large lets all of them time out.
        max_bytes: the same, for rows of many columns or long texts.
        threads: compute at a time, and so share the work that waits.
    """

    def __init__(self, max_rows: int, max_bytes: int, threads: int = 1) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._threads = threads
        self.reset()

    def reset(self) -> None:
        """Begin anew, in a forked child: nothing waits there, and the lock may be held by a thread it lacks."""
        self._lock = threading.Lock()
        self._requests = 0
        self.rows = 0
        self.bytes = 0
        self._seconds = 0.0

    def enter(self, rows: int, size: int, seconds: float) -> None:
        """Count a request of `rows` rows, `size` bytes and a share of `seconds` in a batch.

        One request is always admitted where nothing waits: no queue would ever be empty enough for it.

        Raises:
            Overloaded: it does not fit; `retry_after_s` is what the work that waits is predicted to take.
        """
        with self._lock:
            if self._requests and (self.rows + rows > self._max_rows or self.bytes + size > self._max_bytes):
                raise Overloaded(self._refusal(), self._retry_after_s())
            self._requests += 1
            self.rows += rows
            self.bytes += size
            self._seconds += seconds

    def leave(self, rows: int, size: int, seconds: float, requests: int = 1) -> None:
        """Give back what requests were counted with, now that they wait no longer."""
        with self._lock:
            self._requests -= requests
            self.rows -= rows
            self.bytes -= size
            self._seconds -= seconds

    def _refusal(self) -> str:
        return f"{self.rows} rows ({self.bytes} bytes) wait already, and {self._max_rows} ({self._max_bytes}) may"

    def _retry_after_s(self) -> int:
        return min(max(math.ceil(self._seconds / self._threads), 1), LONGEST_RETRY_S)

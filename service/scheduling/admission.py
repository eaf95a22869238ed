"""How much may wait. Beyond it a request is turned away at once, which is kinder than to let it time out."""

from __future__ import annotations

import math
import threading
from typing import Final

from service.core.errors import Overloaded

# Nobody is sent away for longer than this: the prediction knows nothing of models that are unloaded meanwhile.
LONGEST_RETRY_S: Final = 60

# How long a request may wait where nobody says otherwise, and how many times as long as it takes itself: of calls
# that take a second, sixteen may wait for each thread, or half a second would let no two callers in.
QUEUE_S: Final = 0.5
FAIR: Final = 16

# What calls were measured to take when the model was loaded is less than what they take on a busy host, or more where
# it was busy then: how much is learnt from those that were made, the last handful of which count most.
LEARNS: Final = 0.2
SLOWEST: Final = 100.0
QUICKEST: Final = 0.01


class Admission:
    """Counts the rows and bytes that wait, over all lanes of the process. Safe to call from any thread.

    Args:
        max_rows: may wait together; too small turns bursts away, too large lets all of them time out.
        max_bytes: the same, for rows of many columns or long texts.
        threads: compute at a time, and so share the work that waits.
        max_s: who would wait longer, by what the work that waits is predicted to take, is turned away, unless it is
            no more than FAIR times as long as the request takes itself. What nobody measured counts nothing.
    """

    def __init__(self, max_rows: int, max_bytes: int, threads: int = 1, max_s: float = QUEUE_S) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._threads = threads
        self._max_s = max_s
        self.reset()

    def reset(self) -> None:
        """Begin anew, in a forked child: nothing waits there, and the lock may be held by a thread it lacks."""
        self._lock = threading.Lock()
        self._requests = 0
        self.rows = 0
        self.bytes = 0
        self._seconds = 0.0
        self._slowness = 1.0
        self._longest_s = self._max_s  # that any request might have waited since last nobody did

    def learn(self, predicted_s: float, took_s: float) -> None:
        """A call that was predicted to take so long took that long."""
        if 0.0 < predicted_s < math.inf:
            slowness = min(max(took_s / predicted_s, QUICKEST), SLOWEST)
            with self._lock:
                self._slowness += LEARNS * (slowness - self._slowness)

    @property
    def is_full(self) -> bool:
        """Whether any request would be turned away, as far as can be said without having read it.

        Takes no lock: whoever passes is asked again by `enter`.
        """
        return self._requests > 0 and (
            self.rows >= self._max_rows or self.bytes >= self._max_bytes or self._wait_s() > self._longest_s
        )

    def require_room(self) -> None:
        """To be asked before anything of a request is read, which costs as much as to refuse ten.

        Raises:
            Overloaded: it is full.
        """
        if self.is_full:
            wait_s, may_s = self._wait_s(), self._longest_s
            raise Overloaded(_too_long(wait_s, may_s) if wait_s > may_s else self._refusal(), self._retry_after_s())

    def enter(self, rows: int, size: int, seconds: float, *, is_let_in: bool = False) -> None:
        """Count a request of `rows` rows, `size` bytes and a share of `seconds` in a batch.

        One request is always admitted where nothing waits: no queue would ever be empty enough for it. So is one that
        `is_let_in` already.

        Raises:
            Overloaded: it does not fit; `retry_after_s` is what the work that waits is predicted to take.
        """
        with self._lock:
            if self._requests and not is_let_in:
                if self.rows + rows > self._max_rows or self.bytes + size > self._max_bytes:
                    raise Overloaded(self._refusal(), self._retry_after_s())
                wait_s = self._wait_s()
                may_s = max(self._max_s, FAIR * seconds * self._slowness)
                self._longest_s = max(self._longest_s, may_s)
                if wait_s > may_s:
                    raise Overloaded(_too_long(wait_s, may_s), self._retry_after_s())
            elif not self._requests:
                self._longest_s = self._max_s
            self._requests += 1
            self.rows += rows
            self.bytes += size
            self._seconds += seconds

    @property
    def requests(self) -> int:
        """How many wait."""
        return self._requests

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
        return min(max(math.ceil(self._wait_s()), 1), LONGEST_RETRY_S)

    def _wait_s(self) -> float:
        return self._seconds * self._slowness / self._threads


def _too_long(wait_s: float, may_s: float) -> str:
    return f"{wait_s:.3g} seconds of work wait already, and {may_s:.3g} may"

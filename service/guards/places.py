"""Places for what takes long: answers that come in pieces, and WebSockets."""

from __future__ import annotations

import threading
from collections import Counter

from service.core.errors import Overloaded, RateLimited


class Places:
    """So many at a time, and so many of one caller. Safe to call from any thread.

    Args:
        count: in all.
        share: of one caller; None means all.
    """

    def __init__(self, count: int, share: int | None = None) -> None:
        self._count = count
        self._share = count if share is None else share
        self.forget()

    def forget(self) -> None:
        """For a forked child: who holds a place holds it in the parent."""
        self._lock = threading.Lock()
        self._holders: dict[int, str] = {}
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        return len(self._holders)

    def take(self, holder: object, caller: str) -> None:
        """`holder` holds a place from now on, until it leaves.

        Raises:
            Overloaded: all are taken.
            RateLimited: this caller has its share.
        """
        with self._lock:
            if self._taken.get(caller, 0) >= self._share:
                raise RateLimited(f"{self._share} streams of this caller are open, and no more may be", 1)
            if len(self._holders) >= self._count:
                raise Overloaded(f"{self._count} streams are open, and no more may be")
            self._holders[id(holder)] = caller
            self._taken[caller] += 1

    def leave(self, holder: object) -> None:
        """Nothing happens where it holds none."""
        if id(holder) not in self._holders:  # nearly everybody: no lock
            return
        with self._lock:
            caller = self._holders.pop(id(holder), None)
            if caller is not None:
                self._taken[caller] -= 1
                if not self._taken[caller]:
                    del self._taken[caller]

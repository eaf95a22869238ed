"""Counts that several processes or machines share, in Redis, by the library `limits`.

Where the store is down or slow, each process counts for itself for a while: nobody is refused for it, nobody gets an
error, and one request in RETRY_S waits, for TIMEOUT_S at most.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from service.core.callers import Rate
from service.core.errors import TandemError
from service.guards.rates import Verdict

TIMEOUT_S: Final = 0.1
RETRY_S: Final = 5.0

_log = logging.getLogger(__name__)

Ask = Callable[[Rate, str, float], Verdict]


class StoreUnusable(TandemError):
    """The store of limits cannot be used as it is written; the message says what to change."""

    title = "Store of limits unusable"


class Counters(Protocol):
    """What `limits.strategies` offer. `get_window_stats` has `reset_time`, of the wall clock, and `remaining`."""

    def hit(self, item: Any, *identifiers: str) -> bool: ...

    def get_window_stats(self, item: Any, *identifiers: str) -> Any: ...


class SharedWindows:
    """Asks `counters`, or `locally` where they do not answer. Safe to call from any thread."""

    def __init__(self, counters: Counters, locally: Ask, wall: Callable[[], float] = time.time) -> None:
        self._counters = counters
        self._locally = locally
        self._wall = wall
        self._again_at = 0.0
        self._items: dict[Rate, Any] = {}

    def ask(self, rate: Rate, caller: str, now: float) -> Verdict:
        if now < self._again_at:
            return self._locally(rate, caller, now)
        self._again_at = now + RETRY_S  # others need not wait beside this one, should it wait in vain
        try:
            verdict = self._asked(rate, caller)
        except Exception as error:  # each store has its own
            _log.warning("the store of limits does not answer (%s): counting here", type(error).__name__)
            return self._locally(rate, caller, now)
        self._again_at = 0.0
        return verdict

    def _asked(self, rate: Rate, caller: str) -> Verdict:
        item = self._items.get(rate) or self._items.setdefault(rate, _item(rate))
        allowed = self._counters.hit(item, caller)
        stats = self._counters.get_window_stats(item, caller)
        wait_s = 0.0 if allowed else max(stats.reset_time - self._wall(), 0.001)
        return Verdict(allowed, stats.remaining, min(wait_s, float(rate.seconds)))


def shared_windows(uri: str, locally: Ask) -> SharedWindows:
    """Counts in the store at `uri`, such as `redis://host:6379/0`. It need not be up yet.

    Raises:
        StoreUnusable: it is no Redis, or its client is not installed.
    """
    from limits.errors import ConfigurationError  # only then: it takes 0.1 s
    from limits.storage import storage_from_string
    from limits.strategies import SlidingWindowCounterRateLimiter

    if not uri.startswith(("redis://", "rediss://")):
        raise StoreUnusable("expected a store of limits such as redis://host:6379/0")
    try:
        storage: Any = storage_from_string(uri, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
    except ConfigurationError:
        raise StoreUnusable("the client of Redis is not installed: pip install 'tandem-serving[redis]'") from None
    return SharedWindows(SlidingWindowCounterRateLimiter(storage), locally)


def _item(rate: Rate) -> Any:
    from limits import RateLimitItemPerSecond

    return RateLimitItemPerSecond(rate.requests, rate.seconds, "tandem")

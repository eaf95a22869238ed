"""How often a caller may ask: a sliding window, counted in memory that is bounded.

The count of the window under way, and that of the one before, weighed by how much of it still lies within reach, as
in the sliding window counter of the library `limits`, which counts in Redis where several processes or machines share
a limit (`store.py`). Its counters in memory are not used: they grow with every caller, follow the wall clock, and
start a thread that tidies up.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from service.core.callers import Rate

_UNITS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_RATE: Final = re.compile(r"([1-9][0-9]{0,8}) ?(?:/|per) ?(second|minute|hour|day)", re.ASCII)

# Callers that are counted one by one in a window. Those beyond share buckets, chosen by a hash that nobody outside
# can foresee: nothing grows, and no flood of new names makes an old one be forgotten.
MAX_CALLERS: Final = 50_000
_BUCKETS: Final = 1024


@dataclass(frozen=True, slots=True)
class Verdict:
    """`remaining` requests may follow at once; `wait_s` is 0 where this one may pass, else when the next one may."""

    allowed: bool
    remaining: int
    wait_s: float


def parse_rate(text: object) -> Rate:
    """`"100/minute"`. Raises ValueError."""
    match = _RATE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"expected a rate such as 100/minute or 5/second, got {str(text)[:40]!r}")
    return Rate(int(match[1]), _UNITS[match[2]])


def share_of(rate: Rate, processes: int) -> Rate:
    """What one of `processes` that count apart may let through: together no more than `rate`, but one each."""
    return Rate(max(1, rate.requests // processes), rate.seconds)


def rate_fields(rate: Rate, verdict: Verdict) -> dict[str, str]:
    """What a caller is told, in the fields of draft-ietf-httpapi-ratelimit-headers-10."""
    return {
        "ratelimit-policy": f'"default";q={rate.requests};w={rate.seconds}',
        "ratelimit": f'"default";r={verdict.remaining};t={math.ceil(verdict.wait_s) or rate.seconds}',
    }


def weigh(rate: Rate, before: int, current: int, elapsed: float) -> Verdict:
    """Whether one more may pass, `elapsed` (0 to 1) of a window into it: `current` passed in it, `before` in the last.

    What is refused counts for nothing, so that nobody is locked out for longer than a window.
    """
    weighed = before * (1 - elapsed) + current
    remaining = rate.requests - math.floor(weighed)
    if remaining >= 1:
        return Verdict(True, remaining - 1, 0.0)
    if current < rate.requests:  # later in this window, when less of the last one counts
        wait = 1 - (rate.requests - current) / before - elapsed
    else:  # in the next one
        wait = (1 - elapsed) + (1 - rate.requests / current)
    return Verdict(False, 0, max(wait * rate.seconds, 0.001))


class Windows:
    """Counts of callers for one rate. Safe to call from any thread."""

    def __init__(self, rate: Rate, max_callers: int = MAX_CALLERS) -> None:
        self.rate = rate
        self._max_callers = max_callers
        self._window = 0
        self._before: Mapping[str | int, int] = {}
        self._current: dict[str | int, int] = {}
        self.renew()

    def renew(self) -> None:
        """For a forked child: a thread of the parent's may hold the lock."""
        self._lock = threading.Lock()

    def ask(self, caller: str, now: float) -> Verdict:
        """Count `caller` where it may pass. `now` is seconds of a clock that should not step back, and may."""
        with self._lock:
            elapsed, slot = self._turn(now), self._slot(caller)
            current = self._current.get(slot, 0)
            verdict = weigh(self.rate, self._before.get(slot, 0), current, elapsed)
            if verdict.allowed:
                self._current[slot] = current + 1
            return verdict

    def __len__(self) -> int:
        return len(self._current) + len(self._before)

    def _turn(self, now: float) -> float:
        """Begin the window of `now` where it is another one; how much of it is over."""
        at, seconds = divmod(now, self.rate.seconds)
        window = int(at)
        if window > self._window:
            self._before = self._current if window == self._window + 1 else {}
            self._current = {}
        self._window = window  # an earlier one after a step back: what was counted is counted there
        return seconds / self.rate.seconds

    def _slot(self, caller: str) -> str | int:
        if caller in self._current or caller in self._before or len(self._current) < self._max_callers:
            return caller
        return hash(caller) % _BUCKETS

"""When to leave something alone that failed, and when to try it again."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    CLOSED = "closed"  # it is used
    OPEN = "open"  # it is left alone until a pause is over
    HALF_OPEN = "half-open"  # one probe is under way, and nothing else


MOVES: Final = {
    State.CLOSED: {State.OPEN},
    State.OPEN: {State.HALF_OPEN},
    State.HALF_OPEN: {State.CLOSED, State.OPEN},
}


class Breaker:
    """Opens after `failures` in a row, or at once when tripped; pauses double until a probe succeeds.

    Seconds are those of whatever clock the caller reads. It locks nothing: one owner calls it.

    A pause is forgotten only by a success that comes later than the pause was long, so that what answers its
    probe and fails at the next request is asked less and less often.
    """

    def __init__(self, failures: int = 3, first_pause_s: float = 0.5, longest_pause_s: float = 30.0) -> None:
        self.state = State.CLOSED
        self._limit = failures
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._failures = 0
        self._pause_s = 0.0
        self._since = 0.0

    def succeeded(self, now: float) -> None:
        """A request was answered, or a probe."""
        self._failures = 0
        if self.state is State.HALF_OPEN:
            self._move(State.CLOSED, now)
        elif self.state is State.CLOSED and now - self._since > self._pause_s:
            self._pause_s = 0.0

    def failed(self, now: float) -> None:
        """A request or a probe was not answered. Late news about an open breaker changes nothing."""
        self._failures += 1
        if self.state is State.HALF_OPEN or (self.state is State.CLOSED and self._failures >= self._limit):
            self._open(now)

    def tripped(self, now: float) -> None:
        """It is known to be gone: there is no use in counting."""
        if self.state is not State.OPEN:
            self._open(now)

    def may_probe(self, now: float) -> bool:
        """The pause is over. The caller that hears True probes, and says how it went."""
        if self.state is not State.OPEN or now - self._since < self._pause_s:
            return False
        self._move(State.HALF_OPEN, now)
        return True

    def pause_left_s(self, now: float) -> float:
        """Seconds until the next probe; 0 unless open."""
        return max(0.0, self._pause_s - (now - self._since)) if self.state is State.OPEN else 0.0

    def _open(self, now: float) -> None:
        self._failures = 0
        self._pause_s = min(max(2 * self._pause_s, self._first_pause_s), self._longest_pause_s)
        self._move(State.OPEN, now)

    def _move(self, state: State, now: float) -> None:
        assert state in MOVES[self.state]
        self.state = state
        self._since = now

"""Until when an answer is wanted."""

from __future__ import annotations

import math
import time
from typing import Final

from service.core.timing import Timing


class Deadline:
    """Over once `at` is past, in seconds of `time.monotonic`, or `cancel` was called. Any thread may ask.

    It goes wherever its request goes, so what that takes is noted in its `timing`, where somebody wants to know.
    """

    __slots__ = ("at", "is_cancelled", "seconds", "timing")

    def __init__(self, at: float, seconds: float) -> None:
        self.at = at
        self.seconds = seconds
        self.is_cancelled = False
        self.timing: Timing | None = None

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline `seconds` from now."""
        return cls(time.monotonic() + seconds, seconds)

    def is_over(self, now: float) -> bool:
        return self.is_cancelled or now >= self.at

    def bring_forward(self, seconds: float) -> None:
        """The caller wants the answer within `seconds` from now, if that is sooner."""
        if (at := time.monotonic() + seconds) < self.at:
            self.at, self.seconds = at, seconds

    def cancel(self) -> None:
        """Nobody waits any more: the caller hung up."""
        self.is_cancelled = True


class _Never(Deadline):
    """Shared by all who have none, so that nobody can change it for the others."""

    __slots__ = ()

    def bring_forward(self, seconds: float) -> None: ...

    def cancel(self) -> None: ...


NEVER: Final[Deadline] = _Never(math.inf, math.inf)

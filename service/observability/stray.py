"""What models print and warn of, as a few lines of the log a minute: a model that talks on every call fills no disk."""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, TextIO

_log = logging.getLogger("tandem.stray")

# Enough to see that a model talks, and what about.
LINES: Final = 10
WINDOW_S: Final = 60.0
LINE_CHARACTERS: Final = 300


class Limit:
    """Lets `lines` through in each `window_s` seconds. Safe to use from any thread."""

    def __init__(
        self, lines: int = LINES, window_s: float = WINDOW_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lines = lines
        self._window_s = window_s
        self._clock = clock
        self._lock = threading.Lock()
        self._begun_at = clock()
        self._passed = 0
        self._left_out = 0

    def admits(self) -> bool:
        """Whether one more may pass now."""
        with self._lock:
            now = self._clock()
            if now - self._begun_at >= self._window_s:
                self._begun_at, self._passed = now, 0
            if self._passed >= self._lines:
                self._left_out += 1
                return False
            self._passed += 1
            return True

    def take_left_out(self) -> int:
        """How many were held back since this was asked last."""
        with self._lock:
            left_out, self._left_out = self._left_out, 0
            return left_out


class Stray(io.TextIOBase):
    """Stands in for standard output or error: each line that is written becomes a line of the log, if it may.

    The descriptor is that of the stream it stands in for; what C code writes there goes past it.
    """

    def __init__(self, beneath: TextIO, limit: Limit) -> None:
        self._beneath = beneath
        self._limit = limit
        self._inside = threading.local()

    def write(self, text: str) -> int:
        # Logging itself writes here where it fails, and must not be asked to log that.
        if getattr(self._inside, "is_logging", False):
            return len(text)
        self._inside.is_logging = True
        try:
            for line in text.splitlines():
                if line.strip() and self._limit.admits():
                    self._say(line[:LINE_CHARACTERS])
        finally:
            self._inside.is_logging = False
        return len(text)

    def _say(self, line: str) -> None:
        left_out = self._limit.take_left_out()
        _log.warning("printed: %s%s", line, f" ({left_out} lines before it were left out)" if left_out else "")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._beneath.fileno()


def catch_strays() -> None:
    """From now on what is printed, and warnings, are lines of the log, a few a minute. For processes that serve."""
    limit = Limit()
    sys.stdout, sys.stderr = Stray(sys.stdout, limit), Stray(sys.stderr, limit)
    logging.getLogger("py.warnings").addFilter(lambda record: limit.admits())

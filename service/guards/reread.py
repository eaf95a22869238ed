"""A file of the operator's that is read again when it changes, so that nobody need restart the service."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from service.core.errors import TandemError

T = TypeVar("T")

# A key that was revoked is refused so many seconds later, at the latest.
LOOK_EVERY_S: Final = 1.0

_log = logging.getLogger(__name__)


class Reread(Generic[T]):
    """What `parse` makes of the file. Safe to call from any thread; only one of them looks.

    Args:
        parse: raises a TandemError where the content cannot be used.

    Raises:
        OSError, TandemError: at first. Later what was read last holds on, and the log says why.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], T], now: float) -> None:
        self._path = path
        self._parse = parse
        self.renew()
        self._seen = self._state()
        self._value = parse(path.read_bytes())
        self._next_look = now + LOOK_EVERY_S

    def renew(self) -> None:
        """For a forked child: a thread of the parent's may hold the lock."""
        self._looking = threading.Lock()

    def value(self, now: float) -> T:
        """As of `now`, seconds of a clock that never steps back, or of up to LOOK_EVERY_S before."""
        if now >= self._next_look and self._looking.acquire(blocking=False):
            try:
                self._next_look = now + LOOK_EVERY_S
                self._look()
            finally:
                self._looking.release()
        return self._value

    def _look(self) -> None:
        if (state := self._state()) == self._seen:
            return
        self._seen = state
        try:
            self._value = self._parse(self._path.read_bytes())
        except (OSError, TandemError) as error:
            _log.error("%s: %s; what was read before still holds", self._path.name, error)
        else:
            _log.info("%s was read again", self._path.name)

    def _state(self) -> tuple[int, ...] | None:
        """What changes with the file: a new one has another inode, one that was written another time or size."""
        try:
            about = self._path.stat()
        except OSError:
            return None
        return about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns

"""Looks at the repository again and again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Watcher:
    """Calls `poll` at once and then every `interval_s` seconds, on one thread of its own, until stopped."""

    def __init__(self, poll: Callable[[], None], interval_s: float) -> None:
        self._poll = poll
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stop = threading.Event()  # a new one: after a fork nobody wakes those who hold the old one's lock
        self._thread = threading.Thread(target=self._watch, args=(self._stop,), name="tandem-watcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when a poll under way is finished."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, stop: threading.Event) -> None:
        while True:
            try:
                self._poll()
            except Exception:  # a thread that ended would leave every later version unseen
                _log.exception("looking at the model repository failed; it will be tried again")
            if stop.wait(self._interval_s):
                return

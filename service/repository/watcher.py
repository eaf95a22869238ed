"""Looks at the repository again and again, and does between two looks what is asked of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar

from service.core.errors import Unavailable

T = TypeVar("T")

_log = logging.getLogger(__name__)

# What is asked for, and None for the end.
_Asked = SimpleQueue[Callable[[], None] | None]


class Watcher:
    """Calls `poll` at once and then every `interval_s` seconds, on one thread of its own, until stopped."""

    def __init__(self, poll: Callable[[], None], interval_s: float) -> None:
        self._poll = poll
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._asked: _Asked | None = None  # where nobody runs, nobody may ask
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        # New ones: after a fork nobody wakes those who hold the old ones' locks.
        self._lock, self._asked = threading.Lock(), SimpleQueue()
        self._thread = threading.Thread(target=self._watch, args=(self._asked,), name="tandem-watcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when a poll under way, and what was asked before, is finished."""
        with self._lock:
            if self._asked is not None:
                self._asked.put(None)
            self._asked = None
        if self._thread is not None:
            self._thread.join()

    def ask(self, work: Callable[[], T]) -> Future[T]:
        """A future of `work`, which is done on the thread that polls, as soon as no poll is under way.

        It fails with what `work` raises, or with Unavailable where nobody watches.
        """
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()

        def run() -> None:
            try:
                result = work()
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._asked is not None:
                self._asked.put(run)
            else:
                future.set_exception(Unavailable("models are not followed: the service is stopping"))
        return future

    def _watch(self, asked: _Asked) -> None:
        while True:
            try:
                self._poll()
            except Exception:  # a thread that ended would leave every later version unseen
                _log.exception("looking at the model repository failed; it will be tried again")
            until = time.monotonic() + self._interval_s
            try:
                while (work := asked.get(timeout=max(0.0, until - time.monotonic()))) is not None:
                    work()
            except Empty:
                continue
            return

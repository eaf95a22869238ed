"""The threads that compute, and how many computations there may be at once, theirs and others'."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any


class Permits:
    """The right to compute, `limit` times over. Safe to use from any thread.

    Whoever waits is served in order, and before anybody who only tries: short calls on the event loop, one
    after another, would otherwise keep a worker from ever beginning.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.open()

    def open(self) -> None:
        """All permits are free: at the start, and in a forked child, where the threads that held some are not."""
        self._lock = threading.Lock()
        self._free = self._limit
        self._waiting: deque[threading.Lock] = deque()
        self._is_closed = False

    def close(self) -> None:
        """From now on `try_take` gets none; who waits still does."""
        self._is_closed = True

    def try_take(self) -> bool:
        with self._lock:
            if self._free and not self._is_closed:
                self._free -= 1
                return True
        return False

    def take(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        gate.acquire()  # until `give` opens it

    def give(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()  # handed over: it was never free
            else:
                # A caller's own call can outlive a stop and a start, and then holds one that was made new.
                self._free = min(self._free + 1, self._limit)


class Workers(Executor):
    """A thread pool that can be started again, after a fork, and the permits of the process."""

    def __init__(self, threads: int, begin: Callable[[], None] | None = None) -> None:
        """`begin` is called once on each thread, before anything else is."""
        self.permits = Permits(threads)
        self.permits.close()
        self._threads = threads
        self._begin = begin
        self._pool: ThreadPoolExecutor | None = None

    def start(self) -> None:
        self.permits.open()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tandem-worker", initializer=self._begin)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Raises RuntimeError before `start` and after `stop`."""
        if self._pool is None:
            raise RuntimeError("the service is not started: call start() first")
        return self._pool.submit(fn, *args, **kwargs)

    def stop(self) -> None:
        """What was accepted is finished; nothing new begins, here or on a caller's thread."""
        self.permits.close()
        if self._pool is not None:
            self._pool.shutdown(wait=True)

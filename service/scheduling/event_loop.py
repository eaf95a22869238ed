"""The event loop of the service: that of the web server where it has one, else one on a thread of ours."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from service.core.loop import Turning

T = TypeVar("T")


class EventLoop:
    """Implements `core.loop.Loop`."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """For a forked child: the thread is the parent's."""
        self._lock = threading.Lock()
        self._adopted: asyncio.AbstractEventLoop | None = None
        self._turning: Turning | None = None
        self._turning_on = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on `loop` is the one; to be called before any work is given."""
        self._loop = self._adopted = loop

    def reads(self, turning: Turning) -> None:
        """From now on `turning`, which is no event loop, is what reads requests on the calling thread."""
        self._turning, self._turning_on = turning, threading.get_ident()

    def here(self) -> Turning | None:
        """The web server's loop, where it is what runs on this thread.

        Never ours: under gevent, whose threads are one, Python takes any loop that waits there for the one that runs.
        """
        if self._turning is not None:
            return self._turning if threading.get_ident() == self._turning_on else None
        return self._adopted if asyncio._get_running_loop() is self._adopted else None

    def run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin `work`. To cancel the future cancels it."""
        return asyncio.run_coroutine_threadsafe(work, self._running())

    def iterate(self, pieces: AsyncGenerator[T, None]) -> Iterator[T]:
        """What `pieces` yields, for a thread that waits. To close the iterator closes `pieces`."""

        async def following() -> tuple[T, ...]:
            async for piece in pieces:
                return (piece,)
            return ()

        try:
            while piece := self.run(following()).result():
                yield piece[0]
        finally:
            self.run(pieces.aclose()).result()

    def stop(self) -> None:
        """End the thread, if there is one. Work that is under way is cancelled."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run, args=(self._loop,), name="tandem-loop", daemon=True)
                self._thread.start()
            return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

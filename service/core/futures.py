"""What `concurrent.futures` lacks: a future that was never pending, and what to do with a result once it is there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar, cast

A = TypeVar("A")
B = TypeVar("B")

_log = logging.getLogger(__name__)

_FINISHED: Final[Future[None]] = Future()
_FINISHED.set_result(None)


class Done(Future[A]):
    """A future that was complete when it was made: to make and to ask it takes no lock.

    It is a `Future` to whoever waits for one, `asyncio.wrap_future` and `concurrent.futures.wait` among them,
    which find in it what they expect of a finished one.
    """

    # What all share: nobody ever waits for it.
    _condition = _FINISHED._condition
    _state = _FINISHED._state
    _waiters = _FINISHED._waiters
    _exception: BaseException | None

    def __init__(self, result: A | None = None, exception: BaseException | None = None) -> None:
        self._result = result
        self._exception = exception

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> A:
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                # The traceback holds this frame, and would hold the future that holds the exception.
                del self
        return cast(A, self._result)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return self._exception

    def add_done_callback(self, fn: Callable[[Future[A]], object]) -> None:
        try:
            fn(self)
        # As `concurrent.futures.Future` does: a callback's failure is its own, not that of whoever adds it.
        except Exception:
            _log.exception("a callback of a future failed")


def settle(future: Future[A], step: Callable[[Future[A]], B]) -> Future[B]:
    """A future of `step(future)`, computed on the thread that completes `future`, whether it failed or not.

    That is this one, and now, where it is complete already. The new future counts as running, so that a
    waiter who gives up cannot cancel it between the check and the setting of its result.
    """
    if future.done():
        try:
            return Done(step(future))
        except BaseException as error:  # whatever it is belongs to whoever waits
            return Done(exception=error)
    following: Future[B] = Future()
    following.set_running_or_notify_cancel()

    def follow(done: Future[A]) -> None:
        try:
            following.set_result(step(done))
        except BaseException as error:
            following.set_exception(error)

    future.add_done_callback(follow)
    return following


def then(future: Future[A], step: Callable[[A], B]) -> Future[B]:
    """A future of `step(result)`; a failure of `future` passes through."""
    return settle(future, lambda done: step(done.result()))

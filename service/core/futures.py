"""What `concurrent.futures` lacks: futures that take no lock, and what to do with a result once it is there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar, cast

A = TypeVar("A")
B = TypeVar("B")

_log = logging.getLogger(__name__)

_FINISHED: Final[Future[None]] = Future()
_FINISHED.set_running_or_notify_cancel()
RUNNING: Final = _FINISHED._state
_FINISHED.set_result(None)
FINISHED: Final = _FINISHED._state


class Soon(Future[A]):
    """A future that its maker completes before long, on whatever thread, and that nobody can cancel.

    To make, to ask and to complete it takes no lock, where a `Future` makes a condition and takes that four times. Its
    callbacks are what it is for; who waits for its result as a thread may, but not by `concurrent.futures.wait`, which
    would find in it what is of all that are finished.
    """

    # What all share: nobody ever waits for it.
    _condition = _FINISHED._condition
    _waiters = _FINISHED._waiters
    _state = RUNNING
    _result: A | None
    _exception: BaseException | None

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Future[A]], object]] = []

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def running(self) -> bool:
        return self._state is RUNNING

    def done(self) -> bool:
        return self._state is FINISHED

    def result(self, timeout: float | None = None) -> A:
        if self._state is RUNNING:
            self._wait(timeout)
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                # The traceback holds this frame, and would hold the future that holds the exception.
                del self
        return cast(A, self._result)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if self._state is RUNNING:
            self._wait(timeout)
        return self._exception

    def add_done_callback(self, fn: Callable[[Future[A]], object]) -> None:
        self._callbacks.append(fn)
        if self._state is FINISHED:
            self._call()

    def set_running_or_notify_cancel(self) -> bool:
        return True

    def set_result(self, result: A) -> None:
        self._finish(result, None)

    def set_exception(self, exception: BaseException | None) -> None:
        self._finish(None, exception)

    def _finish(self, result: A | None, exception: BaseException | None) -> None:
        self._result, self._exception = result, exception
        self._state = FINISHED
        self._call()

    def _call(self) -> None:
        """Whoever adds a callback sees the state, or whoever sets that sees the callback; no two take the same one."""
        while self._callbacks:
            try:
                fn = self._callbacks.pop(0)
            except IndexError:
                return
            self._call_one(fn)

    def _call_one(self, fn: Callable[[Future[A]], object]) -> None:
        try:
            fn(self)
        # As `concurrent.futures.Future` does: a callback's failure is its own, not that of whoever adds it.
        except Exception:
            _log.exception("a callback of a future failed")

    def _wait(self, timeout: float | None) -> None:
        done: Future[None] = Future()
        self.add_done_callback(lambda _: done.set_result(None))
        done.result(timeout)


class Done(Soon[A]):
    """A future that was complete when it was made, to whoever waits for one in whatever way."""

    _state = FINISHED

    def __init__(self, result: A | None = None, exception: BaseException | None = None) -> None:
        self._result = result
        self._exception = exception

    def add_done_callback(self, fn: Callable[[Future[A]], object]) -> None:
        self._call_one(fn)


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
    following: Future[B] = Soon() if isinstance(future, Soon) else Future()
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

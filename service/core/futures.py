"""The one thing `concurrent.futures` lacks: what to do with a result once it is there."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def settle(future: Future[A], step: Callable[[Future[A]], B]) -> Future[B]:
    """A future of `step(future)`, computed on the thread that completes `future`, whether it failed or not.

    The new future counts as running, so that a waiter who gives up cannot cancel it
    between the check and the setting of its result.
    """
    following: Future[B] = Future()
    following.set_running_or_notify_cancel()

    def follow(done: Future[A]) -> None:
        try:
            following.set_result(step(done))
        except BaseException as error:  # whatever it is belongs to whoever waits
            following.set_exception(error)

    future.add_done_callback(follow)
    return following


def then(future: Future[A], step: Callable[[A], B]) -> Future[B]:
    """A future of `step(result)`; a failure of `future` passes through."""
    return settle(future, lambda done: step(done.result()))

from __future__ import annotations

from concurrent.futures import CancelledError, Future

import pytest

from service.core.futures import settle, then


def test_step_is_computed_when_the_result_arrives() -> None:
    future: Future[int] = Future()
    following = then(future, lambda value: value + 1)
    assert not following.done()

    future.set_result(41)

    assert following.result(timeout=0) == 42


def test_failure_passes_through_and_the_step_is_not_taken() -> None:
    future: Future[int] = Future()
    taken: list[int] = []
    following = then(future, taken.append)
    error = ValueError("no")

    future.set_exception(error)

    assert following.exception(timeout=0) is error
    assert taken == []


def test_failure_of_the_step_is_the_failure_of_the_new_future() -> None:
    future: Future[int] = Future()
    following = then(future, lambda value: 1 // value)

    future.set_result(0)

    assert isinstance(following.exception(timeout=0), ZeroDivisionError)


def test_settle_takes_its_step_after_a_failure_too() -> None:
    future: Future[int] = Future()
    following = settle(future, lambda done: repr(done.exception()))

    future.set_exception(ValueError("no"))

    assert following.result(timeout=0) == "ValueError('no')"


def test_waiter_who_gives_up_cannot_cancel_what_others_set() -> None:
    future: Future[int] = Future()
    following = then(future, lambda value: value)

    assert not following.cancel()
    future.set_result(1)
    assert following.result(timeout=0) == 1


def test_cancelled_future_fails_the_one_that_follows() -> None:
    future: Future[int] = Future()
    following = then(future, lambda value: value)

    future.cancel()

    with pytest.raises(CancelledError):
        following.result(timeout=0)
    assert not following.cancelled()

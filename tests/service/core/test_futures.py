from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ALL_COMPLETED, CancelledError, Future, as_completed, wait

import pytest

from service.core.futures import Done, settle, then


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


def test_step_on_a_future_that_is_done_is_taken_at_once() -> None:
    future: Future[int] = Future()
    future.set_result(41)

    following = then(future, lambda value: value + 1)

    assert isinstance(following, Done)
    assert following.result() == 42


@pytest.mark.parametrize("future", [Done(exception=ValueError("no")), Done(0)])
def test_failure_on_a_future_that_is_done_is_in_the_new_one(future: Done[int]) -> None:
    following = then(future, lambda value: 1 // value)

    assert isinstance(following.exception(), ValueError | ZeroDivisionError)


def test_done_future_answers_as_a_completed_one() -> None:
    done, completed = Done(42), Future[int]()
    completed.set_result(42)

    for ask in (
        lambda future: future.result(timeout=0),
        lambda future: future.exception(timeout=0),
        lambda future: (future.done(), future.running(), future.cancelled(), future.cancel()),
    ):
        assert ask(done) == ask(completed)


def test_done_future_raises_what_it_failed_with() -> None:
    error = ValueError("no")

    future = Done[int](exception=error)

    assert future.exception() is error
    with pytest.raises(ValueError, match="no"):
        future.result()


def test_done_future_can_be_waited_for() -> None:
    futures: list[Future[int]] = [Done(1), Done(exception=ValueError())]

    assert wait(futures, timeout=0, return_when=ALL_COMPLETED).done == set(futures)
    assert set(as_completed(futures, timeout=0)) == set(futures)


def test_done_future_can_be_awaited() -> None:
    async def ask() -> int:
        return await asyncio.wrap_future(Done(42))

    assert asyncio.run(ask()) == 42


def test_callback_of_a_done_future_is_called_at_once_and_its_failure_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    future, seen = Done(42), list[Future[int]]()

    future.add_done_callback(seen.append)
    with caplog.at_level(logging.ERROR):
        future.add_done_callback(lambda done: 1 // 0)

    assert seen == [future]
    assert "ZeroDivisionError" in caplog.text

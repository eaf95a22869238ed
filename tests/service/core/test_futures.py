from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ALL_COMPLETED, CancelledError, Future, ThreadPoolExecutor, as_completed, wait

import pytest

from service.core.futures import Done, Soon, settle, then


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


def test_future_that_is_soon_there_answers_as_any_other() -> None:
    future = Soon[int]()
    assert (future.done(), future.running(), future.cancelled(), future.cancel()) == (False, True, False, False)

    future.set_result(42)

    assert (future.done(), future.running(), future.cancelled(), future.cancel()) == (True, False, False, False)
    assert future.result(timeout=0) == 42
    assert future.exception(timeout=0) is None


def test_future_that_is_soon_there_raises_what_it_failed_with() -> None:
    future, error = Soon[int](), ValueError("no")

    future.set_exception(error)

    assert future.exception() is error
    with pytest.raises(ValueError, match="no"):
        future.result()


def test_callbacks_are_called_in_order_and_once_whenever_they_come(caplog: pytest.LogCaptureFixture) -> None:
    future, seen = Soon[int](), list[str]()
    future.add_done_callback(lambda done: seen.append(f"first {done.result()}"))
    future.add_done_callback(lambda done: 1 // 0)
    future.add_done_callback(lambda done: seen.append("third"))
    assert seen == []

    future.set_result(1)
    future.add_done_callback(lambda done: seen.append("late"))

    assert seen == ["first 1", "third", "late"]
    assert "ZeroDivisionError" in caplog.text


def test_threads_may_wait_for_one() -> None:
    future = Soon[int]()
    with pytest.raises(TimeoutError):
        future.result(timeout=0.001)
    with pytest.raises(TimeoutError):
        future.exception(timeout=0.001)

    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(future.result, 30), threads.submit(future.exception, 30)]
        future.set_result(42)

        assert [waiter.result() for waiter in waiting] == [42, None]


def test_no_callback_is_lost_between_threads() -> None:
    count = 2000
    futures = [Soon[int]() for _ in range(count)]
    seen = list[int]()

    def complete() -> None:
        for index, future in enumerate(futures):
            future.set_result(index)

    with ThreadPoolExecutor(1) as threads:
        completing = threads.submit(complete)
        for future in futures:
            future.add_done_callback(lambda done: seen.append(done.result()))
        completing.result()

    assert sorted(seen) == list(range(count))


def test_one_can_be_awaited_while_it_is_not_there() -> None:
    async def ask() -> int:
        future = Soon[int]()
        asyncio.get_running_loop().call_soon(future.set_result, 42)
        return await asyncio.wrap_future(future)

    assert asyncio.run(ask()) == 42


def test_what_follows_it_is_one_too() -> None:
    future = Soon[int]()
    following = then(future, lambda value: value + 1)
    assert isinstance(following, Soon)
    assert not following.done()

    future.set_result(41)

    assert following.result() == 42

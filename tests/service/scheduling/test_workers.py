from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.scheduling.workers import Permits, Workers

_PATIENCE_S = 30.0


def test_no_more_permits_than_there_are() -> None:
    permits = Permits(2)

    assert [permits.try_take() for _ in range(3)] == [True, True, False]


def test_permit_that_is_given_back_can_be_taken_again() -> None:
    permits = Permits(1)
    permits.take()

    permits.give()

    assert permits.try_take()


def test_who_waits_comes_before_who_only_tries() -> None:
    permits = Permits(1)
    permits.take()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(permits.take)
        while not permits._waiting:
            threading.Event().wait(0)

        permits.give()

        assert not permits.try_take()
        waiting.result(_PATIENCE_S)


def test_who_waits_is_served_in_order() -> None:
    permits = Permits(1)
    permits.take()
    served: list[int] = []

    def take(number: int) -> None:
        permits.take()
        served.append(number)
        permits.give()

    threads = [threading.Thread(target=take, args=(number,)) for number in range(5)]
    for number, thread in enumerate(threads):
        thread.start()
        while len(permits._waiting) <= number:
            threading.Event().wait(0)

    permits.give()
    for thread in threads:
        thread.join(_PATIENCE_S)

    assert served == [0, 1, 2, 3, 4]
    assert permits.try_take()


def test_closed_permits_are_still_given_to_who_waits() -> None:
    permits = Permits(1)

    permits.close()

    assert not permits.try_take()
    permits.take()


def test_permits_never_become_more() -> None:
    permits = Permits(1)
    permits.take()
    permits.open()  # a stop and a start, while a call goes on

    permits.give()

    assert [permits.try_take(), permits.try_take()] == [True, False]


def test_workers_that_were_not_started_say_so() -> None:
    workers = Workers(1)

    with pytest.raises(RuntimeError, match="call start"):
        workers.submit(print)
    assert not workers.permits.try_take()


def test_workers_run_what_they_are_given() -> None:
    workers = Workers(2)
    workers.start()

    names = {workers.submit(lambda: threading.current_thread().name).result(_PATIENCE_S)}
    workers.stop()

    assert all(name.startswith("tandem-worker") for name in names)


def test_stopped_workers_finish_and_take_nothing_new() -> None:
    workers = Workers(1)
    workers.start()
    answers = [workers.submit(pow, 2, number) for number in range(20)]

    workers.stop()

    assert [answer.result(0) for answer in answers] == [2**number for number in range(20)]
    assert not workers.permits.try_take()
    with pytest.raises(RuntimeError):
        workers.submit(print)


def test_workers_can_be_started_again() -> None:
    workers = Workers(1)
    workers.start()
    workers.permits.take()  # by a thread that a forked child does not have
    workers.stop()

    workers.start()

    assert workers.permits.try_take()
    assert workers.submit(os.getpid).result(_PATIENCE_S) == os.getpid()
    workers.stop()


def test_stop_before_start_does_nothing() -> None:
    Workers(1).stop()

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.core.errors import Overloaded
from service.scheduling.admission import LONGEST_RETRY_S, Admission


@pytest.mark.parametrize(
    ("rows", "size"),
    [pytest.param(11, 1, id="rows"), pytest.param(1, 101, id="bytes")],
)
def test_more_than_may_wait_is_turned_away(rows: int, size: int) -> None:
    admission = Admission(20, 200)
    admission.enter(10, 100, 0.0)

    with pytest.raises(Overloaded, match=r"10 rows \(100 bytes\) wait already, and 20 \(200\) may"):
        admission.enter(rows, size, 0.0)

    assert (admission.rows, admission.bytes) == (10, 100)


def test_queue_can_be_filled_to_the_brim() -> None:
    admission = Admission(20, 200)
    admission.enter(10, 100, 0.0)

    admission.enter(10, 100, 0.0)

    assert (admission.rows, admission.bytes) == (20, 200)


def test_what_leaves_makes_room() -> None:
    admission = Admission(20, 200)
    admission.enter(15, 100, 0.0)
    admission.enter(5, 100, 0.0)

    admission.leave(20, 200, 0.0, requests=2)

    admission.enter(20, 200, 0.0)


def test_request_larger_than_the_queue_is_admitted_where_nothing_waits() -> None:
    admission = Admission(20, 200)

    admission.enter(1000, 10_000, 0.0)

    with pytest.raises(Overloaded):
        admission.enter(1, 1, 0.0)


@pytest.mark.parametrize(
    ("seconds", "threads", "retry_after_s"),
    [
        pytest.param(0.0, 1, 1, id="at least a second"),
        pytest.param(4.2, 1, 5, id="what waits"),
        pytest.param(4.2, 4, 2, id="shared by the threads"),
        pytest.param(1e9, 1, LONGEST_RETRY_S, id="not for ever"),
    ],
)
def test_caller_is_told_to_come_back_when_the_work_is_done(seconds: float, threads: int, retry_after_s: int) -> None:
    admission = Admission(1, 100, threads)
    admission.enter(1, 1, seconds)

    with pytest.raises(Overloaded) as refusal:
        admission.enter(1, 1, 0.0)

    assert refusal.value.retry_after_s == retry_after_s


def test_work_that_is_done_is_not_waited_for() -> None:
    admission = Admission(1, 100)
    admission.enter(1, 1, 30.0)
    admission.leave(1, 1, 30.0)
    admission.enter(1, 1, 2.0)

    with pytest.raises(Overloaded) as refusal:
        admission.enter(1, 1, 0.0)

    assert refusal.value.retry_after_s == 2


def test_threads_leave_nothing_behind() -> None:
    admission = Admission(10**6, 10**9)
    together = threading.Barrier(4)

    def come_and_go(_: int) -> None:
        together.wait()
        for _ in range(2000):
            admission.enter(3, 24, 0.1)
            admission.leave(3, 24, 0.1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(4)))

    assert (admission.rows, admission.bytes) == (0, 0)


def test_forked_child_begins_with_an_empty_queue() -> None:
    admission = Admission(1, 100)
    admission.enter(1, 100, 1.0)
    admission._lock.acquire()  # by a thread that the child does not have

    admission.reset()

    admission.enter(1, 100, 1.0)


@pytest.mark.parametrize(
    ("waits_s", "own_s", "threads", "admits"),
    [
        pytest.param(0.5, 0.001, 1, True, id="at the limit"),
        pytest.param(0.6, 0.001, 1, False, id="above it"),
        pytest.param(0.6, 0.001, 2, True, id="shared by two threads"),
        pytest.param(16.0, 1.0, 1, True, id="no more than FAIR times its own"),
        pytest.param(17.0, 1.0, 1, False, id="more than FAIR times its own"),
        pytest.param(17.0, 0.0, 1, False, id="nobody knows its own"),
    ],
)
def test_whoever_would_wait_too_long_is_turned_away(waits_s: float, own_s: float, threads: int, admits: bool) -> None:
    admission = Admission(1000, 1000, threads, max_s=0.5)
    admission.enter(1, 1, waits_s)

    if admits:
        admission.enter(1, 1, own_s)
    else:
        with pytest.raises(Overloaded, match=r"seconds of work wait already, and .* may") as caught:
            admission.enter(1, 1, own_s)
        assert caught.value.retry_after_s == math.ceil(waits_s / threads)


def test_first_is_admitted_however_long_it_takes() -> None:
    admission = Admission(1000, 1000, max_s=0.5)

    admission.enter(1, 1, 100.0)

    assert admission.rows == 1


def test_host_that_is_slower_than_was_measured_admits_less() -> None:
    admission = Admission(1000, 1000, max_s=0.5)
    admission.enter(1, 1, 0.3)
    admission.enter(1, 1, 0.0)

    for _ in range(50):
        admission.learn(0.01, 0.02)

    with pytest.raises(Overloaded, match=r"^0\.6 seconds"):
        admission.enter(1, 1, 0.0)


def test_host_that_is_faster_again_is_learnt_too() -> None:
    admission = Admission(1000, 1000, max_s=0.5)
    admission.enter(1, 1, 0.3)
    for took_s in [1.0] * 50 + [0.001] * 50:
        admission.learn(0.01, took_s)

    admission.enter(1, 1, 0.0)

    assert admission.rows == 2


def test_host_that_was_busy_when_calls_were_measured_admits_more() -> None:
    admission = Admission(1000, 1000, max_s=0.5)
    admission.enter(1, 1, 6.0)
    with pytest.raises(Overloaded):
        admission.enter(1, 1, 0.0)

    for _ in range(50):
        admission.learn(1.0, 0.05)

    admission.enter(1, 1, 0.0)
    assert admission.rows == 2


def test_call_that_nobody_predicted_teaches_nothing() -> None:
    admission = Admission(1000, 1000, max_s=0.5)
    admission.enter(1, 1, 0.3)

    admission.learn(math.inf, 1.0)
    admission.learn(0.0, 1.0)
    admission.enter(1, 1, 0.0)

    assert admission.rows == 2


@pytest.mark.parametrize(
    ("rows", "size", "seconds", "why"),
    [
        pytest.param(20, 1, 0.0, "20 rows", id="rows"),
        pytest.param(1, 200, 0.0, r"\(200 bytes\)", id="bytes"),
        pytest.param(1, 1, 3.0, "3 seconds of work wait already, and 2 may", id="seconds"),
    ],
)
def test_full_queue_has_no_room_for_what_nobody_has_read_yet(rows: int, size: int, seconds: float, why: str) -> None:
    admission = Admission(20, 200, max_s=2.0)
    admission.require_room()
    admission.enter(rows, size, seconds)

    with pytest.raises(Overloaded, match=why) as refusal:
        admission.require_room()

    assert refusal.value.retry_after_s == max(1, math.ceil(seconds))


def test_long_requests_that_wait_keep_the_door_open_for_their_like() -> None:
    admission = Admission(20, 200, max_s=2.0)
    admission.enter(1, 1, 1.0)
    admission.enter(1, 1, 3.0)  # and may wait 16 times as long

    admission.require_room()
    admission.enter(1, 1, 3.0)

    with pytest.raises(Overloaded):
        admission.enter(1, 1, 0.1)


def test_once_nobody_waits_the_door_is_as_it_was() -> None:
    admission = Admission(20, 200, max_s=2.0)
    admission.enter(1, 1, 1.0)
    admission.enter(1, 1, 3.0)
    admission.leave(2, 2, 4.0, requests=2)
    admission.enter(1, 1, 3.0)

    with pytest.raises(Overloaded):
        admission.require_room()

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from service.entrypoints.seats import Seats


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def held(seats: Seats, clock: Clock, seconds: float) -> None:
    """Many requests that each held a seat for so long."""
    for _ in range(100):
        taken_at = seats.take()
        assert taken_at is not None
        clock.now += seconds
        seats.give(taken_at)


def later(do: Callable[[], None], seconds: float) -> threading.Timer:
    timer = threading.Timer(seconds, do)
    timer.start()
    return timer


def test_seats_are_taken_until_none_is_left() -> None:
    seats = Seats(2)

    assert [seats.take() is None for _ in range(3)] == [False, False, True]


def test_seat_that_is_given_back_is_taken_again() -> None:
    seats = Seats(1)
    taken_at = seats.take()
    assert taken_at is not None

    seats.give(taken_at)

    assert seats.take() is not None


def test_without_a_number_there_are_enough() -> None:
    seats = Seats(None)

    for _ in range(1000):
        taken_at = seats.take()
        assert taken_at is not None
    seats.give(taken_at)


def test_who_comes_while_all_are_taken_gets_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.entrypoints.seats.WAIT_S", 10.0)
    seats = Seats(1)
    taken_at = seats.take()
    assert taken_at is not None
    timer = later(lambda: seats.give(taken_at), 0.05)

    assert seats.take() is not None
    timer.join()


def test_nobody_waits_for_a_seat_that_is_held_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    seats = Seats(1, clock)
    held(seats, clock, 100.0)
    taken_at = seats.take()
    assert taken_at is not None
    monkeypatch.setattr("service.entrypoints.seats.WAIT_S", 10.0)
    timer = later(lambda: seats.give(taken_at), 0.2)  # who waited would get it

    assert seats.take() is None
    timer.join()


def test_seats_of_short_requests_are_waited_for_after_long_ones_have_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    seats = Seats(1, clock)
    held(seats, clock, 1.0)
    held(seats, clock, 0.0001)
    taken_at = seats.take()
    assert taken_at is not None
    monkeypatch.setattr("service.entrypoints.seats.WAIT_S", 10.0)
    timer = later(lambda: seats.give(taken_at), 0.05)

    assert seats.take() is not None
    timer.join()

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scheduling.cost import REPEATS, CostCurve, measure, own_time


class Clock:
    """Goes on only when `work` says so, or others have the core, or something is waited for."""

    def __init__(self) -> None:
        self.now = 100.0
        self.spent = 0.0
        self.waits = 0

    def __call__(self) -> float:
        return self.now

    def own(self) -> tuple[float, int]:
        return self.spent, self.waits

    def work(self, seconds: float) -> None:
        self.now += seconds
        self.spent += seconds

    def others(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.waits += 1


_CURVE = CostCurve(((1, 1.0), (8, 2.4), (64, 8.0)))


@pytest.mark.parametrize(
    ("rows", "seconds"),
    [
        pytest.param(1, 1.0, id="a point"),
        pytest.param(8, 2.4, id="another"),
        pytest.param(64, 8.0, id="the last"),
        pytest.param(2, 1.2, id="between two"),
        pytest.param(36, 5.2, id="between two others"),
        pytest.param(640, 80.0, id="beyond the last"),
        pytest.param(0, 1.0, id="less than the first"),
    ],
)
def test_seconds_are_read_off_between_the_points(rows: int, seconds: float) -> None:
    assert _CURVE.seconds(rows) == pytest.approx(seconds)


def test_fewer_rows_than_were_measured_never_cost_less() -> None:
    curve = CostCurve(((8, 2.0), (64, 3.0)))

    assert curve.seconds(1) == 2.0


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_more_rows_never_cost_less_where_the_points_say_so(some: int, others: int) -> None:
    low, high = sorted((some, others))

    assert _CURVE.seconds(low) <= _CURVE.seconds(high)


@pytest.mark.parametrize("points", [(), ((8, 1.0), (1, 1.0)), ((1, 1.0), (1, 2.0)), ((0, 1.0),)])
def test_curve_without_an_order_is_refused(points: tuple[tuple[int, float], ...]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        CostCurve(points)


def test_measurement_finds_what_each_size_costs() -> None:
    clock = Clock()

    curve = measure(lambda rows: clock.work(1e-5 + 1e-6 * rows), clock=clock, own=clock.own, budget_s=1.0)

    assert [rows for rows, _ in curve.points] == [1, 8, 64, 512, 4096]
    assert [seconds for _, seconds in curve.points] == pytest.approx([1.1e-5, 1.8e-5, 7.4e-5, 5.22e-4, 4.106e-3])


def test_first_call_of_a_size_does_not_count() -> None:
    clock = Clock()
    seen: set[int] = set()

    def run(rows: int) -> None:
        clock.work(0.001 if rows in seen else 0.05)
        seen.add(rows)

    curve = measure(run, sizes=(1, 8), clock=clock, own=clock.own, budget_s=1.0)

    assert [seconds for _, seconds in curve.points] == pytest.approx([0.001, 0.001])


def test_interruption_of_a_call_does_not_count() -> None:
    clock = Clock()
    calls: list[int] = []

    def run(rows: int) -> None:
        calls.append(rows)
        clock.work(0.5 if len(calls) in (2, 4) else 0.001)

    curve = measure(run, sizes=(1,), clock=clock, own=clock.own, budget_s=10.0)

    assert curve.seconds(1) == pytest.approx(0.001)
    assert len(calls) == 1 + REPEATS


def test_a_size_that_takes_too_long_for_its_rows_is_timed_again() -> None:
    clock = Clock()
    calls: list[int] = []

    def run(rows: int) -> None:
        calls.append(rows)
        is_interrupted = rows == 64 and calls.count(64) <= 4  # each longer than this size's share of the budget
        clock.work(0.06 if is_interrupted else 1e-5 * rows)

    curve = measure(run, sizes=(1, 8, 64), clock=clock, own=clock.own, budget_s=0.3)

    assert curve.seconds(64) == pytest.approx(6.4e-4)
    assert calls.count(8) == 1 + REPEATS


def test_sizes_beyond_the_budget_are_left_out() -> None:
    clock = Clock()
    begun = clock.now

    curve = measure(lambda rows: clock.work(0.01 * rows), clock=clock, own=clock.own, budget_s=0.5)

    assert [rows for rows, _ in curve.points] == [1, 8]
    assert clock.now - begun <= 0.5
    assert curve.seconds(512) == pytest.approx(5.12)


def test_smallest_size_is_measured_whatever_it_takes_and_then_once() -> None:
    clock = Clock()
    calls: list[int] = []

    def run(rows: int) -> None:
        calls.append(rows)
        clock.work(3.0)

    curve = measure(run, clock=clock, own=clock.own, budget_s=0.5)

    assert curve.points == ((1, pytest.approx(3.0)),)
    assert calls == [1]


def test_what_a_call_raises_is_raised() -> None:
    def run(rows: int) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        measure(run)


def test_what_others_have_of_the_core_does_not_count() -> None:
    clock = Clock()

    def run(rows: int) -> None:
        clock.work(0.001 * rows)
        clock.others(0.02)  # at every call

    curve = measure(run, sizes=(1, 8), clock=clock, own=clock.own, budget_s=1.0)

    assert [seconds for _, seconds in curve.points] == pytest.approx([0.001, 0.008])


def test_fewer_rows_do_not_take_longer_than_more() -> None:
    clock = Clock()

    def run(rows: int) -> None:
        clock.work(0.03 if rows == 1 else 0.0001 * rows)  # interrupted at each call

    curve = measure(run, sizes=(1, 8, 64), clock=clock, own=clock.own, budget_s=1.0)

    assert curve.points == ((1, pytest.approx(0.0008)), (8, pytest.approx(0.0008)), (64, pytest.approx(0.0064)))


def test_what_a_call_waits_for_does() -> None:
    clock = Clock()

    def run(rows: int) -> None:
        clock.work(0.001)
        clock.wait(0.02)  # for the process of a GPU

    assert measure(run, sizes=(1,), clock=clock, own=clock.own, budget_s=1.0).seconds(1) == pytest.approx(0.021)


def test_a_thread_that_computes_waits_for_nothing_and_one_that_sleeps_does() -> None:
    own_time()
    for _ in range(20):
        spent, waits = own_time()
        sum(range(10_000))
        spent_then, waits_then = own_time()
        if waits_then == waits:
            break
    else:
        assert sys.platform != "linux"
    assert spent_then > spent or sys.platform != "linux"

    time.sleep(0.001)
    assert own_time()[1] > waits_then

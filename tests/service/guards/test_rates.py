from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.callers import Rate
from service.guards.rates import Verdict, Windows, parse_rate, rate_fields, share_of
from tests.faults.cases import fault

TEN: Final = Rate(10, 60)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100/minute", Rate(100, 60)), ("5 per second", Rate(5, 1)), ("1/day", Rate(1, 86400))],
)
def test_rate_is_read(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "0/minute", "-1/minute", "1/fortnight", "1e3/minute", "١/minute", None, 5])
def test_what_is_no_rate_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a rate such as 100/minute"):
        parse_rate(text)


def test_as_many_pass_as_the_rate_says_and_no_more() -> None:
    windows = Windows(TEN)

    verdicts = [windows.ask("shop", 30.0) for _ in range(12)]

    assert [verdict.allowed for verdict in verdicts] == [True] * 10 + [False] * 2
    assert [verdict.remaining for verdict in verdicts] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0]


def test_callers_are_counted_apart() -> None:
    windows = Windows(TEN)
    for _ in range(11):
        windows.ask("shop", 30.0)

    assert windows.ask("bank", 30.0).allowed


def test_after_two_windows_nothing_is_left_of_what_was_asked() -> None:
    windows = Windows(TEN)
    for _ in range(10):
        windows.ask("shop", 30.0)

    assert windows.ask("shop", 150.0).remaining == 9


@given(asked=st.lists(st.floats(0, 30), max_size=80))
def test_no_window_lets_more_through_than_twice_the_rate_and_whoever_waits_as_told_passes(asked: list[float]) -> None:
    windows, now, passed = Windows(TEN), 0.0, list[float]()

    for pause in asked:
        now += pause
        verdict = windows.ask("shop", now)
        if verdict.allowed:
            passed.append(now)
        else:
            assert 0 < verdict.wait_s <= 60
            now += verdict.wait_s + 0.01
            assert windows.ask("shop", now).allowed
            passed.append(now)

    for start in passed:
        # The window before counts as if its requests had been spread evenly over it, which is the method's error.
        assert sum(start <= at < start + 60 for at in passed) < 2 * TEN.requests


@fault(
    "A17", sent="the clock steps back and forward by an hour", expected="no wait longer than a window, none negative"
)
@pytest.mark.parametrize("step", [-3600.0, -59.0, 59.0, 3600.0, 1e9])
def test_clock_that_jumps_locks_nobody_out(step: float) -> None:
    windows = Windows(TEN)
    for _ in range(15):
        windows.ask("shop", 10_000.0)

    verdicts = [windows.ask("shop", 10_000.0 + step) for _ in range(15)]

    assert all(0 <= verdict.wait_s <= 60 for verdict in verdicts)
    assert windows.ask("shop", 10_000.0 + step + verdicts[-1].wait_s + 0.01).allowed


@fault("A15", sent="a flood of distinct callers", expected="memory bounded, an active offender stays refused")
def test_flood_of_names_neither_grows_nor_makes_an_offender_forgotten() -> None:
    windows = Windows(TEN, max_callers=100)
    for _ in range(10):
        windows.ask("offender", 1.0)

    for number in range(20_000):
        windows.ask(f"caller {number}", 2.0 + number / 1000)

    assert len(windows) <= 2 * (100 + 1024)
    assert not windows.ask("offender", 22.5).allowed


def test_share_of_a_rate_is_at_least_one_request() -> None:
    assert share_of(Rate(100, 60), 8) == Rate(12, 60)
    assert share_of(Rate(2, 60), 8) == Rate(1, 60)


@pytest.mark.parametrize(
    ("verdict", "left"),
    [
        pytest.param(Verdict(True, 9, 0.0), '"default";r=9;t=60', id="passed"),
        pytest.param(Verdict(False, 0, 12.2), '"default";r=0;t=13', id="refused"),
    ],
)
def test_fields_tell_the_policy_and_what_is_left_of_it(verdict: Verdict, left: str) -> None:
    assert rate_fields(TEN, verdict) == {"ratelimit-policy": '"default";q=10;w=60', "ratelimit": left}

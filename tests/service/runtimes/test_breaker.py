from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.runtimes.breaker import MOVES, Breaker, State


def _opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(failures=1, first_pause_s=1.0, longest_pause_s=8.0)
    breaker.failed(now)
    return breaker


@pytest.mark.parametrize(("failures", "state"), [(2, State.CLOSED), (3, State.OPEN)])
def test_breaker_opens_after_failures_in_a_row(failures: int, state: State) -> None:
    breaker = Breaker(failures=3)

    for now in range(failures):
        breaker.failed(now)

    assert breaker.state is state


def test_success_between_failures_starts_the_count_again() -> None:
    breaker = Breaker(failures=2)

    breaker.failed(0)
    breaker.succeeded(1)
    breaker.failed(2)

    assert breaker.state is State.CLOSED


def test_what_is_known_to_be_gone_is_not_counted() -> None:
    breaker = Breaker(failures=100)

    breaker.tripped(0)

    assert breaker.state is State.OPEN


@pytest.mark.parametrize(("now", "may"), [(0.99, False), (1.0, True)])
def test_probe_waits_for_the_pause(now: float, may: bool) -> None:
    assert _opened().may_probe(now) is may


def test_one_probe_at_a_time() -> None:
    breaker = _opened()

    asked = [breaker.may_probe(2), breaker.may_probe(2)]

    assert asked == [True, False]


def test_probe_that_succeeds_closes_it() -> None:
    breaker = _opened()
    breaker.may_probe(1)

    breaker.succeeded(1.5)

    assert breaker.state is State.CLOSED


def test_pause_doubles_up_to_the_longest() -> None:
    breaker, now, pauses = _opened(), 0.0, []

    for _ in range(5):
        pauses.append(breaker.pause_left_s(now))
        now += pauses[-1]
        breaker.may_probe(now)
        breaker.failed(now)

    assert pauses == [1, 2, 4, 8, 8]


def test_success_right_after_the_probe_does_not_shorten_the_next_pause() -> None:
    breaker = _opened()
    breaker.may_probe(1)
    breaker.succeeded(1)
    breaker.succeeded(1.5)

    breaker.failed(1.6)

    assert breaker.pause_left_s(1.6) == 2


def test_success_that_lasts_forgets_the_pause() -> None:
    breaker = _opened()
    breaker.may_probe(1)
    breaker.succeeded(1)
    breaker.succeeded(2.5)

    breaker.failed(3)

    assert breaker.pause_left_s(3) == 1


def test_late_news_do_not_move_an_open_breaker() -> None:
    breaker = _opened()

    breaker.failed(0.5)
    breaker.succeeded(0.6)
    breaker.tripped(0.7)

    assert breaker.state is State.OPEN
    assert breaker.pause_left_s(0.75) == 0.25


@given(events=st.lists(st.tuples(st.sampled_from(["succeeded", "failed", "tripped", "may_probe"]), st.floats(0, 50))))
def test_no_sequence_of_events_leaves_it_open_for_ever(events: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(), 0.0

    for name, seconds in events:
        now += seconds
        before = breaker.state
        getattr(breaker, name)(now)
        assert breaker.state is before or breaker.state in MOVES[before]

    assert breaker.state is not State.OPEN or breaker.may_probe(now + 30.1)

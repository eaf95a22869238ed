from __future__ import annotations

import time

import pytest

from service.core.deadline import NEVER, Deadline


@pytest.mark.parametrize(
    ("now", "over"),
    [
        pytest.param(9.9, False, id="before"),
        pytest.param(10.0, True, id="at"),
        pytest.param(10.1, True, id="after"),
    ],
)
def test_deadline_is_over_once_its_time_is_there(now: float, over: bool) -> None:
    assert Deadline(10.0, 5.0).is_over(now) is over


def test_cancelled_one_is_over_at_once() -> None:
    deadline = Deadline(10.0, 5.0)

    deadline.cancel()

    assert deadline.is_over(0.0)


def test_it_begins_now() -> None:
    before = time.monotonic()

    deadline = Deadline.after(5.0)

    assert before + 5.0 <= deadline.at <= time.monotonic() + 5.0
    assert deadline.seconds == 5.0


def test_never_cannot_be_cancelled() -> None:
    NEVER.cancel()

    assert not NEVER.is_over(0.0)


def test_never_is_not_over_in_a_thousand_years() -> None:
    assert not NEVER.is_over(3.2e10)

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from service.core.callers import Rate
from service.guards.rates import Verdict
from service.guards.store import RETRY_S, SharedWindows, StoreUnusable, shared_windows
from tests.faults.cases import fault

RATE = Rate(10, 60)
HERE = Verdict(True, 5, 0.0)


class Counters:
    """A store that answers as it is told, or not at all."""

    def __init__(self) -> None:
        self.asked = 0
        self.allows = True
        self.is_down = False

    def hit(self, item: Any, *identifiers: str) -> bool:
        self.asked += 1
        if self.is_down:
            raise ConnectionError("no route to redis://:secret@host")
        return self.allows

    def get_window_stats(self, item: Any, *identifiers: str) -> Any:
        return SimpleNamespace(reset_time=1000.0 + 25, remaining=3)


def locally(rate: Rate, caller: str, now: float) -> Verdict:
    return HERE


def windows_over(counters: Counters) -> SharedWindows:
    return SharedWindows(counters, locally, wall=lambda: 1000.0)


def test_store_decides() -> None:
    counters = Counters()
    windows = windows_over(counters)

    passed = windows.ask(RATE, "shop", 1.0)
    counters.allows = False
    refused = windows.ask(RATE, "shop", 2.0)

    assert passed == Verdict(True, 3, 0.0)
    assert refused == Verdict(False, 3, 25.0)


@fault(
    "A16", sent="the store of limits is down", expected="counted locally, one request in five seconds waits, no error"
)
def test_store_that_is_down_is_asked_once_in_a_while_and_counted_for_here() -> None:
    counters = Counters()
    counters.is_down = True
    windows = windows_over(counters)

    verdicts = [windows.ask(RATE, "shop", 1.0 + tenth / 10) for tenth in range(100)]

    assert verdicts == [HERE] * 100
    assert counters.asked == 2  # in the ten seconds, RETRY_S apart


def test_store_that_is_back_decides_again() -> None:
    counters = Counters()
    counters.is_down = True
    windows = windows_over(counters)
    windows.ask(RATE, "shop", 1.0)

    counters.is_down = False

    assert windows.ask(RATE, "shop", 1.0 + RETRY_S + 0.1) == Verdict(True, 3, 0.0)
    assert windows.ask(RATE, "shop", 1.0 + RETRY_S + 0.2) == Verdict(True, 3, 0.0)


def test_reason_is_logged_without_the_address(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters()
    counters.is_down = True

    windows_over(counters).ask(RATE, "shop", 1.0)

    assert "ConnectionError" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("uri", ["memory://", "memcached://host", "host:6379", ""])
def test_other_stores_are_refused(uri: str) -> None:
    with pytest.raises(StoreUnusable, match="redis://host:6379/0"):
        shared_windows(uri, locally)


@fault("A16", sent="the store of limits cannot be reached", expected="counted locally")
def test_redis_that_is_not_there_harms_nobody() -> None:
    pytest.importorskip("redis", reason="the client of Redis is an extra")

    windows = shared_windows("redis://127.0.0.1:1/0", locally)

    assert windows.ask(RATE, "shop", 1.0) == HERE

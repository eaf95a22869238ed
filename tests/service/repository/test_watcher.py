from __future__ import annotations

import logging
import threading

import pytest

from service.core.errors import Unavailable
from service.repository.watcher import Watcher

# No poll follows by itself: an interval beyond any test.
_NEVER_S = 3600.0
_PATIENCE_S = 30.0


def test_first_poll_comes_at_once_and_stop_ends_the_thread() -> None:
    polled = threading.Event()
    watcher = Watcher(polled.set, _NEVER_S)

    watcher.start()

    assert polled.wait(_PATIENCE_S)
    watcher.stop()
    assert not any(thread.name == "tandem-watcher" for thread in threading.enumerate())


def test_polls_follow_each_other_on_one_thread() -> None:
    threads: list[int] = []
    enough = threading.Event()

    def poll() -> None:
        threads.append(threading.get_ident())
        if len(threads) == 3:
            enough.set()

    watcher = Watcher(poll, 0.0)
    watcher.start()

    assert enough.wait(_PATIENCE_S)
    watcher.stop()
    assert len(set(threads)) == 1


def test_poll_that_fails_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    polls: list[int] = []
    again = threading.Event()

    def poll() -> None:
        polls.append(1)
        if len(polls) == 1:
            raise ValueError("odd disk")
        again.set()

    watcher = Watcher(poll, 0.0)
    with caplog.at_level(logging.ERROR):
        watcher.start()
        assert again.wait(_PATIENCE_S)
        watcher.stop()

    assert "odd disk" in caplog.text


def test_stop_waits_for_the_poll_under_way() -> None:
    begun, go_on, finished = threading.Event(), threading.Event(), threading.Event()

    def poll() -> None:
        begun.set()
        assert go_on.wait(_PATIENCE_S)
        finished.set()

    watcher = Watcher(poll, _NEVER_S)
    watcher.start()
    assert begun.wait(_PATIENCE_S)
    stopper = threading.Thread(target=watcher.stop)
    stopper.start()

    assert not finished.is_set()
    go_on.set()
    stopper.join(_PATIENCE_S)
    assert finished.is_set()


def test_stopped_watcher_can_be_started_again() -> None:
    polled = threading.Event()
    watcher = Watcher(polled.set, _NEVER_S)
    watcher.start()
    watcher.stop()
    polled.clear()

    watcher.start()

    assert polled.wait(_PATIENCE_S)
    watcher.stop()


def test_stop_before_start_does_nothing() -> None:
    Watcher(lambda: None, _NEVER_S).stop()


def test_what_is_asked_is_done_on_the_thread_that_polls() -> None:
    threads: list[int] = []
    watcher = Watcher(lambda: threads.append(threading.get_ident()), _NEVER_S)
    watcher.start()

    asked = watcher.ask(threading.get_ident)

    assert asked.result(_PATIENCE_S) == threads[0]
    assert len(threads) == 1
    watcher.stop()


def test_polls_go_on_after_something_was_asked() -> None:
    polls: list[int] = []
    enough = threading.Event()

    def poll() -> None:
        polls.append(1)
        if len(polls) == 3:
            enough.set()

    watcher = Watcher(poll, 0.01)
    watcher.start()
    watcher.ask(lambda: None).result(_PATIENCE_S)

    assert enough.wait(_PATIENCE_S)
    watcher.stop()


def test_failure_of_what_was_asked_is_in_its_future_and_ends_nothing() -> None:
    def fail() -> None:
        raise ValueError("odd model")

    watcher = Watcher(lambda: None, _NEVER_S)
    watcher.start()

    assert isinstance(watcher.ask(fail).exception(_PATIENCE_S), ValueError)
    assert watcher.ask(lambda: 7).result(_PATIENCE_S) == 7
    watcher.stop()


def test_what_was_asked_before_the_stop_is_done() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def poll() -> None:
        begun.set()
        assert go_on.wait(_PATIENCE_S)

    watcher = Watcher(poll, _NEVER_S)
    watcher.start()
    assert begun.wait(_PATIENCE_S)
    asked = [watcher.ask(lambda number=number: number) for number in range(3)]  # type: ignore[misc]
    stopper = threading.Thread(target=watcher.stop)
    stopper.start()
    go_on.set()
    stopper.join(_PATIENCE_S)

    assert [one.result(0) for one in asked] == [0, 1, 2]


def test_where_nobody_watches_nothing_can_be_asked() -> None:
    watcher = Watcher(lambda: None, _NEVER_S)
    before = watcher.ask(lambda: None)
    watcher.start()
    watcher.stop()
    after = watcher.ask(lambda: None)

    assert isinstance(before.exception(0), Unavailable)
    assert isinstance(after.exception(0), Unavailable)

from __future__ import annotations

import logging
import sys

import pytest

from service.observability.stray import LINE_CHARACTERS, LINES, WINDOW_S, Limit, Stray


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_few_lines_pass_in_each_window() -> None:
    clock = Clock()
    limit = Limit(2, 60.0, clock)

    first = [limit.admits() for _ in range(4)]
    left_out = [limit.take_left_out(), limit.take_left_out()]
    clock.now = 60.0

    assert first == [True, True, False, False]
    assert left_out == [2, 0]
    assert limit.admits()


def test_each_line_that_is_printed_is_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    stray = Stray(sys.stdout, Limit())

    print("one\n\ntwo", file=stray)

    assert said(caplog) == ["printed: one", "printed: two"]


def test_a_model_that_talks_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    stray = Stray(sys.stdout, Limit(clock=clock))

    for _ in range(1000):
        print("x" * 10_000, file=stray)
    clock.now = WINDOW_S
    print("again", file=stray)

    assert said(caplog)[:-1] == ["printed: " + "x" * LINE_CHARACTERS] * LINES
    assert said(caplog)[-1] == f"printed: again ({1000 - LINES} lines before it were left out)"


def test_logging_that_fails_is_not_logged_for_ever() -> None:
    stray = Stray(sys.stdout, Limit())
    written: list[str] = []

    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(record.getMessage())
            print("cannot write", file=stray)

    handler = Failing()
    logging.getLogger("tandem.stray").addHandler(handler)
    try:
        print("one", file=stray)
    finally:
        logging.getLogger("tandem.stray").removeHandler(handler)

    assert written == ["printed: one"]


def test_the_descriptor_is_that_of_the_stream_beneath() -> None:
    assert Stray(sys.__stdout__, Limit()).fileno() == sys.__stdout__.fileno()  # type: ignore[arg-type,union-attr]

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import InvalidRequest, ModelFailed
from service.observability.logs import TEXT, LogFormat, configure_logs, log_access, write_by_turns
from tests.faults.cases import fault

_TOUCHED = ("", "uvicorn", "uvicorn.error", "uvicorn.access", "granian.access", "_granian.access", "gunicorn.access")

_NASTY = [
    pytest.param("two\r\nlines\n", id="line breaks"),
    pytest.param('"quotes" and \\ and {"json": 1}', id="quotes"),
    pytest.param("\x1b[31mred\x1b[0m\x07\x08", id="terminal codes"),
    pytest.param("a\u2028b\u2029c\x85d\x0b\x0c", id="line breaks of Unicode"),
    pytest.param("\ud800 alone", id="lone surrogate"),
    pytest.param("% %s %d {} {0}", id="format codes"),
    pytest.param("\x00", id="zero"),
]


@pytest.fixture
def logs(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """Reads what went to standard error. Loggers are as before when the test is over."""
    loggers = [logging.getLogger(name) for name in _TOUCHED]
    before = [(logger.handlers[:], logger.level, logger.propagate, logger.disabled) for logger in loggers]
    yield lambda: capsys.readouterr().err
    for logger, (handlers, level, propagate, disabled) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate, logger.disabled = handlers, propagate, disabled
        logger.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def _read(logs: Callable[[], str]) -> list[dict[str, Any]]:
    """The lines, as any reader of lines would cut them."""
    lines = [json.loads(line) for line in logs().splitlines()]
    assert all(isinstance(line, dict) for line in lines)
    return lines


def _access(**changes: Any) -> None:
    known: dict[str, Any] = {
        "method": "POST", "path": "/predict", "status": 200, "ms": 1.23456, "request_id": "abc", "error": None,
    }  # fmt: skip
    log_access(**{**known, **changes})


def test_request_is_one_line_with_its_id(logs: Callable[[], str]) -> None:
    configure_logs("json", "info")

    _access()

    (line,) = _read(logs)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "request", "level": "info", "logger": "tandem.access", "method": "POST", "path": "/predict",
        "status": 200, "ms": 1.235, "request_id": "abc",
    }  # fmt: skip


def test_nobody_waits_for_another_who_writes(logs: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logs("json", "info")
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    write, is_first = handler.stream.write, [True]

    def slow(text: str) -> int:
        if is_first.pop() if is_first else False:
            other = threading.Thread(target=_access, kwargs={"request_id": "second"})
            other.start()
            other.join(60)
            assert not other.is_alive()
        return write(text)

    monkeypatch.setattr(handler.stream, "write", slow)
    _access(request_id="first")

    assert [line["request_id"] for line in _read(logs)] == ["first", "second"]


@fault("O02", sent="CRLF, ANSI codes, quotes, U+2028 in method, path, detail", expected="one JSON object in one line")
def test_lines_of_one_turn_of_an_event_loop_are_written_at_its_end(logs: Callable[[], str]) -> None:
    configure_logs("json", "info")

    async def turn() -> tuple[str, str]:
        loop = asyncio.get_running_loop()
        write_by_turns(lambda: loop if asyncio._get_running_loop() is loop else None)
        _access(request_id="one")
        _access(request_id="two")
        before = logs()
        await asyncio.sleep(0)
        return before, logs()

    before, after = asyncio.run(turn())

    assert before == ""
    assert [json.loads(line)["request_id"] for line in after.splitlines()] == ["one", "two"]


def test_lines_of_any_other_loop_are_written_at_once(logs: Callable[[], str]) -> None:
    configure_logs("json", "info")

    async def turn() -> str:
        _access()
        return logs()

    assert json.loads(asyncio.run(turn()))["event"] == "request"


def test_lines_of_a_loop_that_is_no_more_are_written_at_the_end_of_the_process() -> None:
    program = """
import asyncio
from service.observability.logs import configure_logs, log_access, write_by_turns
configure_logs("json", "info")
async def turn():
    write_by_turns(lambda: loop)
    log_access(method="GET", path="/", status=200, ms=1.0, request_id="last", error=None)
    asyncio.get_running_loop().stop()
loop = asyncio.new_event_loop()
loop.create_task(turn())
loop.run_forever()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert [json.loads(line)["request_id"] for line in ended.stderr.splitlines()] == ["last"]


@pytest.mark.parametrize("text", _NASTY)
def test_whatever_a_caller_sends_stays_in_its_line(logs: Callable[[], str], text: str) -> None:
    configure_logs("json", "info")

    _access(path=text, method=text, error=InvalidRequest(text), status=422)

    (line,) = _read(logs)
    assert (line["path"], line["method"], line["detail"], line["error"]) == (text, text, text, "InvalidRequest")


@pytest.mark.parametrize("text", _NASTY)
def test_whatever_a_library_logs_stays_in_its_line(logs: Callable[[], str], text: str) -> None:
    configure_logs("json", "info")

    logging.getLogger("elsewhere").warning("it said: %s", text)

    (line,) = _read(logs)
    assert (line["event"], line["logger"], line["level"]) == (f"it said: {text}", "elsewhere", "warning")


@given(text=st.text(), key=st.text(min_size=1))
def test_any_text_comes_back_from_the_log(text: str, key: str) -> None:
    record = logging.LogRecord("elsewhere", logging.INFO, "", 0, text, None, None)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        configure_logs("json", "info")
        line = root.handlers[0].format(record)
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        logging.captureWarnings(False)
        structlog.reset_defaults()

    assert line.splitlines() == [line]
    assert json.loads(line)["event"] == text


@fault("O02", sent="1 MB in a path and a detail", expected="cut")
def test_megabytes_are_cut(logs: Callable[[], str]) -> None:
    configure_logs("json", "info")
    much = "x" * 1_000_000

    _access(path=much, status=422, error=InvalidRequest(much))

    text = logs()
    assert len(text) < 1000
    assert len(text.splitlines()) == 1


def _fail(rows: list[str]) -> None:
    try:
        raise KeyError("coef_\r\n")
    except KeyError as error:
        raise ModelFailed from error


def test_failure_of_ours_carries_its_traceback_with_the_cause(logs: Callable[[], str]) -> None:
    configure_logs("json", "info")

    with pytest.raises(ModelFailed) as caught:
        _fail([])
    _access(status=500, error=caught.value)

    (line,) = _read(logs)
    assert (line["level"], line["status"], line["request_id"]) == ("error", 500, "abc")
    assert [part["exc_type"] for part in line["exception"]] == ["ModelFailed", "KeyError"]
    assert line["exception"][0]["frames"][-1]["name"] == "_fail"


def test_traceback_holds_no_rows_of_the_caller(logs: Callable[[], str]) -> None:
    configure_logs("json", "info")

    with pytest.raises(ModelFailed) as caught:
        _fail(["patient 17"])
    _access(status=500, error=caught.value)

    assert "patient" not in logs()


@pytest.mark.parametrize("status", [404, 422, 503, 504])
def test_mistake_of_a_caller_carries_its_text_only(logs: Callable[[], str], status: int) -> None:
    configure_logs("json", "info")

    _access(status=status, error=InvalidRequest("no such column"))

    (line,) = _read(logs)
    assert (line["level"], line["detail"]) == ("info", "no such column")
    assert "exception" not in line


def test_traceback_of_a_library_is_in_its_line(logs: Callable[[], str]) -> None:
    configure_logs("json", "info")

    try:
        raise ValueError("a\nb")
    except ValueError:
        logging.getLogger("elsewhere").exception("failed")

    (line,) = _read(logs)
    assert line["exception"][0]["exc_value"] == "a\nb"


def test_warnings_are_lines_too(logs: Callable[[], str]) -> None:
    configure_logs("json", "info")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("careful", UserWarning, stacklevel=1)

    (line,) = _read(logs)
    assert line["logger"] == "py.warnings"
    assert "careful" in line["event"]


@pytest.mark.parametrize(
    ("level", "events"),
    [("debug", ["a", "b", "c"]), ("info", ["b", "c"]), ("error", ["c"])],
)
def test_level_is_the_least_that_is_logged(logs: Callable[[], str], level: str, events: list[str]) -> None:
    configure_logs("json", level)

    logger = logging.getLogger("elsewhere")
    logger.debug("a")
    logger.info("b")
    logger.error("c")

    assert [line["event"] for line in _read(logs)] == events


def test_lines_of_web_servers_are_formatted_once_and_their_access_lines_left_out(logs: Callable[[], str]) -> None:
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).addHandler(logging.StreamHandler())

    configure_logs("json", "info")
    logging.getLogger("uvicorn.error").info("started")
    logging.getLogger("uvicorn.access").info("GET / 200")

    assert [line["event"] for line in _read(logs)] == ["started"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_configuring_twice_writes_each_line_once(logs: Callable[[], str], log_format: LogFormat) -> None:
    configure_logs(log_format, "info")
    configure_logs(log_format, "info")

    _access()

    assert logs().count("abc") == 1


@fault("O02", sent="CRLF, ANSI codes, U+2028, in lines for people", expected="one line, escaped")
@pytest.mark.parametrize("text", _NASTY)
def test_lines_for_people_are_lines_whatever_is_in_them(logs: Callable[[], str], text: str) -> None:
    configure_logs("console", "info")

    _access(path=text, method=text, error=InvalidRequest(text), status=422)
    logging.getLogger("elsewhere").warning("it said: %s", text)

    written = logs()
    assert len(written.splitlines()) == 2
    assert written.replace("\n", "").isprintable()


def test_traceback_for_people_keeps_its_lines_and_tells_a_terminal_nothing(logs: Callable[[], str]) -> None:
    configure_logs("console", "info")

    try:
        raise ValueError("\x1b[31mred")
    except ValueError:
        logging.getLogger("elsewhere").exception("failed")

    written = logs()
    assert "\n    raise ValueError(" in written
    assert written.endswith("ValueError: \\x1b[31mred\n")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_megabytes_of_a_library_are_cut_too(logs: Callable[[], str], log_format: LogFormat) -> None:
    configure_logs(log_format, "info")
    much = "x" * 1_000_000

    try:
        raise ValueError(much)
    except ValueError:
        logging.getLogger("elsewhere").exception("it said: %s", much)

    written = logs()
    assert len(written) < 4 * TEXT
    assert "(1000009 characters)" in written


@fault("O02", sent="a logger that lets a line break through", expected="the check fails")
def test_check_for_lines_notices_a_logger_that_lets_a_line_break_through(logs: Callable[[], str]) -> None:
    configure_logs("json", "info")
    logging.getLogger().handlers[0].setFormatter(logging.Formatter('{"event": "%(message)s"}'))

    logging.getLogger("elsewhere").warning("two\nlines")

    with pytest.raises(ValueError, match="Unterminated string"):
        _read(logs)


def test_caller_and_trace_are_named_where_they_are_known(logs: Callable[[], str]) -> None:
    configure_logs("json", "info")

    _access(caller="shop", trace_id="4bf92f3577b34da6a3ce929d0e0e4736")

    (line,) = _read(logs)
    assert (line["caller"], line["trace_id"]) == ("shop", "4bf92f3577b34da6a3ce929d0e0e4736")


def test_lines_for_people_hold_the_same_facts(logs: Callable[[], str]) -> None:
    configure_logs("console", "info")

    _access(path="/models\x1b[31m", status=422, error=InvalidRequest("no such column"))

    text = logs()
    assert "request_id=abc" in text
    assert "no such column" in text
    assert len(text.splitlines()) == 1

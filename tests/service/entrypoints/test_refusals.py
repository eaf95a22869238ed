from __future__ import annotations

import json

import pytest
import structlog

from service.core.errors import HeadersTooLarge, UnreadableRequest
from service.entrypoints.refusals import LINES_PER_S, SparingLog, refuse


def test_a_refusal_is_a_whole_reply_that_closes_and_its_id_is_in_the_log() -> None:
    with structlog.testing.capture_logs() as lines:
        head, _, body = refuse(HeadersTooLarge("too large")).partition(b"\r\n\r\n")

    problem = json.loads(body)
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert headers["connection"] == "close"
    assert headers["content-type"] == "application/problem+json"
    assert int(headers["content-length"]) == len(body)
    assert headers["x-request-id"] == problem["request_id"] == lines[0]["request_id"]
    assert (problem["status"], problem["detail"], lines[0]["status"]) == (431, "too large", 431)


def test_a_bug_tells_its_caller_nothing() -> None:
    assert b"secret" not in refuse(RuntimeError("secret"))


@pytest.mark.parametrize("refused", [LINES_PER_S, LINES_PER_S + 1, 1000])
def test_lines_of_a_second_are_bounded_and_the_rest_is_counted(refused: int, caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    log = SparingLog(lambda: now)

    with structlog.testing.capture_logs() as lines:
        for _ in range(refused):
            log.log(UnreadableRequest("rubbish"), 400, "id")
        now = 1.0
        log.log(UnreadableRequest("rubbish"), 400, "id")

    left_out = refused - LINES_PER_S
    assert len(lines) == LINES_PER_S + 1
    assert caplog.messages == ([f"{left_out} more requests were refused than are logged"] if left_out else [])

from __future__ import annotations

import json
from typing import Any

import pytest

from service.core.errors import InvalidRequest, RateLimited, UpstreamFailed
from service.generation.events import Event
from service.generation.replies import Relay, refusal_of, relay_of, reply_of, require_kind
from service.generation.requests import Form, UpstreamCall
from tests.faults.cases import fault

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def call(form: Form = Form.GENERATE, *, is_chat: bool = False, streams: bool = False) -> UpstreamCall:
    return UpstreamCall(form, "/x", b"", "m", is_chat, streams)


def whole(**choice: Any) -> bytes:
    return json.dumps(
        {"choices": [choice], "usage": {**USAGE, "details": {"cached": 1}}, "model": "/srv/x.gguf"}
    ).encode()


def chunk(text: str | None = None, reason: str | None = None, **others: Any) -> Event:
    return Event("message", json.dumps({"choices": [{"text": text, "finish_reason": reason}], **others}))


def told(relay: Relay, *events: Event) -> bytes:
    return b"".join(relay.take(event) for event in events) + relay.end()


@pytest.mark.parametrize(
    ("is_chat", "choice"),
    [(False, {"text": "hi", "finish_reason": "stop"}), (True, {"message": {"content": "hi"}, "finish_reason": "stop"})],
)
def test_whole_answer_is_told_in_our_words_with_the_model_that_was_asked(is_chat: bool, choice: dict[str, Any]) -> None:
    body, usage = reply_of(whole(**choice), call(is_chat=is_chat))

    assert json.loads(body) == {"text": "hi", "finish_reason": "stop", "model": "m", "usage": USAGE}
    assert usage == USAGE


def test_whole_answer_passes_as_it_is_where_openai_was_asked_for() -> None:
    body = whole(message={"content": None, "tool_calls": [{}]})

    assert reply_of(body, call(Form.CHAT, is_chat=True)) == (body, USAGE)


@pytest.mark.parametrize(
    "usage", [None, 3, {}, {"prompt_tokens": -1}, {"prompt_tokens": True}, {"prompt_tokens": 2**60}]
)
def test_usage_that_is_none_is_left_out(usage: Any) -> None:
    body = json.dumps({"choices": [{"text": "hi"}], "usage": usage}).encode()

    assert json.loads(reply_of(body, call())[0])["usage"] is None


@fault("P09", sent="whole answers that are errors, HTML, or none", expected="502")
@pytest.mark.parametrize("form", [Form.GENERATE, Form.COMPLETIONS])
@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"[]", b"3", b"{}", b'{"error": {"message": "/srv"}}', b'{"error": "x", "choices": []}',
        b'{"choices": []}', b'{"choices": {}}', b'{"choices": [3]}', b'{"choices": [{"text": 3}]}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_answer_is_a_failure_of_the_upstream(form: Form, body: bytes) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        reply_of(body, call(form))

    assert "/srv" not in str(caught.value)


@pytest.mark.parametrize("choice", [{}, {"text": None}, {"message": {"content": "hi"}}])
def test_answer_without_text_is_none_in_our_words(choice: dict[str, Any]) -> None:
    with pytest.raises(UpstreamFailed):
        reply_of(whole(**choice), call())


def test_stream_is_told_in_our_words() -> None:
    relay = relay_of(call(streams=True))

    usage = Event("message", json.dumps({"choices": [], "usage": USAGE}))
    out = told(relay, chunk("a"), chunk(""), chunk("b", "length"), usage, Event("message", "[DONE]"))

    final = json.dumps({"finish_reason": "length", "usage": USAGE}, separators=(",", ":")).encode()
    assert out == b'data: {"text":"a"}\n\ndata: {"text":"b"}\n\ndata: ' + final + b"\n\ndata: [DONE]\n\n"
    assert (relay.is_done, relay.has_text, relay.usage) == (True, True, USAGE)


def test_stream_of_a_chat_has_its_text_in_deltas() -> None:
    relay = relay_of(call(is_chat=True, streams=True))
    deltas: list[dict[str, Any]] = [{"role": "assistant"}, {"content": None}, {"content": "hi"}]

    pieces = [relay.take(Event("message", json.dumps({"choices": [{"delta": delta}]}))) for delta in deltas]

    assert pieces == [b"", b"", b'data: {"text":"hi"}\n\n']


def test_stream_of_openai_passes_as_it_came() -> None:
    relay = relay_of(call(Form.CHAT, is_chat=True, streams=True))
    data = '{"choices": [{"delta": {"content": "x"},\n "finish_reason": "stop"}]}'

    out = told(relay, Event("message", data), Event("message", "[DONE]"))

    assert out == b"data: " + data.replace("\n", "\ndata: ").encode() + b"\n\ndata: [DONE]\n\n"
    assert relay.has_text


@pytest.mark.parametrize("form", [Form.GENERATE, Form.COMPLETIONS])
def test_stream_may_end_without_saying_so_once_its_text_has(form: Form) -> None:
    assert told(relay_of(call(form, streams=True)), chunk("a", "stop")).endswith(b"data: [DONE]\n\n")


@fault(
    "P15", "P08", "P09", sent="streams that break off, errors and odd events in them", expected="a failure, told last"
)
@pytest.mark.parametrize("form", [Form.GENERATE, Form.COMPLETIONS])
@pytest.mark.parametrize(
    "event",
    [
        None, Event("error", "/srv"), Event("message", '{"error": {"message": "/srv"}}'), Event("message", "/srv"),
        Event("message", "[]"), Event("message", "{}"), Event("message", '{"choices": [{"text": 3}]}'),
        Event("message", '{"choices": [{"text": "", "finish_reason": 3}]}'), Event("message", '{"choices": []\0}'),
    ],
)  # fmt: skip
def test_what_goes_wrong_in_a_stream(form: Form, event: Event | None) -> None:
    relay = relay_of(call(form, streams=True))

    with pytest.raises(UpstreamFailed) as caught:
        told(relay, chunk("a"), *([event] if event is not None else []))

    assert "/srv" not in str(caught.value)


def test_problem_is_an_event_of_its_name_or_of_openai() -> None:
    assert relay_of(call()).failed(b"{}") == b"event: error\ndata: {}\n\n"
    assert relay_of(call(Form.CHAT)).failed(b'{"error":{}}') == b'data: {"error":{}}\n\n'


@fault(
    "P02", "P09", sent="every status that is no 200", expected="502, or what it means for the caller; none of its words"
)
@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 403, 404, 409, 418, 422, 500, 502, 503, 504])
def test_statuses_are_failures_of_the_upstream(status: int) -> None:
    error = refusal_of(status, {"location": "http://10.0.0.1/"}, b'{"error": {"message": "/srv", "code": "x"}}')

    assert isinstance(error, UpstreamFailed)
    assert str(status) in str(error)
    assert "/srv" not in error.for_log and "10.0.0.1" not in error.for_log


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("7", 7), (" 7 ", 7), ("0", 1), ("", 1), ("-3", 1), ("999999", 3600), ("9" * 5000, 1), ("soon", 1), ("²", 1)],
)
def test_quota_of_the_upstream_is_told_with_how_long_it_lasts(retry_after: str, seconds: int) -> None:
    error = refusal_of(429, {"retry-after": retry_after}, b"")

    assert isinstance(error, RateLimited)
    assert error.retry_after_s == seconds


@pytest.mark.parametrize("name", ["code", "type"])
@pytest.mark.parametrize("word", ["context_length_exceeded", "exceed_context_size_error"])
def test_prompt_that_is_too_long_for_the_model_is_the_callers_to_mend(name: str, word: str) -> None:
    error = refusal_of(400, {}, json.dumps({"error": {name: word, "message": "/srv"}}).encode())

    assert isinstance(error, InvalidRequest)
    assert "/srv" not in str(error)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"error": 3}', b'{"error": {"code": ["x"]}}', b"\xff"])
def test_odd_bodies_of_refusals_are_read_by_nobody(body: bytes) -> None:
    assert isinstance(refusal_of(400, {}, body), UpstreamFailed)


@fault("P19", "P09", sent="codings and types that were not asked for", expected="502")
def test_answer_is_of_the_kind_that_was_asked_for() -> None:
    require_kind({"content-type": "application/json; charset=utf-8"}, call())
    require_kind({"content-type": "text/event-stream", "content-encoding": "identity"}, call(streams=True))

    for headers, streams in [
        ({"content-type": "text/html"}, False),
        ({}, False),
        ({"content-type": "text/event-stream"}, False),
        ({"content-type": "application/json"}, True),
        ({"content-type": "application/json", "content-encoding": "gzip"}, False),
    ]:
        with pytest.raises(UpstreamFailed):
            require_kind(headers, call(streams=streams))

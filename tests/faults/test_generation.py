"""Texts from a language model that another server runs: what callers send (section P)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any, Final

import pytest

from tests.conformance.servers import Running, eventually
from tests.faults.cases import Came, fault
from tests.faults.fronts import GOOD, KNOWN, PROBLEM, is_problem
from tests.faults.upstream import MODEL, TEXTS, USAGE, Upstream
from tests.faults.writing import (
    CHAT,
    COMPLETIONS,
    EVENTS,
    MAX_MESSAGES,
    MAX_PROMPT,
    NARROW,
    OTHER,
    READER,
    STREAM,
    STREAMS,
    UPSTREAM_KEY,
    WHOLE,
    WRITER,
    Writing,
    asking,
    events,
    read_until,
)


@pytest.mark.parametrize("form", [{"prompt": "hi"}, {"messages": [{"role": "user", "content": "hi"}]}])
def test_text_comes_as_a_whole(writing: Writing, form: dict[str, Any]) -> None:
    reply = writing.ask("POST", WHOLE, json=form)

    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json() == {"text": "Once upon a time", "finish_reason": "stop", "model": MODEL, "usage": USAGE}
    asked = writing.upstream.asked[-1].body
    assert asked == {**form, "model": MODEL, "stream": False, "max_tokens": 256, "temperature": 0.7}


@fault("P14", sent="a stream", expected="each text as it comes, headers that tell proxies to hold nothing back")
@pytest.mark.parametrize(("path", "fields"), [(STREAM, {}), (WHOLE, {"stream": True})])
@pytest.mark.parametrize("form", [{"prompt": "hi"}, {"messages": [{"role": "user", "content": "hi"}]}])
def test_text_comes_in_pieces(
    writing: Writing, path: str, fields: dict[str, Any], form: dict[str, Any], came: Came
) -> None:
    reply = writing.ask("POST", path, json={**form, **fields})

    came(reply.status_code, reply.headers["x-accel-buffering"])
    assert (reply.status_code, reply.headers["content-type"]) == (200, EVENTS)
    assert (reply.headers["x-accel-buffering"], reply.headers["cache-control"]) == ("no", "no-store")
    texts = [{"text": text} for text in TEXTS]
    assert events(reply.content) == [*texts, {"finish_reason": "stop", "usage": USAGE}, "[DONE]"]


@fault("P14", sent="a stream whose second text is late", expected="the first text comes before it; then heartbeats")
def test_first_text_is_not_held_back(writing: Writing, came: Came) -> None:
    with closing(writing.open("drip")) as connection:
        read_until(connection, b'{"text":"Once"}')

    came("the first text, while the upstream goes on for ever")


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize("streams", [True, False])
def test_words_of_openai_pass(writing: Writing, path: str, streams: bool) -> None:
    reply = writing.told("well", path, stream=streams, model=MODEL, n=1, top_k=3)

    assert reply.status_code == 200
    if streams:
        *chunks, end = events(reply.content)
        assert end == "[DONE]"
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * len(TEXTS) + ["stop"]
    else:
        assert reply.json()["usage"] == USAGE
    assert writing.upstream.asked[-1].body["top_k"] == 3


def test_openapi_has_the_routes_and_metrics_count_them(writing: Writing) -> None:
    writing.told("well", STREAM)

    paths = writing.ask("GET", "/openapi.json").json()["paths"]
    metrics = writing.ask("GET", "/metrics").text

    for path in (WHOLE, STREAM, COMPLETIONS, CHAT):
        assert "requestBody" in paths[path]["post"]
    for line in (
        'tandem_generation_tokens_total{kind="completion"}', "tandem_generation_first_token_seconds_count",
        'tandem_upstream_breaker{state="closed"} 1.0', "tandem_generations_in_flight 0.0",
    ):  # fmt: skip
        assert line in metrics


# What callers send

ADDRESSES: Final = ("api_base", "base_url", "url", "host", "headers", "api_key", "extra_headers")


@fault("P01", "P12", sent="addresses and headers, at the top and nested; parameters of engines", expected="422, named")
@pytest.mark.parametrize("path", [WHOLE, STREAM, COMPLETIONS, CHAT])
def test_nobody_chooses_where_a_request_goes(writing: Writing, path: str, came: Came) -> None:
    before = len(writing.upstream.asked)
    others = ("guided_json", "priority", "chat_template", "cache_salt", "logit_bias", "tool_choice")
    replies = [writing.told("well", path, **{name: "x"}) for name in (*ADDRESSES, *others)]
    tools = {"tools": [{"type": "function", "function": {"name": "f", "Url": "http://10.0.0.1"}}]}
    replies.append(writing.told("well", path, **tools))
    replies.append(writing.told("well", path, response_format={"type": "text", "url": "x"}))

    came(*sorted({reply.status_code for reply in replies}))
    assert {reply.status_code for reply in replies} == {422}
    for name, reply in zip((*ADDRESSES, *others, "Url", "url"), replies, strict=True):
        assert name in reply.text
    assert len(writing.upstream.asked) == before


@fault("P10", sent="n, best_of, max_tokens, logprobs: huge, negative, numbers, texts, truths", expected="422, named")
@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
def test_counts_have_bounds(writing: Writing, path: str, came: Came) -> None:
    before = len(writing.upstream.asked)
    names = ["n", "max_tokens", *(["best_of", "logprobs"] if path == COMPLETIONS else ["top_logprobs"])]
    replies = [
        (name, writing.told("well", path, **{name: value}))
        for name in names
        for value in (10**6, 10**30, -1, 1.5, "1", True, [1])
    ]
    replies += [("temperature", writing.told("well", path, temperature=value)) for value in (2.1, -1, "1", True)]

    came(*sorted({reply.status_code for _, reply in replies}))
    for name, reply in replies:
        assert reply.status_code == 422, (name, reply.text)
        assert reply.json()["error"]["param"] == name
    assert len(writing.upstream.asked) == before


@fault("P11", sent="a prompt, messages, tools beyond the limits, and at them", expected="413; 200")
def test_prompts_have_bounds(writing: Writing, came: Came) -> None:
    message = {"role": "user", "content": "hi"}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"pattern": "(a+)+" * MAX_PROMPT}}}

    beyond = [
        writing.ask("POST", WHOLE, json={"prompt": "x" * (MAX_PROMPT + 1)}),
        writing.ask("POST", WHOLE, json={"prompt": "x" * 11_000_000}),
        writing.ask("POST", WHOLE, json={"messages": [message] * (MAX_MESSAGES + 1)}),
        writing.ask("POST", CHAT, json={"messages": [message] * 10_000}),
        writing.ask("POST", CHAT, json={"messages": [message], "tools": [tool]}),
    ]
    within = [
        writing.ask("POST", WHOLE, json={"prompt": "x" * MAX_PROMPT}),
        writing.ask("POST", WHOLE, json={"messages": [message] * MAX_MESSAGES}),
    ]

    came(*(reply.status_code for reply in (*beyond, *within)))
    assert [reply.status_code for reply in beyond] == [413] * len(beyond)
    assert [reply.status_code for reply in within] == [200] * len(within)


@fault("P11", sent="images, sounds and files among the messages", expected="422")
@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "file", "file": {"file_id": "x"}},
        {"type": "text", "text": "hi", "image_url": "file:///etc/passwd"},
        {"type": "text"},
        "hi",
    ],
    ids=["image", "sound", "file", "beside a text", "no text", "no part"],
)
def test_only_text_is_passed_on(writing: Writing, part: Any, came: Came) -> None:
    before = len(writing.upstream.asked)

    reply = writing.ask("POST", WHOLE, json={"messages": [{"role": "user", "content": [part]}]})

    came(reply.status_code)
    assert "messages[0].content[0]" in is_problem(reply, 422)["detail"]
    assert len(writing.upstream.asked) == before


@fault("P13", sent="line breaks and odd bytes in model and user; another model", expected="422")
@pytest.mark.parametrize("field", ["model", "user"])
@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b", "ÿ", "\u2028", "", "x" * 300, 3, ["a"]])
def test_names_are_one_line(writing: Writing, field: str, value: Any, came: Came) -> None:
    reply = writing.told("well", **{field: value})

    came(reply.status_code)
    assert field in is_problem(reply, 422)["detail"]


def test_another_model_is_refused(writing: Writing) -> None:
    assert is_problem(writing.told("well", model="org/huge"), 422)["detail"].startswith("model: ")


def test_scope_is_that_of_generation(writing: Writing) -> None:
    for path in (WHOLE, STREAM, COMPLETIONS, CHAT):
        refused = writing.ask("POST", path, json=asking(path, "well"), key=READER)
        hidden = writing.ask("POST", path, json=asking(path, "well"), key=NARROW)
        stranger = writing.ask("POST", path, json=asking(path, "well"), key="tandem_nobody")

        assert (refused.status_code, hidden.status_code, stranger.status_code) == (403, 404, 401)
        kind = "application/json" if path in (COMPLETIONS, CHAT) else PROBLEM
        assert {reply.headers["content-type"] for reply in (refused, hidden, stranger)} == {kind}


@fault("P04", sent="Authorization, cookies and other headers of the caller's", expected="none of them sent on")
def test_headers_of_callers_stay_here(writing: Writing, came: Came) -> None:
    canary = {"Cookie": "session=canary", "X-Canary": "canary", "OpenAI-Organization": "canary", "Referer": "canary"}

    reply = writing.ask("POST", WHOLE, json={"prompt": "hi"}, headers=canary)

    head = writing.upstream.asked[-1].head
    names = {line.partition(":")[0].lower() for line in head.split("\r\n")[1:]}
    came(*sorted(names))
    assert reply.status_code == 200
    assert "canary" not in head.replace(UPSTREAM_KEY, "") and WRITER not in head
    assert f"Authorization: Bearer {UPSTREAM_KEY}" in head
    assert names == {"host", "content-type", "accept", "accept-encoding", "authorization", "content-length"}


@fault(
    "P17", "A13", sent="canaries in a prompt, a message, a field and a bad request", expected="in no line of the log"
)
def test_prompts_are_not_logged(writing: Writing, came: Came) -> None:
    since = writing.running.log.stat().st_size
    writing.told("well; canary-1")
    writing.told("well; canary-2", STREAM)
    writing.told("status500; canary-3")
    writing.ask("POST", WHOLE, json={"prompt": ["canary-4"], "canary-5": 1})
    writing.ask("POST", WHOLE, json={"prompt": "x", "user": "canary-6\n"})
    writing.ask("POST", WHOLE, json={"prompt": "x", "canary-7": 1})

    log = writing.running.log.read_bytes()[since:].decode()
    metrics = writing.ask("GET", "/metrics").text
    came("nothing")
    assert log.count("/v1/generate") >= 6
    assert "canary" not in log and "canary" not in metrics and TEXTS[1] not in log


# Many at a time


@fault("P16", sent="slow streams on all places, and more", expected="503 beyond; predictions as ever, no thread more")
def test_many_slow_streams(writing_fronts: tuple[Mapping[str, Running], Upstream], came: Came) -> None:
    running, upstream = writing_fronts
    front = Writing("uvicorn", running["uvicorn"], upstream)
    front.told("well", STREAM)
    front.ask(json=GOOD)
    before, threads = len(upstream.asked), front.threads()
    with ExitStack() as stack:
        slow = [stack.enter_context(closing(front.open("well 0.5"))) for _ in range(STREAMS)]
        eventually(lambda: len(upstream.asked) == before + STREAMS or None, "all to be asked for")

        during = front.threads()
        beyond = front.ask("POST", WHOLE, json={"prompt": "hi"}, key=OTHER)
        prediction = front.ask(json=GOOD)

        bodies = [read_until(connection, b"[DONE]") for connection in slow]
    came(beyond.status_code, f"{during - threads} threads more")
    is_problem(beyond, 503)
    assert prediction.json()["predictions"] == KNOWN
    assert during == threads
    assert all(body.count(b'{"text"') == len(TEXTS) for body in bodies)
    eventually(lambda: front.told("well").status_code == 200, "free places")

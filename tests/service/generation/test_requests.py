from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import InvalidField, RequestError, RequestTooLarge, UnknownField, UnreadableRequest
from service.generation.requests import STOP_CHARS, STOPS, Form, upstream_call
from service.generation.rules import ROUTING, RequestRules
from tests.faults.cases import fault

RULES = RequestRules(model="m", max_tokens=1000, max_prompt_bytes=100, max_messages=3, max_n=2)
HI: dict[str, Any] = {"role": "user", "content": "hi"}


def asked(form: Form, rules: RequestRules = RULES, **fields: Any) -> dict[str, Any]:
    """What goes upstream."""
    found: dict[str, Any] = json.loads(upstream_call(json.dumps(fields).encode(), form, rules).body)
    return found


def refused(form: Form, rules: RequestRules = RULES, **fields: Any) -> InvalidField:
    with pytest.raises(InvalidField) as caught:
        asked(form, rules, **fields)
    return caught.value


def test_prompt_goes_to_completions_and_messages_to_chat() -> None:
    prompt = upstream_call(b'{"prompt": "hi"}', Form.GENERATE, RULES)
    messages = upstream_call(json.dumps({"messages": [HI]}).encode(), Form.GENERATE, RULES)

    assert (prompt.path, prompt.is_chat, messages.path, messages.is_chat) == (
        "/completions", False, "/chat/completions", True,
    )  # fmt: skip
    assert json.loads(prompt.body) == {
        "prompt": "hi", "model": "m", "stream": False, "max_tokens": 256, "temperature": 0.7,
    }  # fmt: skip


def test_stream_is_asked_for_by_the_route_or_by_the_body() -> None:
    by_route = upstream_call(b'{"prompt": "hi"}', Form.GENERATE, RULES, streams=True)
    by_body = upstream_call(b'{"prompt": "hi", "stream": true}', Form.GENERATE, RULES)

    assert by_route.streams and by_body.streams
    assert json.loads(by_route.body)["stream"] is True
    assert json.loads(by_route.body)["stream_options"] == {"include_usage": True}


def test_openai_requests_pass_as_they_are_but_for_the_model_and_the_bound_on_tokens() -> None:
    fields = {"messages": [HI], "n": 2, "top_logprobs": 3, "logprobs": True, "stop": ["a", "b"], "seed": -1}

    assert asked(Form.CHAT, **fields) == {**fields, "model": "m", "stream": False, "max_tokens": 256}
    assert "max_tokens" not in asked(Form.CHAT, messages=[HI], max_completion_tokens=7)


def test_default_of_tokens_is_within_the_bound() -> None:
    assert asked(Form.CHAT, RequestRules(model="m", max_tokens=10), messages=[HI])["max_tokens"] == 10


def test_null_is_as_if_it_were_not_there() -> None:
    assert asked(Form.CHAT, messages=[HI], stop=None, n=None) == asked(Form.CHAT, messages=[HI])
    assert isinstance(refused(Form.CHAT, messages=[HI], api_base=None), UnknownField)
    assert refused(Form.CHAT, messages=None).field == "messages"


def test_model_is_the_operators_or_else_the_callers() -> None:
    free = RequestRules()

    assert asked(Form.GENERATE, prompt="hi", model="m")["model"] == "m"
    assert asked(Form.GENERATE, free, prompt="hi", model="org/Name-7B:q4@x")["model"] == "org/Name-7B:q4@x"
    assert refused(Form.GENERATE, prompt="hi", model="other").field == "model"
    assert refused(Form.GENERATE, free, prompt="hi").field == "model"


BOUNDS = [
    ("max_tokens", [1, 1000], [0, 1001, -1, 1.0, "1", True, [], 10**30]),
    ("n", [1, 2], [0, 3, True, 1.5]),
    ("best_of", [1, 2], [0, 3, "2"]),
    ("logprobs", [0, 20], [-1, 21, True, 0.0]),
    ("temperature", [0, 2, 0.5], [-0.1, 2.1, "1", True]),
    ("top_p", [0, 1, 0.5], [-0.1, 1.1, False]),
    ("presence_penalty", [-2, 2], [-2.1, 2.1, "0"]),
    ("frequency_penalty", [-2, 2], [-2.1, 2.1]),
    ("seed", [0, 2**63 - 1, -(2**63)], [2**63, -(2**63) - 1, 0.5, True]),
    ("user", ["a b", "~" * 256], ["", "a\n", "é", "\0", "x" * 257, 3]),
    ("model", ["m"], ["", "../x", "a b", "a\r\nb", 3]),
    ("stop", ["x", ["x"] * STOPS, "x" * STOP_CHARS], ["", [], ["x"] * (STOPS + 1), "x" * (STOP_CHARS + 1), [1], 3]),
    ("stream", [True, False], [0, 1, "true"]),
    (
        "response_format",
        [{"type": "text"}, {"type": "json_object"}],
        ["text", {}, {"type": "json_schema"}, {"type": []}],
    ),
    ("prompt", ["x", "x" * 100], ["", [], ["x"], [1, 2], 3]),
]


@fault("P10", "P13", sent="each field at its bounds, one beyond, and of other kinds", expected="passed; 422, named")
@pytest.mark.parametrize(("field", "good", "bad"), BOUNDS, ids=[name for name, _, _ in BOUNDS])
def test_fields_have_bounds(field: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert asked(Form.COMPLETIONS, **{"prompt": "hi", field: value})[field] == value
    for value in bad:
        error = refused(Form.COMPLETIONS, **{"prompt": "hi", field: value})
        assert error.field.partition(".")[0] == field
        assert str(error).startswith(f"{error.field}: expected ")


def test_numbers_that_no_float_can_hold_are_refused() -> None:
    with pytest.raises(InvalidField, match="temperature: expected a number from 0 to 2, got 1e400"):
        upstream_call(b'{"prompt": "hi", "temperature": 1e400}', Form.GENERATE, RULES)


@fault("P01", "P12", sent="every name of an address or header, in every form, at every depth", expected="422, named")
@pytest.mark.parametrize("form", Form)
def test_addresses_are_refused_wherever_they_stand(form: Form) -> None:
    allowing = RequestRules(model="m", parameters=frozenset({"tools", "extra"}))
    source: dict[str, Any] = {"prompt": "hi"} if form is Form.COMPLETIONS else {"messages": [HI]}

    for name in ROUTING:
        assert name in refused(form, allowing, **source, **{name: "x"}).field
        assert name in refused(form, allowing, **source, extra={"a": [{"b": {name: "x"}}]}).field
        assert name.upper() in refused(form, allowing, **source, extra={name.upper(): "x"}).field
        assert name in refused(form, allowing, **source, response_format={"type": "text", name: "x"}).field
        if form is not Form.COMPLETIONS:
            assert name in refused(form, allowing, messages=[{**HI, name: "x"}]).field


def test_fields_of_other_forms_are_refused() -> None:
    assert refused(Form.GENERATE, prompt="hi", n=1).field == "n"
    assert refused(Form.GENERATE, prompt="hi", logprobs=1).field == "logprobs"
    assert refused(Form.COMPLETIONS, messages=[HI]).field == "messages"
    assert refused(Form.CHAT, prompt="hi").field == "prompt"
    assert refused(Form.CHAT, messages=[HI], best_of=1).field == "best_of"
    assert refused(Form.CHAT, messages=[HI], tools=[]).field == "tools"


def test_prompt_and_messages_are_one_or_the_other() -> None:
    assert refused(Form.GENERATE).field == "prompt"
    assert refused(Form.GENERATE, prompt="hi", messages=[HI]).field == "prompt"
    assert refused(Form.CHAT).field == "messages"


def test_usage_is_asked_for_with_a_stream_alone() -> None:
    options = {"include_usage": True}

    assert asked(Form.CHAT, messages=[HI], stream=True, stream_options=options)["stream_options"] == options
    assert refused(Form.CHAT, messages=[HI], stream_options=options).field == "stream_options"
    assert refused(Form.CHAT, messages=[HI], stream=True, stream_options={"include_usage": 1}).field == (
        "stream_options.include_usage"
    )


@fault("P11", sent="messages of other roles, with parts that are no text", expected="422, named")
@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("hi", "messages[1]"),
        ({"role": "user"}, "messages[1].content"),
        ({"content": "hi"}, "messages[1].role"),
        ({"role": "tool", "content": "hi"}, "messages[1].role"),
        ({"role": ["user"], "content": "hi"}, "messages[1].role"),
        ({"role": "user", "content": 3}, "messages[1].content"),
        ({"role": "user", "content": []}, "messages[1].content"),
        ({"role": "user", "content": None}, "messages[1].content"),
        ({"role": "user", "content": "hi", "name": "a b"}, "messages[1].name"),
        ({"role": "user", "content": "hi", "tool_calls": []}, "messages[1].tool_calls"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, "messages[1].content[0].type"),
        ({"role": "user", "content": [{"type": "text", "text": 3}]}, "messages[1].content[0].text"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content[0].text"),
    ],
)
def test_messages_are_texts_of_known_roles(message: Any, field: str) -> None:
    assert refused(Form.CHAT, messages=[HI, message]).field == field


def test_texts_in_parts_pass() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    message = {"role": "developer", "content": parts, "name": "me"}

    assert asked(Form.CHAT, messages=[message])["messages"] == [message]


def test_tools_pass_where_the_operator_names_them() -> None:
    allowing = RequestRules(model="m", parameters=frozenset({"tools"}))
    messages = [
        HI,
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
        {"role": "tool", "content": "3", "tool_call_id": "1"},
    ]

    assert asked(Form.CHAT, allowing, messages=messages, tools=[{"x": 1}])["messages"] == messages


@fault("P11", sent="prompts, messages and parameters at their bounds, and one beyond", expected="passed; 413")
def test_sizes_have_bounds() -> None:
    allowing = RequestRules(model="m", max_prompt_bytes=100, max_messages=3, parameters=frozenset({"tools"}))
    asked(Form.CHAT, messages=[HI] * 2)
    asked(Form.COMPLETIONS, allowing, prompt="é" * 50)
    asked(Form.COMPLETIONS, allowing, prompt="x" * 96, tools="yy")

    for fields in ({"prompt": "é" * 50 + "x"}, {"prompt": "x" * 97, "tools": "yy"}):
        with pytest.raises(RequestTooLarge, match="at most 100"):
            asked(Form.COMPLETIONS, allowing, **fields)
    with pytest.raises(RequestTooLarge, match="messages: 4 of them"):
        asked(Form.CHAT, allowing, messages=[HI] * 4)
    with pytest.raises(RequestTooLarge, match="messages"):
        asked(Form.CHAT, allowing, messages=[{"role": "user", "content": "x" * 100}])


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 1000, b'{"prompt": "\xff"}', b'{"prompt": "\\ud800"}'])
def test_what_is_no_json_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableRequest):
        upstream_call(body, Form.GENERATE, RULES)


@pytest.mark.parametrize("body", [b"[]", b"3", b'"hi"', b"null"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidField, match="a JSON object"):
        upstream_call(body, Form.GENERATE, RULES)


@fault(
    "P17", sent="values and names that callers chose, in what is refused", expected="none of them in the log's words"
)
def test_log_has_neither_values_nor_names_of_callers() -> None:
    assert "canary" not in refused(Form.CHAT, messages=[HI], user="canary\n").for_log
    assert "canary" not in refused(Form.CHAT, messages=[HI], canary=1).for_log
    assert "\n" not in str(refused(Form.CHAT, messages=[HI], **{"a\nb": 1}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = [
    "prompt",
    "messages",
    "model",
    "max_tokens",
    "stop",
    "stream",
    "n",
    "response_format",
    "stream_options",
    "user",
]


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), JSON, max_size=4), st.sampled_from(Form))
def test_whatever_comes_is_passed_within_bounds_or_refused_as_a_request(body: dict[str, Any], form: Form) -> None:
    try:
        call = upstream_call(json.dumps(body).encode(), form, RULES)
    except RequestError:
        return
    assert {"model", "stream"} <= json.loads(call.body).keys()

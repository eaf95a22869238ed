"""A request for text, as callers may send it, made into one for the upstream: nothing passes that is not known here.

One rule for all: a field that is not in a table below, nor named by the operator, is refused under its name, before
anything is asked of anybody. So is a value beyond its bounds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import Any, Final

import orjson

from service.core.errors import InvalidField, RequestTooLarge, UnknownField, shorten
from service.core.names import is_foreign_name
from service.generation.rules import ROUTING, RequestRules
from service.protocols.json_body import read_json

MAX_TOKENS: Final = 256
TEMPERATURE: Final = 0.7
# Texts at which the model stops: so many, and so long.
STOPS: Final = 16
STOP_CHARS: Final = 256
LOGPROBS: Final = 20

_USER: Final = re.compile(r"[\x20-\x7e]{1,256}", re.ASCII)
_AUTHOR: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_ROLES: Final = ("system", "developer", "user", "assistant")
_NO_TEXT: Final = "only text is passed on"


class Form(Enum):
    """How the caller asks, and wants to be answered."""

    GENERATE = auto()  # in our words
    COMPLETIONS = auto()  # in OpenAI's
    CHAT = auto()


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """`path` is beneath the upstream's address. `is_chat` tells which form its answer has."""

    form: Form
    path: str
    body: bytes
    model: str
    is_chat: bool
    streams: bool


# Raises InvalidField where `value` is not what the field of this name takes.
Check = Callable[[str, Any, RequestRules], None]


def upstream_call(body: bytes, form: Form, rules: RequestRules, *, streams: bool = False) -> UpstreamCall:
    """What to ask the upstream. With `streams`, the caller has asked for a stream whatever the body says.

    Raises:
        UnreadableRequest: no JSON.
        InvalidField: a field is unknown, missing, or not as it should be; it is named.
        RequestTooLarge: too many messages, or too long a prompt.
    """
    return read_json(body, lambda given, _: _call(given, form, rules, streams))


def _call(given: Any, form: Form, rules: RequestRules, streams: bool) -> UpstreamCall:
    if not isinstance(given, dict):
        raise InvalidField("body", "a JSON object", shorten(given))
    _require_known(given, form, rules)
    given = {name: value for name, value in given.items() if value is not None}  # which clients send for what is unset
    is_chat = _is_chat(given, form)
    source = "messages" if is_chat else "prompt"
    checks = {**_CHECKS[form], source: _CHECKS_OF_TEXT[source]}
    for name, value in given.items():
        if name in checks:
            checks[name](name, value, rules)
        else:
            _refuse_routing(name, value)
    _require_stream_options(given)
    _require_size(given, source, rules)
    streams = streams or given.get("stream", False)
    asked: dict[str, Any] = {
        **given,
        "model": _model(given.get("model"), rules),
        "stream": streams,
    }
    if "max_completion_tokens" not in given:
        asked.setdefault("max_tokens", min(MAX_TOKENS, rules.max_tokens))
    if form is Form.GENERATE:
        asked.setdefault("temperature", TEMPERATURE)
        if streams:
            asked["stream_options"] = {"include_usage": True}
    path = "/chat/completions" if is_chat else "/completions"
    return UpstreamCall(form, path, orjson.dumps(asked), asked["model"], is_chat, streams)


def _require_known(given: Mapping[str, Any], form: Form, rules: RequestRules) -> None:
    known = FIELDS[form] | rules.parameters
    for name in given:
        if name not in known:
            raise UnknownField(_shown(name), f"fields among {', '.join(sorted(known))}")


def _is_chat(given: Mapping[str, Any], form: Form) -> bool:
    sources = [source for source in _SOURCES[form] if source in given]
    if not sources:
        raise InvalidField(_SOURCES[form][0], _EXPECTED[_SOURCES[form][0]], "none")
    if len(sources) > 1:
        raise InvalidField("prompt", "none beside messages", "one")
    return sources == ["messages"]


def _model(asked: str | None, rules: RequestRules) -> str:
    if rules.model is None:
        if asked is None:
            raise InvalidField("model", "the name of a model", "none")
        return asked
    if asked not in (None, rules.model):
        raise InvalidField("model", f"{rules.model!r} or none", shorten(asked))
    return rules.model


def _require_stream_options(given: Mapping[str, Any]) -> None:
    if "stream_options" in given and not given.get("stream", False):
        raise InvalidField("stream_options", 'none without "stream": true', "some")


def _require_size(given: Mapping[str, Any], source: str, rules: RequestRules) -> None:
    size = len(given[source].encode()) if source == "prompt" else len(orjson.dumps(given[source]))
    size += sum(len(orjson.dumps(given[name])) for name in rules.parameters & given.keys())
    if size > rules.max_prompt_bytes:
        raise RequestTooLarge(f"{source}: {size} bytes, and at most {rules.max_prompt_bytes} are passed on")


# What each kind of field takes.


def _whole(least: int, most: int | Callable[[RequestRules], int]) -> Check:
    def check(name: str, value: Any, rules: RequestRules) -> None:
        top = most if isinstance(most, int) else most(rules)
        if type(value) is not int or not least <= value <= top:
            raise InvalidField(name, f"a whole number from {least} to {top}", shorten(value))

    return check


def _number(least: float, most: float) -> Check:
    def check(name: str, value: Any, rules: RequestRules) -> None:
        if type(value) not in (int, float) or not least <= value <= most:
            raise InvalidField(name, f"a number from {least:g} to {most:g}", shorten(value))

    return check


def _truth(name: str, value: Any, rules: RequestRules) -> None:
    if type(value) is not bool:
        raise InvalidField(name, "true or false", shorten(value))


def _matching(fits: Callable[[str], Any], expected: str) -> Check:
    def check(name: str, value: Any, rules: RequestRules) -> None:
        if not isinstance(value, str) or not fits(value):
            raise InvalidField(name, expected, shorten(value))

    return check


def _stop(name: str, value: Any, rules: RequestRules) -> None:
    stops = value if isinstance(value, list) else [value]
    if not 1 <= len(stops) <= STOPS or not all(isinstance(s, str) and 1 <= len(s) <= STOP_CHARS for s in stops):
        raise InvalidField(
            name, f"a text or up to {STOPS} of them, each of 1 to {STOP_CHARS} characters", shorten(value)
        )


def _stream_options(name: str, value: Any, rules: RequestRules) -> None:
    _object(name, value, {"include_usage": lambda path, usage: _truth(path, usage, rules)})


def _response_format(name: str, value: Any, rules: RequestRules) -> None:
    def check_kind(path: str, kind: Any) -> None:
        if kind not in ("text", "json_object"):
            raise InvalidField(path, "text or json_object", shorten(kind))

    _object(name, value, {"type": check_kind}, required=("type",))


def _prompt(name: str, value: Any, rules: RequestRules) -> None:
    if not isinstance(value, str) or not value:
        raise InvalidField(name, _EXPECTED["prompt"], "an empty text" if value == "" else shorten(value))


def _messages(name: str, value: Any, rules: RequestRules) -> None:
    if not isinstance(value, list) or not value:
        raise InvalidField(name, _EXPECTED["messages"], "an empty list" if value == [] else shorten(value))
    if len(value) > rules.max_messages:
        raise RequestTooLarge(f"{name}: {len(value)} of them, and at most {rules.max_messages} are passed on")
    with_tools = "tools" in rules.parameters
    for number, message in enumerate(value):
        _message(f"{name}[{number}]", message, with_tools=with_tools)


def _message(path: str, message: Any, *, with_tools: bool) -> None:
    def check_role(path: str, role: Any) -> None:
        roles = (*_ROLES, "tool") if with_tools else _ROLES
        if role not in roles:
            raise InvalidField(path, f"one of {', '.join(roles)}", shorten(role))

    def check_author(path: str, author: Any) -> None:
        if not isinstance(author, str) or not _AUTHOR.fullmatch(author):
            raise InvalidField(path, "up to 64 letters, digits, dashes and underscores", shorten(author))

    fields: dict[str, Callable[[str, Any], None]] = {"role": check_role, "content": _content, "name": check_author}
    if with_tools:
        fields |= {"tool_calls": _refuse_routing, "tool_call_id": check_author}
        if isinstance(message, dict) and "tool_calls" in message:
            fields["content"] = lambda path, content: None if content is None else _content(path, content)
    _object(path, message, fields, required=("role", "content"))


def _content(path: str, content: Any) -> None:
    """A text, or parts of which each is one: images, sounds and files would have the upstream fetch what they name."""
    if isinstance(content, str):
        return
    if not isinstance(content, list) or not content:
        raise InvalidField(path, f"a text, or a list of parts ({_NO_TEXT})", shorten(content))
    for number, part in enumerate(content):
        if isinstance(part, dict) and "type" in part:  # before what comes along with it
            _text_type(f"{path}[{number}].type", part["type"])
        _object(f"{path}[{number}]", part, {"type": _text_type, "text": _text}, required=("type", "text"))


def _text_type(path: str, kind: Any) -> None:
    if kind != "text":
        raise InvalidField(path, f"'text' ({_NO_TEXT})", shorten(kind))


def _text(path: str, text: Any) -> None:
    if not isinstance(text, str):
        raise InvalidField(path, "a text", shorten(text))


def _object(
    path: str, value: Any, fields: Mapping[str, Callable[[str, Any], None]], required: tuple[str, ...] = ()
) -> None:
    if not isinstance(value, dict):
        raise InvalidField(path, "an object", shorten(value))
    for name in value:
        if name not in fields:
            raise UnknownField(f"{path}.{_shown(name)}", f"fields among {', '.join(fields)}")
    for name in required:
        if name not in value:
            raise InvalidField(f"{path}.{name}", "it to be there", "none")
    for name, check in fields.items():
        if name in value:
            check(f"{path}.{name}", value[name])


def _refuse_routing(path: str, value: Any) -> None:
    """The operator's own parameters pass as they are, but for names that could choose where a request goes."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name.lower() in ROUTING:
                raise UnknownField(f"{path}.{_shown(name)}", "no name of an address or a header")
            _refuse_routing(path, part)
    elif isinstance(value, list):
        for part in value:
            _refuse_routing(path, part)


def _shown(name: str) -> str:
    """A name that the caller chose, in one line."""
    return name if _AUTHOR.fullmatch(name) else shorten(name)


_EXPECTED: Final = {
    "prompt": "a text",
    "messages": 'a list of messages such as {"role": "user", "content": "…"}',
}
_SOURCES: Final[Mapping[Form, tuple[str, ...]]] = {
    Form.GENERATE: ("prompt", "messages"),
    Form.COMPLETIONS: ("prompt",),
    Form.CHAT: ("messages",),
}
_CHECKS_OF_TEXT: Final[Mapping[str, Check]] = {"prompt": _prompt, "messages": _messages}
_TOKENS: Final = _whole(1, lambda rules: rules.max_tokens)
_CHOICES: Final = _whole(1, lambda rules: rules.max_n)
_COMMON: Final[Mapping[str, Check]] = {
    "model": _matching(is_foreign_name, "the name of a model"),
    "max_tokens": _TOKENS,
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "stop": _stop,
    "seed": _whole(-(2**63), 2**63 - 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "user": _matching(_USER.fullmatch, "up to 256 printable ASCII characters"),
    "response_format": _response_format,
    "stream": _truth,
}
_OPENAI: Final[Mapping[str, Check]] = {**_COMMON, "n": _CHOICES, "stream_options": _stream_options}
_CHECKS: Final[Mapping[Form, Mapping[str, Check]]] = MappingProxyType(
    {
        Form.GENERATE: _COMMON,  # whose answer is one text
        Form.COMPLETIONS: {**_OPENAI, "best_of": _CHOICES, "logprobs": _whole(0, LOGPROBS)},
        Form.CHAT: {
            **_OPENAI,
            "max_completion_tokens": _TOKENS,
            "logprobs": _truth,
            "top_logprobs": _whole(0, LOGPROBS),
        },
    }
)
# What a request of each form may have.
FIELDS: Final[Mapping[Form, frozenset[str]]] = {form: frozenset({*_CHECKS[form], *_SOURCES[form]}) for form in Form}

"""What the upstream answers, made into what callers get: its texts, and none of its words about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import orjson

from service.core.errors import InvalidRequest, RateLimited, TandemError, UpstreamFailed
from service.generation.events import MEDIA_TYPE, Event, event
from service.generation.requests import Form, UpstreamCall
from service.protocols.http import JSON
from service.protocols.media import media_type

DONE: Final = "[DONE]"
USAGE: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
# Of an answer that says no, this much is read.
ERROR_BYTES: Final = 64 * 1024
LONGEST_WAIT_S: Final = 3600

# What servers call a prompt, with its answer, that is longer than the model can hold: the one thing of which callers
# can mend that the upstream alone knows.
_TOO_LONG: Final = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_NO_ANSWER: Final = "what the language model answered is no answer"


class Relay(Protocol):
    """Makes the events of a caller's stream from those of the upstream's."""

    usage: dict[str, int] | None
    is_done: bool
    has_text: bool

    def take(self, came: Event) -> bytes:
        """What to pass on now; nothing where it is empty. Raises UpstreamFailed where the event is none of a model."""
        ...

    def end(self) -> bytes:
        """What to pass on last. Raises UpstreamFailed where the upstream ended before the text did."""
        ...

    def failed(self, problem: bytes) -> bytes:
        """What to pass on instead of the rest; `problem` is JSON."""
        ...


def relay_of(call: UpstreamCall) -> Relay:
    return _Told(call) if call.form is Form.GENERATE else _Passed()


def require_kind(headers: Mapping[str, str], call: UpstreamCall) -> None:
    """Raises UpstreamFailed where an answer with these headers (names in small letters) is not what was asked for."""
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UpstreamFailed("the language model compressed its answer, though it was asked not to")
    expected = MEDIA_TYPE if call.streams else JSON
    if media_type(headers.get("content-type", "")).name != expected:
        raise UpstreamFailed(f"the language model answered with something else than {expected}")


def refusal_of(status: int, headers: Mapping[str, str], body: bytes) -> TandemError:
    """What an answer with this status means for the caller. Of what it says nothing is repeated."""
    if status == 429:
        return RateLimited("the language model takes no more requests now", _wait_s(headers.get("retry-after", "")))
    if status in (400, 413, 422) and _TOO_LONG & set(_codes(body)):
        return InvalidRequest("the prompt and max_tokens together are more than the language model can hold")
    if 300 <= status < 400:
        return UpstreamFailed(f"the language model sent its caller elsewhere (status {status})")
    if status in (401, 403):
        return UpstreamFailed(f"the language model does not let this service in (status {status})")
    if status == 404:
        return UpstreamFailed("the language model, or its route, is not there (status 404)")
    if 400 <= status < 500:
        return UpstreamFailed(f"the language model refused the request (status {status})")
    return UpstreamFailed(f"the language model answered with status {status}")


def reply_of(body: bytes, call: UpstreamCall) -> tuple[bytes, dict[str, int] | None]:
    """The answer to a caller who wants it as a whole, and its usage.

    Raises:
        UpstreamFailed: it is an error, or no answer.
    """
    answer = _object(body)
    usage = _usage(answer)
    choices = _choices(answer)
    if not choices:
        raise UpstreamFailed(_NO_ANSWER)
    texts = [_text(choice, "message" if call.is_chat else None) for choice in choices]
    if call.form is not Form.GENERATE:
        return body, usage
    text, reason = texts[0], _reason(choices[0])
    if text is None:
        raise UpstreamFailed(_NO_ANSWER)
    return orjson.dumps({"text": text, "finish_reason": reason, "model": call.model, "usage": usage}), usage


class _Told:
    """The events of `/v1/generate/stream`: one for each piece of the text, then why it ended, then `[DONE]`."""

    def __init__(self, call: UpstreamCall) -> None:
        self.usage: dict[str, int] | None = None
        self.is_done = False
        self.has_text = False
        self._part = "delta" if call.is_chat else None
        self._reason: str | None = None

    def take(self, came: Event) -> bytes:
        if came.data == DONE:
            self.is_done = True
            return b""
        chunk = _chunk(came)
        self.usage = _usage(chunk) or self.usage
        text = None
        for choice in _choices(chunk)[:1]:
            text = _text(choice, self._part)
            self._reason = _reason(choice) or self._reason
        if not text:
            return b""
        self.has_text = True
        return event(orjson.dumps({"text": text}))

    def end(self) -> bytes:
        _require_end(self.is_done, self._reason)
        about = {"finish_reason": self._reason, "usage": self.usage}
        return event(orjson.dumps(about)) + event(DONE.encode())

    def failed(self, problem: bytes) -> bytes:
        return event(problem, b"error")


class _Passed:
    """OpenAI's own events, as they came, once each is known to be one."""

    def __init__(self) -> None:
        self.usage: dict[str, int] | None = None
        self.is_done = False
        self.has_text = False
        self._reason: str | None = None

    def take(self, came: Event) -> bytes:
        if came.data == DONE:
            self.is_done = True
            return b""
        chunk = _chunk(came)
        self.usage = _usage(chunk) or self.usage
        for choice in _choices(chunk):
            self.has_text = self.has_text or bool(_text(choice, "delta") or _text(choice, None))
            self._reason = _reason(choice) or self._reason
        return event(came.data.encode())

    def end(self) -> bytes:
        _require_end(self.is_done, self._reason)
        return event(DONE.encode())

    def failed(self, problem: bytes) -> bytes:
        return event(problem)  # OpenAI's client looks for an `error` in any event


def _require_end(is_done: bool, reason: str | None) -> None:
    """Not every server says `[DONE]`, but each says why a text ends."""
    if not is_done and reason is None:
        raise UpstreamFailed("the language model broke off in the middle of its answer")


def _chunk(came: Event) -> dict[str, Any]:
    if came.name == "error":
        raise UpstreamFailed("the language model failed in the middle of its answer")
    return _object(came.data.encode())


def _object(body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UpstreamFailed("what the language model answered is no JSON") from None
    if not isinstance(answer, dict):
        raise UpstreamFailed(_NO_ANSWER)
    if answer.get("error") is not None:
        raise UpstreamFailed("the language model answered with an error")
    return answer


def _choices(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise UpstreamFailed(_NO_ANSWER)
    return choices


def _text(choice: Mapping[str, Any], part: str | None) -> str | None:
    """Of a choice of completions, or of the `part` of a chat's that has it."""
    holder = choice if part is None else choice.get(part)
    if part is not None and holder is None:
        return None
    if not isinstance(holder, dict):
        raise UpstreamFailed(_NO_ANSWER)
    text = holder.get("text" if part is None else "content")
    if text is not None and not isinstance(text, str):
        raise UpstreamFailed(_NO_ANSWER)
    return text


def _reason(choice: Mapping[str, Any]) -> str | None:
    reason = choice.get("finish_reason")
    if reason is not None and not isinstance(reason, str):
        raise UpstreamFailed(_NO_ANSWER)
    return reason


def _usage(answer: Mapping[str, Any]) -> dict[str, int] | None:
    """Its counts of tokens, where it has such; what else stands there is its own."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return None
    counts = {name: usage[name] for name in USAGE if name in usage}
    return counts if counts and all(type(count) is int and 0 <= count < 2**53 for count in counts.values()) else None


def _codes(body: bytes) -> list[str]:
    try:
        error = orjson.loads(body)["error"]
        return [code for name in ("code", "type") if isinstance(code := error.get(name), str)]
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return []


def _wait_s(retry_after: str) -> int:
    """Seconds; a date, which few send, counts as one second."""
    digits = retry_after.strip()
    return min(max(1, int(digits)), LONGEST_WAIT_S) if digits.isascii() and digits.isdigit() and len(digits) < 9 else 1

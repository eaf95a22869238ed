"""What the OpenAPI document says of the routes that make text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.generation.events import MEDIA_TYPE
from service.generation.requests import LOGPROBS, MAX_TOKENS, STOP_CHARS, STOPS, TEMPERATURE
from service.protocols.http import JSON, PROBLEM

_TEXT: Final = {"type": "string"}
_STOP: Final = {"type": "string", "minLength": 1, "maxLength": STOP_CHARS}
_PROMPT: Final = {"type": "string", "minLength": 1}
_PART: Final = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": _TEXT},
    "required": ["type", "text"],
    "additionalProperties": False,
}
_MESSAGES: Final = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "role": {"enum": ["system", "developer", "user", "assistant"]},
            "content": {"anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": _PART}]},
            "name": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
        },
        "required": ["role", "content"],
    },
}
_COMMON: Final[Mapping[str, Any]] = {
    "model": {"type": "string", "description": "Needed only where the service has no model of its own"},
    "max_tokens": {"type": "integer", "minimum": 1, "default": MAX_TOKENS},
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "top_p": {"type": "number", "minimum": 0, "maximum": 1},
    "stop": {"anyOf": [_STOP, {"type": "array", "minItems": 1, "maxItems": STOPS, "items": _STOP}]},
    "seed": {"type": "integer"},
    "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "user": {"type": "string", "pattern": "^[ -~]{1,256}$"},
    "response_format": {
        "type": "object",
        "properties": {"type": {"enum": ["text", "json_object"]}},
        "required": ["type"],
        "additionalProperties": False,
    },
    "stream": {"type": "boolean", "default": False},
}
_OPENAI: Final[Mapping[str, Any]] = {
    **_COMMON,
    "n": {"type": "integer", "minimum": 1},
    "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
}
_GENERATE: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "prompt": _PROMPT,
        "messages": _MESSAGES,
        **_COMMON,
        "temperature": {**_COMMON["temperature"], "default": TEMPERATURE},
    },
    "oneOf": [{"required": ["prompt"]}, {"required": ["messages"]}],
}
_COMPLETIONS: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "prompt": _PROMPT,
        **_OPENAI,
        "best_of": {"type": "integer", "minimum": 1},
        "logprobs": {"type": "integer", "minimum": 0, "maximum": LOGPROBS},
    },
    "required": ["prompt"],
}
_CHAT: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "messages": _MESSAGES,
        **_OPENAI,
        "max_completion_tokens": {"type": "integer", "minimum": 1},
        "logprobs": {"type": "boolean"},
        "top_logprobs": {"type": "integer", "minimum": 0, "maximum": LOGPROBS},
    },
    "required": ["messages"],
}
_ANSWER: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "text": _TEXT,
        "finish_reason": {"type": ["string", "null"]},
        "model": _TEXT,
        "usage": {"type": ["object", "null"], "additionalProperties": {"type": "integer"}},
    },
    "required": ["text", "finish_reason", "model", "usage"],
}
_ERROR: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": _TEXT,
                "type": _TEXT,
                "param": {"type": ["string", "null"]},
                "code": _TEXT,
            },
        }
    },
}
_CODES: Final = {
    "400": "The body is no JSON",
    "401": "No key came, or none that is known",
    "403": "The key is not for that",
    "404": "The key is not for this model",
    "413": "The prompt is too long, or there are too many messages",
    "415": "The body is not application/json",
    "422": "A field is unknown, or not as it should be: the answer names it",
    "429": "This caller, or this service, asks the language model too often",
    "502": "The language model cannot be reached, or answered with something else than text",
    "503": "The language model is left alone for a while, or as many texts are being made as there may be",
    "504": "The language model did not begin, go on or end in time",
}
_STREAM: Final = {MEDIA_TYPE: {"schema": _TEXT}}


def _operation(request: Mapping[str, Any], answer: Mapping[str, Any], error: Mapping[str, Any]) -> dict[str, Any]:
    """`answer` and `error` are contents by media type."""
    refused = {code: {"description": text, "content": error} for code, text in _CODES.items()}
    return {
        "requestBody": {"required": True, "content": {JSON: {"schema": request}}},
        "responses": {"200": {"description": "The text", "content": answer}, **refused},
    }


_PROBLEM: Final = {PROBLEM: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
_OPENAI_ERROR: Final = {JSON: {"schema": _ERROR}}
_ANY: Final = {JSON: {"schema": {"type": "object"}}, **_STREAM}
OPERATIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "/v1/generate": _operation(_GENERATE, {JSON: {"schema": _ANSWER}, **_STREAM}, _PROBLEM),
    "/v1/generate/stream": _operation(_GENERATE, _STREAM, _PROBLEM),
    "/v1/completions": _operation(_COMPLETIONS, _ANY, _OPENAI_ERROR),
    "/v1/chat/completions": _operation(_CHAT, _ANY, _OPENAI_ERROR),
}

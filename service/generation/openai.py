"""How OpenAI's clients are told what is wrong."""

from __future__ import annotations

from typing import Final

import orjson

from service.core.errors import InvalidField
from service.protocols.http import JSON, HttpReply
from service.protocols.route import Dialect
from service.protocols.status import refusal_of

_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def openai_error(error: BaseException, request_id: str) -> HttpReply:
    """`{"error": {"message", "type", "param", "code"}}`, with the status that the error has everywhere."""
    refusal = refusal_of(error)
    kind = _TYPES.get(refusal.status, "invalid_request_error" if refusal.status < 500 else "server_error")
    param = refusal.error.field if isinstance(refusal.error, InvalidField) else None
    content = {"message": str(refusal.error), "type": kind, "param": param, "code": refusal.kind.replace("-", "_")}
    return HttpReply(refusal.status, orjson.dumps({"error": content}), JSON, refusal.headers)


OPENAI: Final = Dialect("openai", openai_error)

"""The one table that knows HTTP codes, and the problem details (RFC 9457) that go with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson
from pydantic import BaseModel

from service.core import errors
from service.core.errors import TandemError
from service.protocols.http import PROBLEM, HttpReply

# Most specific first: the first class that fits an error decides.
STATUS: Final[tuple[tuple[type[TandemError], int, str], ...]] = (
    (errors.UnreadableRequest, 400, "unreadable-request"),
    (errors.UnsupportedCoding, 415, "unsupported-coding"),
    (errors.UnsupportedMediaType, 415, "unsupported-media-type"),
    (errors.NotAcceptable, 406, "not-acceptable"),
    (errors.Unauthenticated, 401, "unauthenticated"),
    (errors.NotAllowed, 403, "not-allowed"),
    (errors.WrongHost, 421, "wrong-host"),
    (errors.RateLimited, 429, "rate-limited"),
    (errors.NotOffered, 501, "not-offered"),
    (errors.UpgradeRequired, 426, "upgrade-required"),
    (errors.ReplyTooLarge, 413, "reply-too-large"),
    (errors.NotReceived, 408, "not-received"),
    (errors.RequestTooLarge, 413, "request-too-large"),
    (errors.TargetTooLong, 414, "url-too-long"),
    (errors.HeadersTooLarge, 431, "headers-too-large"),
    (errors.UnknownRoute, 404, "unknown-route"),
    (errors.UnknownModel, 404, "unknown-model"),
    (errors.UnknownVersion, 404, "unknown-version"),
    (errors.UnknownLabel, 404, "unknown-label"),
    (errors.AlreadyLoaded, 409, "already-loaded"),
    (errors.MethodNotAllowed, 405, "method-not-allowed"),
    (errors.InvalidRows, 422, "invalid-rows"),
    (errors.RowsRefused, 422, "rows-refused"),
    (errors.NotRepresentable, 422, "not-representable"),
    (errors.UnknownField, 422, "unknown-field"),
    (errors.InvalidField, 422, "invalid-field"),
    (errors.InvalidRequest, 422, "invalid-request"),
    (errors.Overloaded, 503, "overloaded"),
    (errors.Unavailable, 503, "unavailable"),
    (errors.DeadlinePassed, 504, "deadline-passed"),
    (errors.UpstreamFailed, 502, "upstream-failed"),
    (errors.ModelFailed, 500, "internal-error"),
)


_FOR_CALLERS: Final = tuple(kind for kind, _, _ in STATUS)

# Proxies and logs cut long lines: an answer that says no stays below this, however long names and values are.
PROBLEM_BYTES: Final = 8 * 1024 - 1


class CellProblem(BaseModel):
    """One thing wrong with the rows. `row` counts from zero; null means every row, or the request as a whole."""

    row: int | None
    column: str | None
    expected: str
    got: str


class ProblemDetails(BaseModel):
    """Why a request was not answered (RFC 9457, application/problem+json)."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[CellProblem] | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a caller is told of an error, whatever the dialect: `error` holds nothing of the service's inside."""

    status: int
    kind: str
    error: TandemError
    headers: dict[str, str]


def refusal_of(error: BaseException) -> Refusal:
    """One that the table does not know says nothing but that it happened: an exception of a library may
    quote paths or data, and an ArtefactError is for operators.
    """
    status, kind = _entry(error)
    known = error if isinstance(error, _FOR_CALLERS) else errors.ModelFailed()
    headers: dict[str, str] = {}
    if isinstance(known, errors.MethodNotAllowed):
        headers["allow"] = ", ".join(known.allowed)
    if isinstance(known, errors.Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    if isinstance(known, errors.Unavailable | errors.RateLimited):
        headers["retry-after"] = str(known.retry_after_s)
    if isinstance(known, errors.UpgradeRequired):
        headers |= {"upgrade": "websocket", "sec-websocket-version": "13"}
    if isinstance(known, errors.UnsupportedCoding):
        headers["accept-encoding"] = "gzip, deflate"
    return Refusal(status, kind, known, headers)


def problem_reply(error: BaseException, request_id: str) -> HttpReply:
    """The reply for `error` in Tandem's own dialect."""
    refusal = refusal_of(error)
    return HttpReply(refusal.status, within_limit(problem_of(refusal, request_id=request_id)), PROBLEM, refusal.headers)


def problem_of(refusal: Refusal, **more: Any) -> dict[str, Any]:
    """What a caller reads of it, with `more` behind what every problem says."""
    content: dict[str, Any] = {
        "type": f"urn:tandem:problem:{refusal.kind}",
        "title": refusal.error.title,
        "status": refusal.status,
        "detail": str(refusal.error),
        **more,
    }
    if isinstance(refusal.error, errors.InvalidRows):
        content["errors"] = [
            {"row": p.row, "column": p.column, "expected": p.expected, "got": p.got} for p in refusal.error.problems
        ]
    return content


def within_limit(content: dict[str, Any]) -> bytes:
    """The content as JSON, with as many of its errors as PROBLEM_BYTES allow, and at least one."""
    body = orjson.dumps(content)
    while len(body) > PROBLEM_BYTES and len(content.get("errors", ())) > 1:
        content["errors"].pop()
        body = orjson.dumps(content)
    return body


def _entry(error: BaseException) -> tuple[int, str]:
    kind = type(error)
    entry = _entries.get(kind)
    if entry is None:
        found = ((status, name) for known, status, name in STATUS if issubclass(kind, known))
        entry = _entries[kind] = next(found, (500, "internal-error"))
    return entry


# A busy service refuses thousands of requests a second, for a handful of reasons.
_entries: Final[dict[type[BaseException], tuple[int, str]]] = {}

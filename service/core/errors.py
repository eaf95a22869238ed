"""What can go wrong, said in the words of serving.

An error carries values, never a status number: `protocols/status.py` is the one
table that knows HTTP codes. `str(error)` is shown to callers, so it holds nothing
of the server's inside (no paths, no tracebacks).

    TandemError
    ├── RequestError                  the caller can mend it
    │   ├── UnreadableRequest         the bytes are not what they claim to be
    │   ├── UnsupportedMediaType
    │   │   └── UnsupportedCoding
    │   ├── NotAcceptable             no form of the answer is one that the caller takes
    │   ├── NotOffered                a part of a protocol that is not there
    │   ├── UpgradeRequired           this path speaks WebSocket
    │   ├── Unauthenticated           nobody knows who asks
    │   ├── NotAllowed                what only the operator may do, or whom the operator lets
    │   ├── WrongHost                 the request was meant for somebody else
    │   ├── RateLimited               this caller asks too often
    │   ├── RequestTooLarge, HeadersTooLarge, TargetTooLong
    │   ├── NotReceived               not all of it came in time
    │   │   └── ReplyTooLarge         so would be the answer
    │   ├── UnknownRoute, MethodNotAllowed
    │   ├── UnknownModel, UnknownVersion, UnknownLabel
    │   ├── AlreadyLoaded
    │   ├── InvalidRequest            readable, but wrong for this model
    │   │   ├── InvalidRows           names row, column, expected, got
    │   │   ├── RowsRefused           the estimator itself refused the rows
    │   │   ├── NotRepresentable      only the estimator could answer, and its file stays closed
    │   │   └── InvalidField          names the field of a request that is wrong
    │   │       └── UnknownField
    ├── Unavailable                   trying again helps
    │   └── Overloaded                the queue is full
    ├── DeadlinePassed
    │   └── UpstreamSilent            the server that was asked did not go on
    ├── UpstreamFailed                the server that was asked gave no answer that could be passed on
    ├── CannotAnswer                  never seen by callers: another engine must answer these rows
    ├── ModelFailed                   the model or this service has a bug
    └── ArtefactError                 a model on disk cannot be used (`artefact_errors.py`)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from service.core.table import Values


class TandemError(Exception):
    """Root of the tree. `title` is the short name of the kind of problem."""

    title = "Error"

    @property
    def for_log(self) -> str:
        """What the log says of it. A caller may be shown its own values; a log holds nobody's."""
        return str(self)


class RequestError(TandemError):
    """The caller sent something this service cannot answer."""

    title = "Bad request"


class UnreadableRequest(RequestError):
    """The body is not the JSON (or the encoding) it claims to be."""

    title = "Unreadable request"


class UnsupportedMediaType(RequestError):
    title = "Unsupported media type"


class UnsupportedCoding(UnsupportedMediaType):
    """The body is compressed in a way that is not read here."""

    def __init__(self, coding: str) -> None:
        super().__init__(f"the body is coded with {coding[:30]!r}; gzip and deflate are read")


class NotAcceptable(RequestError):
    title = "Not acceptable"


class NotAllowed(RequestError):
    title = "Not allowed"


class Unauthenticated(RequestError):
    """No credentials came, or none that are known. It is not said which, nor how near they were."""

    title = "Not authenticated"

    def __init__(self) -> None:
        super().__init__("a valid key is needed: send it as Authorization: Bearer KEY, or as X-API-Key")


class WrongHost(RequestError):
    """The Host of the request is not one that this service answers for."""

    title = "Misdirected request"

    def __init__(self, host: str) -> None:
        super().__init__(f"this service does not answer for the host {shorten(host)}")


class RateLimited(RequestError):
    """This caller asks too often. Trying again after `retry_after_s` seconds helps."""

    title = "Too many requests"

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class UpgradeRequired(RequestError):
    """An ordinary request where only a WebSocket begins."""

    title = "Upgrade required"


class NotOffered(RequestError):
    """A part of a protocol that this service does not have."""

    title = "Not offered"


class HeadersTooLarge(RequestError):
    """The headers, one of them or all together, are larger than this service reads."""

    title = "Headers too large"


class TargetTooLong(RequestError):
    """The URL is longer than this service reads."""

    title = "URL too long"


class NotReceived(RequestError):
    """The request did not come within the time that there is for it. Its sender waits for nothing of ours."""

    title = "Request not received in time"

    def __init__(self, part: str, seconds: float) -> None:
        super().__init__(f"the {part} of the request did not come within {seconds:g} s")


class RequestTooLarge(RequestError):
    title = "Request too large"


class ReplyTooLarge(RequestTooLarge):
    """What was asked for is more than one answer may be."""

    title = "Reply too large"

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"the answer would be {size} bytes, and at most {limit} are sent; ask for fewer rows or outputs at once"
        )


class UnknownRoute(RequestError):
    title = "Not found"

    def __init__(self) -> None:
        super().__init__("there is no such route; GET /openapi.json lists the routes")


class MethodNotAllowed(RequestError):
    title = "Method not allowed"

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"this route answers {', '.join(allowed)}")
        self.method = method
        self.allowed = tuple(allowed)


class UnknownModel(RequestError):
    title = "Unknown model"

    def __init__(self, detail: str = "there is no such model; GET /models lists the models") -> None:
        super().__init__(detail)


class UnknownVersion(RequestError):
    title = "Unknown version"

    def __init__(self, model: str, versions: Sequence[int]) -> None:
        super().__init__(f"model {model!r} serves no such version; it serves {', '.join(map(str, versions)) or 'none'}")


class UnknownLabel(RequestError):
    title = "Unknown label"

    def __init__(self, model: str, labels: Collection[str]) -> None:
        super().__init__(
            f"model {model!r} has no such label on a served version; it has {', '.join(sorted(labels)) or 'none'}"
        )


class AlreadyLoaded(RequestError):
    """Somebody who counts on a model being absent asks for it to be loaded."""

    title = "Already loaded"

    def __init__(self, model: str) -> None:
        super().__init__(f"model {model[:100]!r} is loaded already")


class InvalidRequest(RequestError):
    """Readable, but wrong for this model."""

    title = "Invalid request"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the rows: where, what was expected, and what came.

    `row` counts from zero; None means the request as a whole, or every row.
    """

    row: int | None
    column: str | None
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.without_value}, got {self.got}"

    @property
    def without_value(self) -> str:
        places = []
        if self.row is not None:
            places.append(f"row {self.row}")
        if self.column is not None:
            places.append(f"column {self.column!r}")
        where = f"{', '.join(places)}: " if places else ""
        return f"{where}expected {self.expected}"


class InvalidRows(InvalidRequest):
    """Some values do not fit the signature. `problems` is never empty; `count` may exceed its length."""

    title = "Invalid rows"

    def __init__(self, problems: Sequence[Problem], count: int | None = None) -> None:
        self.problems = tuple(problems)
        self.count = len(self.problems) if count is None else count
        super().__init__(f"{self.problems[0]}{self._more}")

    @property
    def for_log(self) -> str:
        return f"{self.problems[0].without_value}{self._more}"

    @property
    def _more(self) -> str:
        return f" (and {self.count - 1} more)" if self.count > 1 else ""


class RowsRefused(InvalidRequest):
    """The estimator raised ValueError on rows that fit its signature.

    Its own words may quote data or name paths, so they go to the log, not to the caller.
    """

    title = "Rows refused by the model"

    def __init__(self) -> None:
        super().__init__("the model refused these rows, although they fit its signature")


class NotRepresentable(InvalidRequest):
    """No compiled engine can answer these rows, and the model file must not be opened (`pickle: never`)."""

    title = "Not representable"

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}; only the estimator itself could answer, and this service does not open model files")


class InvalidField(InvalidRequest):
    """One field of the request is wrong. `field` is its path, as in `messages[2].content`."""

    def __init__(self, field: str, expected: str, got: str) -> None:
        super().__init__(f"{field}: expected {expected}, got {got}")
        self.field = field
        self._expected = expected

    @property
    def for_log(self) -> str:
        return f"{self.field}: expected {self._expected}"


class UnknownField(InvalidField):
    """The caller chose its name, so that the log does not have it."""

    def __init__(self, field: str, known: str) -> None:
        super().__init__(field, known, "a field of this name")

    @property
    def for_log(self) -> str:
        return "a field of an unknown name"


class Unavailable(TandemError):
    """Trying again after `retry_after_s` seconds may help."""

    title = "Service unavailable"

    def __init__(self, detail: str, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    """More rows or bytes wait than the queue may hold; nothing of this request was computed."""

    title = "Too much is waiting"


class DeadlinePassed(TandemError):
    title = "Deadline passed"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} seconds")


class UpstreamSilent(DeadlinePassed):
    """Another server was asked, and did not answer, or did not go on, in time."""

    def __init__(self, seconds: float, what: str) -> None:
        TandemError.__init__(self, f"the language model {what} within {seconds:g} seconds")


class UpstreamFailed(TandemError):
    """Another server was asked, and what came is no answer. Its own words are for nobody: they may quote a prompt,
    and name paths. `reason` is for the log."""

    title = "Upstream failed"

    def __init__(self, detail: str, reason: str | None = None) -> None:
        super().__init__(detail)
        self._reason = reason

    @property
    def for_log(self) -> str:
        return f"{self} ({self._reason})" if self._reason else str(self)


class ModelFailed(TandemError):
    """The model, or this service, failed in a way the caller cannot mend."""

    title = "Internal error"

    def __init__(self) -> None:
        super().__init__("the request failed inside the service; the log knows more under this request id")


class CannotAnswer(TandemError):
    """An engine met rows it must not answer: a value it cannot hold, or a label too close to call.

    `rows` is a mask of shape (rows,), True for these; `answers` hold the other rows' answers, and
    anything in these. None means that nothing was computed. The router asks a more exact engine.
    """

    def __init__(self, why: str, rows: NDArray[np.bool_], answers: dict[str, Values] | None = None) -> None:
        super().__init__(why)
        self.rows = rows
        self.answers = answers


def shorten(value: Any, limit: int = 60) -> str:
    """`value` as a caller may see it: one line of JSON-like text, never a copy of a whole body."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case list():
            return f"a list of {len(value)}"
        case dict():
            return f"an object of {len(value)}"
        case int() if value.bit_length() > 256:
            return "an integer of more than 77 digits"
        case str():
            # The slice comes first: the repr of a 10 MB string would be built only to be thrown away.
            text = repr(value[:limit])
        case _:
            text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"

from __future__ import annotations

import pytest

from service.core import artefact_errors, errors
from service.core.errors import InvalidRows, Problem, TandemError
from service.protocols.status import STATUS, ProblemDetails, problem_reply
from tests.service.protocols.fake_server import content_of

SECRET = "/srv/models/shop/3/model.joblib"

CODES = [
    pytest.param(errors.UnreadableRequest("x"), 400, "unreadable-request", id="unreadable"),
    pytest.param(errors.UnknownRoute(), 404, "unknown-route", id="route"),
    pytest.param(errors.UnknownModel(), 404, "unknown-model", id="model"),
    pytest.param(errors.UnknownVersion("shop", [1]), 404, "unknown-version", id="version"),
    pytest.param(errors.UnknownLabel("shop", ["stable"]), 404, "unknown-label", id="label"),
    pytest.param(errors.MethodNotAllowed("PUT", ["GET"]), 405, "method-not-allowed", id="method"),
    pytest.param(errors.NotAcceptable("x"), 406, "not-acceptable", id="acceptable"),
    pytest.param(errors.RequestTooLarge("x"), 413, "request-too-large", id="large"),
    pytest.param(errors.UnsupportedMediaType("x"), 415, "unsupported-media-type", id="media type"),
    pytest.param(InvalidRows([Problem(0, "a", "a number", "true")]), 422, "invalid-rows", id="rows"),
    pytest.param(errors.RowsRefused(), 422, "rows-refused", id="refused by the model"),
    pytest.param(errors.InvalidRequest("x"), 422, "invalid-request", id="invalid"),
    pytest.param(errors.ModelFailed(), 500, "internal-error", id="model failed"),
    pytest.param(errors.Unavailable("x"), 503, "unavailable", id="unavailable"),
    pytest.param(errors.DeadlinePassed(1), 504, "deadline-passed", id="deadline"),
]


@pytest.mark.parametrize(("error", "status", "kind"), CODES)
def test_each_error_has_its_code_and_its_type(error: TandemError, status: int, kind: str) -> None:
    reply = problem_reply(error, "req-1")

    assert (reply.status, reply.content_type) == (status, "application/problem+json")
    assert content_of(reply) | {"errors": None} == {
        "type": f"urn:tandem:problem:{kind}",
        "title": error.title,
        "status": status,
        "detail": str(error),
        "request_id": "req-1",
        "errors": None,
    }
    ProblemDetails.model_validate_json(reply.body, strict=True)


def test_no_row_of_the_table_hides_behind_an_earlier_one() -> None:
    kinds = [kind for kind, _, _ in STATUS]

    assert not [(a, b) for i, a in enumerate(kinds) for b in kinds[i + 1 :] if issubclass(b, a)]


def test_every_error_of_a_request_is_in_the_table() -> None:
    def leaves(kind: type[TandemError]) -> set[type[TandemError]]:
        below = kind.__subclasses__()
        return {kind} if not below else set().union(*map(leaves, below))

    asked = leaves(errors.RequestError) | {errors.Unavailable, errors.DeadlinePassed, errors.ModelFailed}

    assert asked <= {kind for kind, _, _ in STATUS}


def test_cells_are_named_one_by_one() -> None:
    error = InvalidRows([Problem(None, "a", "a list of values", "nothing"), Problem(2, "b", "a number", '"x"')])

    assert content_of(problem_reply(error, "req-1"))["errors"] == [
        {"row": None, "column": "a", "expected": "a list of values", "got": "nothing"},
        {"row": 2, "column": "b", "expected": "a number", "got": '"x"'},
    ]


def test_errors_are_listed_as_far_as_eight_kibibytes_allow() -> None:
    problems = [Problem(row, "\x01" * 60, "ä" * 600, "\N{GRINNING FACE}" * 60) for row in range(20)]

    reply = problem_reply(InvalidRows(problems, 10_000), "r" * 128)

    assert 4096 < len(reply.body) < 8192
    assert [cell["row"] for cell in content_of(reply)["errors"]] == list(range(len(content_of(reply)["errors"])))


def test_one_error_is_always_listed() -> None:
    reply = problem_reply(InvalidRows([Problem(0, "c" * 10_000, "a number", "true")] * 2), "req-1")

    assert len(content_of(reply)["errors"]) == 1


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(FileNotFoundError(2, "No such file", SECRET), id="any exception"),
        pytest.param(KeyError(SECRET), id="key"),
        pytest.param(artefact_errors.DigestMismatch(SECRET), id="an artefact on disk"),
    ],
)
def test_answer_tells_nothing_of_the_inside(error: Exception) -> None:
    reply = problem_reply(error, "req-1")

    assert reply.status == 500
    assert SECRET.encode() not in reply.body
    assert type(error).__name__.encode() not in reply.body
    assert content_of(reply)["detail"] == str(errors.ModelFailed())


def test_refused_method_is_told_the_allowed_ones() -> None:
    assert problem_reply(errors.MethodNotAllowed("PUT", ["GET", "HEAD"]), "r").headers == {"allow": "GET, HEAD"}


def test_unavailable_says_when_to_come_back() -> None:
    assert problem_reply(errors.Unavailable("loading", retry_after_s=10), "r").headers == {"retry-after": "10"}

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core import errors
from service.core.errors import (
    InvalidRequest,
    InvalidRows,
    RequestError,
    UnreadableRequest,
    UnsupportedMediaType,
)
from service.core.messages import InferRequest, Target
from service.core.signature import Column, Container, Signature
from service.core.table import SparseRows, Values, column_arrays
from service.protocols.http import HttpReply
from service.protocols.platforms.torchserve import EXCEPTIONS, ROUTES, TORCHSERVE, Prediction, predict, problem
from tests.service.protocols.fake_server import AGE, CITY, SHOP, FakeServer, content_of, post, signature_of
from tests.service.protocols.tables import signatures

ROWS = [[41, "Graz"], [23, None]]
RECORDS = [{"age": 41, "city": "Graz"}, {"age": 23}]


def rows_of(request: InferRequest) -> list[list[Any]]:
    return [list(row) for row in zip(*(array.tolist() for array in column_arrays(request.rows)), strict=True)]


def asked(content: Any, signature: Signature = SHOP, **options: Any) -> tuple[FakeServer, Any]:
    """The server after the request, and the content of the reply."""
    server = FakeServer(signature, {"predict": np.array(["yes", "no"]), "predict_proba": np.eye(2)})
    reply = predict(server, post(content, name="shop", **options)).result(0)
    assert (reply.status, reply.content_type) == (200, "application/json")
    return server, content_of(reply)


# -- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(ROWS, id="rows"),
        pytest.param(RECORDS, id="records"),
        pytest.param({"data": ROWS}, id="data"),
        pytest.param({"body": RECORDS}, id="body"),
        pytest.param({"instances": ROWS}, id="instances"),
        pytest.param({"data": {"instances": RECORDS}}, id="instances within data"),
        pytest.param({"columns": {"age": [41, 23], "city": ["Graz", None]}}, id="columns"),
        pytest.param({"body": {"columns": {"age": [41, 23], "city": ["Graz", None]}}}, id="columns within body"),
        pytest.param({"instances": ROWS, "outputs": ["predict"]}, id="outputs"),
    ],
)
def test_rows_are_the_same_in_every_form(content: Any) -> None:
    server, _ = asked(content)

    assert rows_of(server.requests[0]) == ROWS


@pytest.mark.parametrize("content", [{"age": 41, "city": "Graz"}, {"data": {"age": 41, "city": "Graz"}}])
def test_record_is_one_row(content: Any) -> None:
    request = Prediction(orjson.dumps(content)).read(SHOP)

    assert rows_of(request) == [[41, "Graz"]]


@pytest.mark.parametrize("content", [{"data": 1.5}, {"data": {"data": 1.5}}])
def test_column_that_is_called_like_a_wrapper_is_a_column(content: Any) -> None:
    signature = signature_of(Column(name="data", dtype="float64"))

    if content == {"data": 1.5}:
        assert rows_of(Prediction(orjson.dumps(content)).read(signature)) == [[1.5]]
    else:
        with pytest.raises(InvalidRows, match="column 'data'"):
            Prediction(orjson.dumps(content)).read(signature)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="curl -T says no type"),
        pytest.param({"content-type": "application/octet-stream"}, id="bytes"),
        pytest.param({"content-type": "application/json; charset=UTF-8"}, id="JSON"),
    ],
)
def test_body_is_json_unless_its_type_says_otherwise(headers: Mapping[str, str]) -> None:
    server, _ = asked(ROWS, headers=headers)

    assert rows_of(server.requests[0]) == ROWS


def test_body_of_another_form_is_read_by_its_type() -> None:
    server, _ = asked(b"city,age\nGraz,41\n,23\n", headers={"content-type": "text/csv"}, query={"outputs": "predict"})

    assert rows_of(server.requests[0]) == ROWS
    assert server.requests[0].outputs == ("predict",)


@pytest.mark.parametrize(
    "given", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_form_of_a_browser_reaches_no_model(given: str) -> None:
    server = FakeServer()

    with pytest.raises(UnsupportedMediaType):
        predict(server, post(ROWS, name="shop", headers={"content-type": given}))

    assert server.requests == []


@pytest.mark.parametrize(
    ("content", "error", "told"),
    [
        pytest.param(b"", UnreadableRequest, "the body is empty", id="empty"),
        pytest.param(b"\xff\xd8\xff", UnreadableRequest, "not valid JSON", id="an image"),
        pytest.param([], InvalidRequest, "at least one row", id="no rows"),
        pytest.param("text", InvalidRequest, "the body is 'text'", id="a text"),
        pytest.param({"data": "text"}, InvalidRequest, "the body is 'text'", id="a text as data"),
        pytest.param([1, 2], InvalidRows, "row 0: expected a list of 2 values, got 1", id="values without rows"),
        pytest.param([[41]], InvalidRows, "row 0: expected 2 values, got 1", id="a short row"),
        pytest.param([["41", "Graz"]], InvalidRows, "row 0, column 'age'.*got '41'", id="a text as number"),
        pytest.param({"data": ROWS, "x": 1}, InvalidRows, "column 'data'", id="something beside data"),
        pytest.param({"instances": ROWS, "outputs": ["nothing"]}, InvalidRequest, "this model offers", id="outputs"),
    ],
)
def test_body_that_holds_no_rows_is_refused(content: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        predict(FakeServer(), post(content, name="shop"))


@pytest.mark.parametrize(
    ("version", "number"), [("3", 3), ("3.0", 3), ("1.1", 0), ("03", 0), (".0", 0), ("x", 0), ("3.0.0", 0)]
)
def test_version_may_have_the_fraction_that_torchserve_gives_it(version: str, number: int) -> None:
    server = FakeServer()

    predict(server, post(RECORDS[:1], name="shop", version=version))

    assert server.targets == [Target("shop", number)]


@given(body=st.binary(max_size=60), signature=signatures(), outputs=st.none() | st.text(max_size=10))
def test_any_bytes_are_read_or_refused(body: bytes, signature: Signature, outputs: str | None) -> None:
    _read_or_refuse(body, signature, outputs)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "body", "instances", "columns", "outputs", "x", "größe"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(content=VALUES, signature=signatures())
def test_any_json_is_read_or_refused(content: Any, signature: Signature) -> None:
    _read_or_refuse(_dumped(content), signature, None)


def _dumped(content: Any) -> bytes:
    try:
        return orjson.dumps(content)
    except TypeError:  # integers beyond 64 bits
        return str(content).encode()


def _read_or_refuse(body: bytes, signature: Signature, outputs: str | None) -> None:
    try:
        request = Prediction(body, outputs).read(signature)
    except RequestError:
        return
    assert request.rows.n_rows >= 1
    assert set(request.outputs) <= set(signature.output_names)


# -- replies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "query", "reply"),
    [
        pytest.param(ROWS, {}, ["yes", "no"], id="predictions"),
        pytest.param(ROWS, {"outputs": "predict_proba"}, [[1.0, 0.0], [0.0, 1.0]], id="another output"),
        pytest.param(
            {"instances": ROWS, "outputs": ["predict_proba", "predict"]},
            {},
            [{"predict_proba": [1.0, 0.0], "predict": "yes"}, {"predict_proba": [0.0, 1.0], "predict": "no"}],
            id="several outputs",
        ),
    ],
)
def test_reply_is_a_list_with_one_entry_per_row(content: Any, query: Mapping[str, str], reply: Any) -> None:
    assert asked(content, query=query)[1] == reply


def test_record_is_answered_with_a_list_of_one() -> None:
    server = FakeServer()

    reply = predict(server, post({"age": 41, "city": "Graz"}, name="shop")).result(0)

    assert content_of(reply) == ["yes"]


@pytest.mark.parametrize(
    ("values", "reply"),
    [
        pytest.param(np.array([0.1, np.nan]), [0.1, None], id="NaN"),
        pytest.param(np.array([2**63 + 1, 0], dtype="uint64"), [2**63 + 1, 0], id="uint64"),
        pytest.param(
            SparseRows(3, np.array([0, 1, 1]), np.array([2]), np.array([1.5])), [[0, 0, 1.5], [0, 0, 0]], id="sparse"
        ),
    ],
)
def test_values_are_written_by_row(values: Values, reply: Any) -> None:
    server = FakeServer(outputs={"predict": values})

    assert content_of(predict(server, post(ROWS, name="shop")).result(0)) == reply


def test_failure_of_the_model_is_in_the_future() -> None:
    server = FakeServer(error=errors.ModelFailed())

    assert isinstance(predict(server, post(ROWS, name="shop")).exception(0), errors.ModelFailed)


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (errors.UnreadableRequest("bad"), 400, "BadRequestException"),
        (errors.InvalidRequest("bad"), 400, "BadRequestException"),
        (errors.UnsupportedMediaType("bad"), 400, "BadRequestException"),
        (errors.UnsupportedCoding("br"), 400, "BadRequestException"),
        (errors.RowsRefused(), 400, "BadRequestException"),
        (errors.NotAllowed("bad"), 403, "MethodNotAllowedException"),
        (errors.UnknownRoute(), 404, "ResourceNotFoundException"),
        (errors.UnknownModel(), 404, "ModelNotFoundException"),
        (errors.UnknownVersion("shop", [1]), 404, "ModelVersionNotFoundException"),
        (errors.MethodNotAllowed("PATCH", ["GET"]), 405, "MethodNotAllowedException"),
        (errors.DeadlinePassed(1), 408, "RequestTimeoutException"),
        (errors.AlreadyLoaded("shop"), 409, "ConflictStatusException"),
        (errors.RequestTooLarge("bad"), 413, "BadRequestException"),
        (errors.ModelFailed(), 500, "InternalServerException"),
        (errors.Unavailable("bad"), 503, "ServiceUnavailableException"),
        (errors.Overloaded("bad"), 503, "ServiceUnavailableException"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_error_has_the_three_fields_of_torchserve(error: Exception, code: int, kind: str) -> None:
    reply = problem(error, "req-1")

    assert (reply.status, reply.content_type) == (code, "application/json")
    assert content_of(reply) == {"code": code, "type": kind, "message": str(error)}


def test_error_of_a_library_says_nothing_of_the_inside() -> None:
    content = content_of(problem(KeyError("/secret"), "req-1"))

    assert (content["code"], content["type"]) == (500, "InternalServerException")
    assert "secret" not in content["message"]


def test_headers_of_an_error_are_kept() -> None:
    assert problem(errors.Unavailable("bad", retry_after_s=7), "req-1").headers == {"retry-after": "7"}
    assert problem(errors.MethodNotAllowed("PATCH", ["GET"]), "req-1").headers == {"allow": "GET"}


def test_no_exception_is_hidden_by_one_before_it() -> None:
    kinds = [kind for kind, _, _ in EXCEPTIONS]

    assert all(not issubclass(later, kind) for place, kind in enumerate(kinds) for later in kinds[place + 1 :])


# -- routes --------------------------------------------------------------------------------------


def test_predictions_are_asked_by_every_method_that_torchserve_takes() -> None:
    asked_by = {(route.method, route.path) for route in ROUTES if route.dialect is TORCHSERVE}

    assert asked_by == {
        (method, path)
        for path in ("/predictions/{name}", "/predictions/{name}/{version}")
        for method in ("GET", "POST", "PUT")
    }


def test_series_takes_a_list_of_texts() -> None:
    texts = signature_of(Column(name="text", dtype="string"), container=Container.SERIES)
    request = Prediction(b'["great fun", "awful"]').read(texts)

    assert rows_of(request) == [["great fun"], ["awful"]]


def test_reply_waits_for_the_answer() -> None:
    server = FakeServer(signature_of(AGE, CITY), waits=True)
    reply: Future[HttpReply] = predict(server, post(RECORDS[:1], name="shop"))
    assert not reply.done()

    server.finish()

    assert content_of(reply.result(0)) == ["yes"]

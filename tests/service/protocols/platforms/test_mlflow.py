from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import __version__
from service.core.errors import (
    DeadlinePassed,
    InvalidRequest,
    InvalidRows,
    NotAllowed,
    RequestError,
    Unavailable,
    UnknownModel,
    UnreadableRequest,
    UnsupportedMediaType,
)
from service.core.messages import Target
from service.core.signature import Column, Container, Signature
from service.core.table import Frame, Matrix, column_arrays
from service.protocols.platforms.mlflow import (
    FORMATS,
    ROUTES,
    Scoring,
    columns_named,
    has_header,
    problem,
    score,
    target_of,
    version,
)
from tests.service.protocols.fake_server import SHOP, FakeServer, content_of, get, post, signature_of
from tests.service.protocols.tables import cells, signatures

MATRIX = signature_of(
    *(Column(name=f"x{i}", dtype="float64", nullable=True) for i in range(3)), container=Container.ARRAY
)
FRAME = signature_of(*MATRIX.columns, container=Container.FRAME)
TEXT = signature_of(Column(name="text", dtype="string"), container=Container.SERIES)
CSV = {"content-type": "text/csv"}

TWO = [{"age": 41, "city": "Graz"}, {"age": 23, "city": None}]
SAME_TWO = [
    {"dataframe_split": {"columns": ["age", "city"], "data": [[41, "Graz"], [23, None]]}},
    {"dataframe_split": {"columns": ["city", "x", "age"], "index": [7, 9], "data": [["Graz", {}, 41], [None, [], 23]]}},
    {"dataframe_split": {"data": [[41, "Graz"], [23, None]]}},
    {"dataframe_records": TWO},
    {"dataframe_records": [TWO[0] | {"extra": {}}, {"age": 23}]},
    {"instances": TWO},
    {"instances": [[41, "Graz"], [23, None]]},
    {"inputs": TWO},
    {"inputs": [[41, "Graz"], [23, None]]},
    {"inputs": {"city": ["Graz", None], "age": [41, 23], "extra": [1]}},
    {"inputs": {"age": [[41], [23]], "city": [["Graz"], [None]]}},
    {"inputs": TWO, "unknown": 1, "params": {"temperature": 0.5}},
    b'{"dataframe_split": {"columns": ["age", "city"], "data": [[41.0, "Graz"], [23, NaN]]}}',
    b"age,city\n41,Graz\n23,\n",
    b',city,age,"more"\r\n0,Graz,41,x\r\n1,,23,"y\ny"\r\n',
]


def read(body: Any, signature: Signature = SHOP) -> Any:
    headers = CSV if isinstance(body, bytes) and not body.startswith(b"{") else None
    return Scoring(post(body, headers=headers)).read(signature)


@pytest.mark.parametrize("body", SAME_TWO)
def test_every_form_of_the_same_rows_is_read_alike(body: Any) -> None:
    request = read(body)

    assert isinstance(request.rows, Frame)
    assert {name: values.tolist() for name, values in request.rows.columns.items()} == {
        "age": [41, 23],
        "city": ["Graz", None],
    }
    assert request.outputs == ("predict",)


def test_one_row_may_be_an_object_of_values() -> None:
    assert read({"inputs": {"age": 41, "city": "Graz"}}).rows.n_rows == 1


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": [0, 1, 2], "data": [[1, 2, 3]]}},
        {"dataframe_split": {"columns": ["c", "b", "a"], "data": [[1, 2, 3]]}},
        {"dataframe_split": {"columns": ["x2", "x1", "x0"], "data": [[3, 2, 1]]}},
        {"dataframe_records": [{"0": 1, "1": 2, "2": 3}]},
        {"inputs": {"input": [[1, 2, 3]]}},
        {"inputs": {"b": [1], "a": [2], "c": [3]}},
        b"0,1,2\n1,2,3\n",
    ],
)
def test_a_model_fitted_without_names_takes_columns_by_place(body: Any) -> None:
    rows = read(body, MATRIX).rows

    assert isinstance(rows, Matrix) and rows.values.tolist() == [[1.0, 2.0, 3.0]]


def test_a_model_fitted_with_names_does_not() -> None:
    with pytest.raises(InvalidRequest, match="no name is a column of this model: x0, x1, x2; got 0, 1, 2"):
        read({"dataframe_split": {"columns": [0, 1, 2], "data": [[1, 2, 3]]}}, FRAME)


def test_columns_that_may_be_missing_may_be_left_out() -> None:
    rows = read({"dataframe_split": {"columns": ["x1"], "data": [[2.5]]}}, FRAME).rows

    np.testing.assert_array_equal(rows.values, [[np.nan, 2.5, np.nan]])


def test_texts_are_rows_of_a_model_of_texts() -> None:
    for body in (
        {"inputs": ["a", "b"]},
        {"instances": ["a", "b"]},
        {"dataframe_split": {"data": ["a", "b"]}},
        b"text\na\nb\n",
    ):
        assert read(body, TEXT).rows.columns["text"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ([[41, "Graz"]], "the body is a list of 1; expected an object with one of dataframe_split"),
        ({}, "expected exactly one of dataframe_split, dataframe_records, instances, inputs; got none"),
        ({"data": 1, "rows": 2}, "expected exactly one of .*; got 'data', 'rows'"),
        ({"inputs": TWO, "instances": TWO}, "got instances and inputs"),
        ({"inputs": TWO, "signature_name": "x"}, '"signature_name" is not supported'),
        ({"inputs": TWO, "params": []}, '"params": expected an object; got a list of 0'),
        ({"inputs": TWO, "params": {"outputs": ["score"]}}, "this model offers predict, predict_proba; got 'score'"),
        ({"inputs": []}, '"inputs": expected a list of at least one row'),
        ({"inputs": 5}, '"inputs": expected a list of at least one row'),
        ({"inputs": {}}, "no name is a column of this model: age, city; got none"),
        ({"inputs": {"age": [1, 2], "city": ["a"]}}, "column 'city': expected a list of 2 values"),
        ({"dataframe_records": {"age": 1}}, '"dataframe_records": expected a list'),
        ({"dataframe_records": [{"a": 1}]}, "no name is a column of this model"),
        ({"dataframe_split": [[1]]}, '"dataframe_split": expected an object of "columns" and "data"; got a list of 1'),
        ({"dataframe_split": {"columns": ["age"]}}, "got 'columns'"),
        ({"dataframe_split": {"columns": "age", "data": [[1]]}}, '"columns": expected a list of names'),
        ({"dataframe_split": {"columns": ["age"], "data": []}}, '"data": expected a list of at least one row'),
        ({"dataframe_split": {"columns": ["age"], "data": [[1], [1, 2]]}}, 'row 1: expected a list of 1 values'),
        ({"dataframe_split": {"columns": ["age"], "data": [3]}}, '"data", row 0: expected a list of 1 values; got 3'),
        ({"dataframe_split": {"columns": ["age", "age"], "data": [[1, 2]]}}, "column 'age' is there twice"),
        (b"age,city\n41\n", "row 0: expected 2 cells, got 1"),
        (b"age,extra,city\n41\n", "row 0: expected 3 cells, got 1"),
        (b"age,age\n41,2\n", "column 'age' is there twice"),
        (b"age,city\n", "expected at least one row"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(body: Any, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        read(body)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"age": "41"}, "row 0, column 'age': expected an integer (int64), got '41'"),
        ({"age": True}, "got true"),
        ({"age": 1.5}, "got 1.5"),
        ({"age": None}, "got null"),
        ({"city": "Graz"}, "got nothing"),
    ],
)
def test_values_are_as_strict_as_everywhere(row: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRows) as raised:
        read({"dataframe_records": [row]})

    assert told in str(raised.value)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"inputs": Infinit}'])
def test_a_body_that_is_no_json_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableRequest):
        Scoring(post(body)).read(SHOP)


def test_infinity_is_a_number_that_no_column_takes() -> None:
    with pytest.raises(InvalidRows, match="got -Infinity"):
        read(b'{"inputs": [[1.0, -Infinity, 2.0]]}', MATRIX)


@pytest.mark.parametrize("given", ["application/json", "Application/JSON; charset=UTF-8", 'text/csv;charset="utf-8"'])
def test_media_types_of_mlflow_are_read(given: str) -> None:
    body = b"age,city\n1,a\n" if "csv" in given else b'{"inputs": [[1, "a"]]}'

    assert Scoring(post(body, headers={"content-type": given})).read(SHOP).rows.n_rows == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "expected application/json or text/csv; got ''"),
        ("application/x-www-form-urlencoded", "expected application/json or text/csv"),
        ("application/json; format=pandas-split", "unknown parameter of the content type: 'format'"),
        ("text/csv; charset=latin-1", "the body must be UTF-8; got charset 'latin-1'"),
    ],
)
def test_other_media_types_are_415_in_bare_text(given: str | None, told: str) -> None:
    headers = {} if given is None else {"content-type": given}

    with pytest.raises(UnsupportedMediaType) as raised:
        Scoring(post(b'{"inputs": [[1, "a"]]}', headers=headers)).read(SHOP)

    reply = problem(raised.value, "req-1")
    assert (reply.status, reply.content_type) == (415, "text/plain; charset=utf-8")
    assert told in reply.body.decode()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UnreadableRequest("no"), 400, "BAD_REQUEST"),
        (InvalidRequest("no"), 400, "INVALID_PARAMETER_VALUE"),
        (UnknownModel(), 404, "RESOURCE_DOES_NOT_EXIST"),
        (NotAllowed("no"), 403, "PERMISSION_DENIED"),
        (Unavailable("later"), 503, "TEMPORARILY_UNAVAILABLE"),
        (KeyError("secret"), 500, "INTERNAL_ERROR"),
    ],
)
def test_errors_have_mlflows_codes(error: Exception, status: int, code: str) -> None:
    reply = problem(error, "req-1")

    content = content_of(reply)
    assert (reply.status, content["error_code"]) == (status, code)
    assert set(content) == {"error_code", "message"} and "secret" not in content["message"]


def test_a_deadline_is_504_in_bare_text() -> None:
    reply = problem(DeadlinePassed(30), "req-1")

    assert (reply.status, reply.body) == (504, b"no answer within 30 seconds")


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        (None, ["yes"]),
        ({"outputs": ["predict_proba"]}, [[0.25, 0.75]]),
        ({"outputs": ["predict", "predict_proba"]}, [{"predict": "yes", "predict_proba": [0.25, 0.75]}]),
    ],
)
def test_predictions_are_of_the_outputs_in_params(params: Any, wanted: Any) -> None:
    reply = score(FakeServer(), post({"inputs": [[1, "a"]], "params": params})).result()

    assert content_of(reply) == {"predictions": wanted}


def test_numbers_that_json_lacks_leave_as_null() -> None:
    server = FakeServer(outputs={"predict": np.array([math.nan, -math.inf])})

    assert score(server, post({"inputs": [[1, "a"]] * 2})).result().body == b'{"predictions":[null,null]}'


def test_the_query_names_the_model() -> None:
    queries = [{}, {"model": "shop"}, {"model": "shop", "version": "3"}, {"version": "x"}]

    targets = [target_of(post({}, query=query)) for query in queries]

    assert targets == [Target(), Target("shop"), Target("shop", 3), Target(None, 0)]


def test_version_is_bare_text() -> None:
    assert version(FakeServer(), get()).body == __version__.encode()


def test_routes_are_those_of_the_scoring_server() -> None:
    assert {(route.method, route.path) for route in ROUTES} == {
        ("GET", "/ping"), ("GET", "/health"), ("GET", "/version"), ("POST", "/invocations"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "is_one"),
    [
        (b"age,city\n", True),
        (b"\xef\xbb\xbfcity,more,age", True),
        (b"age\n", True),
        (b"city\n41,Graz", False),
        (b"41,Graz\n", False),
        (b"", False),
        (b'"' + b"x" * 200_000, False),
    ],
)
def test_a_header_names_all_columns_that_must_be_there(body: bytes, is_one: bool) -> None:
    assert has_header(body, SHOP) is is_one


def test_what_pandas_writes_is_what_the_model_gets() -> None:
    table = pd.DataFrame({"age": [41, 23], "city": ["Graz", None], "more": [1.5, 2.5]})
    split = {"dataframe_split": table.to_dict(orient="split")}

    as_json = read(orjson.dumps(split, option=orjson.OPT_SERIALIZE_NUMPY)).rows
    as_csv = read(table.to_csv(index=False).encode()).rows

    for rows in (as_json, as_csv):
        assert [values.tolist() for values in column_arrays(rows)] == [[41, 23], ["Graz", None]]


# Any bytes give an answer or a clean refusal


@given(body=st.binary(max_size=200), kind=st.sampled_from(["application/json", "text/csv"]), signature=signatures())
def test_any_bytes_are_rows_or_a_clean_refusal(body: bytes, kind: str, signature: Signature) -> None:
    with contextlib.suppress(RequestError):
        assert Scoring(post(body, headers={"content-type": kind})).read(signature).rows.n_rows


def names() -> st.SearchStrategy[Any]:
    return st.sampled_from(["x", "column_0", "größe", "instances", "columns", "data", "index", "outputs"]) | cells()


def contents() -> st.SearchStrategy[Any]:
    keys = st.sampled_from([*FORMATS, "params", "columns", "data", "x", "column_0", "outputs"])
    return st.recursive(
        cells(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=12,
    )


@given(key=st.sampled_from(FORMATS), value=contents(), params=st.none() | contents(), signature=signatures())
def test_any_json_is_rows_or_a_clean_refusal(key: str, value: Any, params: Any, signature: Signature) -> None:
    with contextlib.suppress(RequestError):
        assert Scoring(post(b"")).build({key: value, "params": params}, signature, True).rows.n_rows


@given(
    columns=st.lists(names(), max_size=4),
    rows=st.lists(st.lists(cells(), max_size=4), max_size=3),
    signature=signatures(),
)
def test_any_data_frame_is_rows_or_a_clean_refusal(columns: list[Any], rows: list[Any], signature: Signature) -> None:
    content = {"dataframe_split": {"columns": columns, "data": rows}}
    with contextlib.suppress(RequestError):
        assert Scoring(post(b"")).build(content, signature, True).rows.n_rows


@given(signature=signatures(), more=st.lists(st.sampled_from(["extra", "0"]), max_size=2))
def test_every_name_means_its_column(signature: Signature, more: list[str]) -> None:
    assert columns_named([*signature.names, *more], signature) == [*signature.names, *(None for _ in more)]

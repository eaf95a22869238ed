from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import (
    InvalidRequest,
    InvalidRows,
    NotAcceptable,
    RequestError,
    UnreadableRequest,
    UnsupportedMediaType,
)
from service.core.messages import Target
from service.core.signature import Column, Container, Signature
from service.core.table import Frame, Matrix
from service.protocols.platforms.predictions import ATTRIBUTES
from service.protocols.platforms.sagemaker import (
    LINES,
    NPY,
    ROUTES,
    TARGET_MODEL,
    TYPES,
    Invocation,
    execution_parameters,
    invoke,
    target_of,
)
from tests.service.protocols.fake_server import SHOP, FakeServer, content_of, get, post, signature_of
from tests.service.protocols.tables import bodies, cells, signatures

MATRIX = signature_of(*(Column(name=f"x{index}", dtype="float64") for index in range(3)), container=Container.ARRAY)
ONE = signature_of(Column(name="x", dtype="float64"))
TEXT = signature_of(Column(name="text", dtype="string"), container=Container.SERIES)
TWO = [{"age": 41, "city": "Graz"}, {"age": 23, "city": None}]


def read(body: Any, kind: str = "application/json", signature: Signature = SHOP) -> Any:
    return Invocation(post(body, headers={"content-type": kind})).read(signature)


def npy(array: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", [[41, "Graz"], [23, None]]),
        ("application/json", TWO),
        ("application/json", {"instances": TWO}),
        ("application/json", {"instances": [[41, "Graz"], [23, None]]}),
        ("application/json", {"instances": [{"features": [41, "Graz"]}, {"features": [23, None]}]}),
        ("application/json", {"columns": {"age": [41, 23], "city": ["Graz", None]}}),
        ("application/json", b'[[41, "Graz"], [23, NaN]]'),
        ("text/csv", b"41,Graz\n23,\n"),
        ("text/csv", b"age,city\n41,Graz\n23,\n"),
        ("text/csv; header=present", b"city,age\nGraz,41\n,23\n"),
        ("text/csv;label_size=0", b"41,Graz\r\n23,"),
        ("application/jsonlines", b'[41, "Graz"]\n[23, null]\n'),
        ("application/x-jsonlines", b'{"features": [41, "Graz"]}\n{"features": [23, null]}'),
        ("application/jsonlines", b'{"age": 41, "city": "Graz"}\n\n{"age": 23}\n'),
    ],
)
def test_every_form_of_the_same_rows_is_read_alike(kind: str, body: Any) -> None:
    rows = read(body, kind).rows

    assert isinstance(rows, Frame)
    assert {name: values.tolist() for name, values in rows.columns.items()} == {
        "age": [41, 23],
        "city": ["Graz", None],
    }


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", [1, 2, 3]),
        ("application/json", [[1, 2, 3]]),
        ("application/json", {"x0": 1, "x1": 2, "x2": 3}),
        ("text/csv", b"1,2,3"),
        (NPY, npy(np.array([[1.0, 2.0, 3.0]], dtype="float32"))),
    ],
)
def test_one_row_of_numbers_is_read(kind: str, body: Any) -> None:
    rows = read(body, kind, MATRIX).rows

    assert isinstance(rows, Matrix) and rows.values.tolist() == [[1.0, 2.0, 3.0]]


def test_a_list_of_values_is_as_many_rows_for_a_model_of_one_column() -> None:
    assert read([1, 2, 3], signature=ONE).rows.values.tolist() == [[1.0], [2.0], [3.0]]
    assert read(["a", "b"], signature=TEXT).rows.columns["text"].tolist() == ["a", "b"]
    assert read(b"a\nb\n", "text/csv", TEXT).rows.columns["text"].tolist() == ["a", "b"]


def test_a_column_that_is_called_features_is_a_column() -> None:
    signature = signature_of(Column(name="features", dtype="float64"))

    assert read([{"features": 1.5}], signature=signature).rows.values.tolist() == [[1.5]]


def test_names_of_columns_are_data_where_the_caller_says_so() -> None:
    signature = signature_of(Column(name="text", dtype="string"), container=Container.SERIES)

    assert read(b"text\nb\n", "text/csv", signature).rows.n_rows == 1
    assert read(b"text\nb\n", "text/csv; header=absent", signature).rows.n_rows == 2


@pytest.mark.parametrize(
    ("kind", "body", "error", "told"),
    [
        ("application/json", b"{", UnreadableRequest, "not valid JSON"),
        ("application/json", b"3", InvalidRequest, "the body is 3"),
        ("application/json", [], InvalidRequest, '"instances": expected a list of at least one row'),
        ("application/json", [1, 2, 3, 4], InvalidRows, "row 0: expected 2 values, got 4"),
        ("application/json", {"age": "1"}, InvalidRows, "column 'age': expected an integer"),
        ("application/json", {"age": 1, "nothing": 2}, InvalidRows, "column 'nothing'"),
        ("text/csv", b"", UnreadableRequest, "the body is empty"),
        ("text/csv", b"\xff,1", UnreadableRequest, "not UTF-8"),
        ("text/csv", b"1,2\n3\n", InvalidRows, "row 1: expected 2 cells, got 1"),
        ("text/csv", b"city,age\nGraz,41\n", InvalidRows, "row 0, column 'age'"),
        ("text/csv", b"age,city\n", InvalidRequest, "at least one row"),
        ("application/jsonlines", b"", InvalidRequest, "at least one line"),
        ("application/jsonlines", b"[1\n", UnreadableRequest, "line 1"),
        (NPY, b"PK", UnreadableRequest, "not .npy"),
        (NPY, npy(np.zeros((2, 3))), InvalidRequest, r"shape \(rows, 2\)"),
        ("application/x-npz", b"PK", UnsupportedMediaType, "got 'application/x-npz'"),
        ("text/csv; charset=latin-1", b"1,2", UnsupportedMediaType, "got charset 'latin-1'"),
    ],
)
def test_what_is_wrong_is_said(kind: str, body: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        read(body, kind)


def test_pickled_arrays_stay_closed() -> None:
    with pytest.raises(UnreadableRequest, match="object"):
        read(npy(np.array([{"a": 1}, None])), NPY, ONE)


def ask(body: Any, accept: str | None = None, *, kind: str = "application/json", **headers: str) -> Any:
    given = {"content-type": kind, **headers} | ({} if accept is None else {"accept": accept})
    return invoke(FakeServer(), post(body, headers=given)).result()


@pytest.mark.parametrize(
    ("accept", "content_type", "body"),
    [
        (None, "application/json", b'["yes"]'),
        ("*/*", "application/json", b'["yes"]'),
        ("application/json;verbose", "application/json", b'["yes"]'),
        ("text/csv", "text/csv; charset=utf-8", b"yes\n"),
        ("image/png, text/csv;q=0.5", "text/csv; charset=utf-8", b"yes\n"),
        ("application/x-jsonlines", "application/x-jsonlines", b'{"prediction":"yes"}\n'),
        (NPY, NPY, npy(np.array(["yes"]))),
    ],
)
def test_accept_chooses_the_form_of_the_reply(accept: str | None, content_type: str, body: bytes) -> None:
    reply = ask([41, "Graz"], accept)

    assert (reply.status, reply.content_type, reply.body) == (200, content_type, body)


def test_a_form_that_is_not_offered_is_refused_before_anything_is_computed() -> None:
    server = FakeServer()

    with pytest.raises(NotAcceptable, match="answers are application/json, text/csv"):
        invoke(server, post([41, "Graz"], headers={"content-type": "application/json", "accept": "text/html"}))

    assert server.requests == []


@pytest.mark.parametrize(
    ("body", "wanted"),
    [([[1, "a"]], ["yes"]), ({"instances": [[1, "a"]]}, {"predictions": ["yes"]}), (TWO[0], {"predictions": ["yes"]})],
)
def test_a_list_is_answered_with_a_list_and_an_object_with_an_object(body: Any, wanted: Any) -> None:
    assert content_of(ask(body)) == wanted


@pytest.mark.parametrize("kind", ["text/csv", *LINES])
def test_rows_without_json_are_answered_with_a_list(kind: str) -> None:
    assert content_of(ask(b"41,Graz" if kind == "text/csv" else b'[41, "Graz"]', kind=kind)) == ["yes"]


def test_outputs_are_chosen_by_header_or_body() -> None:
    both = {ATTRIBUTES: "outputs=predict,predict_proba"}

    in_header = ask(b"41,Graz", "text/csv", kind="text/csv", **both)
    in_body = ask({"instances": [[1, "a"]], "outputs": ["predict_proba"]}, **both)

    assert in_header.body == b"yes,0.25,0.75\n"
    assert content_of(in_body) == {"predictions": [[0.25, 0.75]]}


def test_many_rows_of_numbers_are_read_and_answered_like_few() -> None:
    rows = [[0.5, 1.5, float(place)] for place in range(100)]

    request = read({"instances": rows}, signature=MATRIX)

    assert request.rows.values.tolist() == rows


@pytest.mark.parametrize(
    ("params", "headers", "model"),
    [
        ({}, {}, None),
        ({"name": "shop"}, {TARGET_MODEL: "other.tar.gz"}, "shop"),
        ({}, {TARGET_MODEL: "shop.tar.gz"}, "shop"),
        ({}, {TARGET_MODEL: "/shop"}, "shop"),
    ],
)
def test_the_model_is_that_of_the_path_or_of_the_header(
    params: dict[str, str], headers: dict[str, str], model: str | None
) -> None:
    assert target_of(post([], headers=headers, **params)) == Target(model)


@pytest.mark.parametrize(("limit", "megabytes"), [(10 * 2**20, 10), (1000, 1)])
def test_batch_transform_hears_how_to_send(limit: int, megabytes: int) -> None:
    http = get()
    http.max_bytes = limit

    told = content_of(execution_parameters(FakeServer(), http))

    assert told == {"MaxConcurrentTransforms": 8, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": megabytes}


def test_routes_are_those_of_the_container() -> None:
    assert {(route.method, route.path) for route in ROUTES} == {
        ("GET", "/ping"), ("POST", "/invocations"), ("GET", "/execution-parameters"), ("POST", "/models/{name}/invoke"),
    }  # fmt: skip


# Any bytes give an answer or a clean refusal


@given(body=st.binary(max_size=200), kind=st.sampled_from([*TYPES, "text/csv; header=present"]), signature=signatures())
def test_any_bytes_are_rows_or_a_clean_refusal(body: bytes, kind: str, signature: Signature) -> None:
    with contextlib.suppress(RequestError):
        assert read(body, kind, signature).rows.n_rows


@given(data=st.data(), signature=signatures())
def test_any_json_is_rows_or_a_clean_refusal(data: st.DataObject, signature: Signature) -> None:
    rows = st.lists(cells() | st.lists(cells(), max_size=3) | st.fixed_dictionaries({"features": cells()}), max_size=3)
    content = data.draw(bodies(signature) | rows | st.fixed_dictionaries({"instances": rows}))

    with contextlib.suppress(RequestError):
        assert Invocation(post(b"")).build(content, signature, True).rows.n_rows


@given(lines=st.lists(st.lists(st.sampled_from(["", "1", "x", "column_0", "nan", "1e400", '"']) | st.text(max_size=3),
                               max_size=4), max_size=4), signature=signatures())  # fmt: skip
def test_any_cells_are_rows_or_a_clean_refusal(lines: list[list[str]], signature: Signature) -> None:
    body = "\n".join(",".join(cells) for cells in lines).encode(errors="replace")

    with contextlib.suppress(RequestError):
        assert read(body, "text/csv", signature).rows.n_rows


@given(data=st.data(), signature=signatures())
def test_any_line_of_json_is_rows_or_a_clean_refusal(data: st.DataObject, signature: Signature) -> None:
    lines = data.draw(st.lists(cells() | st.lists(cells(), max_size=3) | bodies(signature), max_size=3))
    body = b"\n".join(json.dumps(line).encode() for line in lines)

    with contextlib.suppress(RequestError):
        assert read(body, LINES[0], signature).rows.n_rows

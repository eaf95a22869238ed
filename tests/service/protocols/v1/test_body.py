from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import (
    InvalidRequest,
    InvalidRows,
    RequestError,
    UnreadableRequest,
)
from service.core.messages import InferReply
from service.core.signature import Column, Container, Output, Signature
from service.core.table import SparseRows, Values, column_arrays
from service.protocols.v1.body import Examples, Predict, write_classes, write_numbers
from service.protocols.v1.model import choose_classes
from tests.service.protocols.fake_server import AGE, CITY, PREDICT, PROBA, SHOP, signature_of

WEIGHT = Column(name="weight", dtype="float64", nullable=True)
NUMBERS = signature_of(WEIGHT, WEIGHT.model_copy(update={"name": "height"}), container=Container.ARRAY)
ONE = signature_of(Column(name="x", dtype="float64"), container=Container.ARRAY)
TEXTS = signature_of(Column(name="text", dtype="string"), container=Container.SERIES)


def rows_of(content: Any, signature: Signature) -> dict[str, Any]:
    """What a request to predict holds, by column."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    rows = Predict(body).read(signature).rows
    return {name: array.tolist() for name, array in zip(signature.names, column_arrays(rows), strict=True)}


def reply_of(outputs: dict[str, Values], signature: Signature = SHOP) -> InferReply:
    return InferReply("shop", 3, signature, outputs)


def written(content: Any, reply: InferReply) -> bytes:
    exchange = Predict(json.dumps(content).encode())
    exchange.read(reply.signature)
    return exchange.write(reply)


# -- requests ------------------------------------------------------------------------------------

TWO_PEOPLE = {"age": [41, 23], "city": ["Graz", None]}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({"instances": [[41, "Graz"], [23, None]]}, id="lists"),
        pytest.param({"instances": [{"age": 41, "city": "Graz"}, {"age": 23}]}, id="objects"),
        pytest.param(
            {"instances": [{"age": [41], "city": ["Graz"]}, {"age": [23], "city": [None]}]}, id="lists of one"
        ),
        pytest.param({"instances": [TWO_PEOPLE]}, id="a data frame"),
        pytest.param({"instances": [[{"age": 41, "city": "Graz"}, {"age": 23}]]}, id="lists of objects"),
        pytest.param({"inputs": TWO_PEOPLE}, id="columns"),
        pytest.param({"inputs": {"age": [[41], [23]], "city": [["Graz"], [None]]}}, id="columns of shape [n, 1]"),
        pytest.param({"inputs": [{"age": 41, "city": "Graz"}, {"age": 23}]}, id="KServe's other word"),
        pytest.param({"inputs": [[41, "Graz"], [23, None]]}, id="one tensor"),
        pytest.param({"instances": [[41, {"b64": "R3Jheg=="}], [23, None]]}, id="base64"),
        pytest.param({"instances": [[41, "Graz"], [23, None]], "parameters": {"x": 1}, "id": 7}, id="unknown keys"),
    ],
)
def test_rows_are_the_same_in_every_arrangement(content: Any) -> None:
    assert rows_of(content, SHOP) == TWO_PEOPLE


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({"instances": [[1.5, 2.0], [3.0, 4.0]]}, id="lists"),
        pytest.param({"instances": [{"input-0": [1.5, 2.0]}, {"input-0": [3.0, 4.0]}]}, id="by the name of the tensor"),
        pytest.param({"instances": [{"weight": 1.5, "height": 2}, {"height": 4, "weight": 3}]}, id="by column"),
        pytest.param({"inputs": {"input-0": [[1.5, 2.0], [3.0, 4.0]]}}, id="one tensor by name"),
        pytest.param({"inputs": {"weight": [1.5, 3], "height": [[2], [4]]}}, id="columns"),
        pytest.param(b'{"instances": [[1.5, 2.0], [3.0, 4.0]]}' + b" " * 1000, id="the short way"),
    ],
)
def test_matrix_is_the_same_in_every_arrangement(content: Any) -> None:
    assert rows_of(content, NUMBERS) == {"weight": [1.5, 3.0], "height": [2.0, 4.0]}


@pytest.mark.parametrize(
    "content",
    [
        {"instances": [1.0, 2.0, 5.0]},
        {"instances": [[1.0], [2.0], [5.0]]},
        {"instances": [{"input-0": 1.0}, {"input-0": 2.0}, {"input-0": 5.0}]},
        {"instances": [{"x": [1.0, 2.0, 5.0]}]},
        {"inputs": [1.0, 2.0, 5.0]},
        {"inputs": {"x": [1.0, 2.0, 5.0]}},
        {"inputs": {"anything": [[1.0], [2.0], [5.0]]}},
    ],
    ids=str,
)
def test_only_column_needs_no_list_around_its_values(content: Any) -> None:
    assert rows_of(content, ONE) == {"x": [1.0, 2.0, 5.0]}


@pytest.mark.parametrize(
    "content",
    [{"instances": ["a", {"b64": "Yg=="}]}, {"instances": [{"text": "a"}, {"text": ["b"]}]}, {"inputs": ["a", "b"]}],
    ids=str,
)
def test_texts_are_rows_of_their_own(content: Any) -> None:
    assert rows_of(content, TEXTS) == {"text": ["a", "b"]}


def test_nan_is_a_missing_value() -> None:
    rows = rows_of(b'{"instances": [[NaN, 1.0], [2.0, null]]}', NUMBERS)

    assert math.isnan(rows["weight"][0]) and math.isnan(rows["height"][1])
    assert (rows["weight"][1], rows["height"][0]) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        pytest.param(b'{"instances": [[NaN, "Graz"]]}', "row 0, column 'age': expected an integer", id="NaN"),
        pytest.param(b'{"instances": [[1, "Graz"], [-Infinity, ""]]}', "row 1, column 'age'.*got -Infinity", id="inf"),
        pytest.param({"instances": [[True, "Graz"]]}, "row 0, column 'age'.*got true", id="a truth"),
        pytest.param({"instances": [{"input-0": [1, "Graz"]}]}, "column of this model", id="unknown column"),
        pytest.param({"instances": [[1, {"b64": "/w=="}]]}, "column 'city'", id="bytes that are no text"),
        pytest.param({"inputs": {"age": [[1, 2]], "city": ["Graz"]}}, "column 'age'", id="shape [1, 2]"),
        pytest.param({"instances": [{"age": 1}, 7]}, "row 1: expected an object", id="mixed rows"),
    ],
)
def test_wrong_value_is_named_with_its_place(content: Any, shown: str) -> None:
    with pytest.raises(InvalidRows, match=shown):
        rows_of(content, SHOP)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ([], "expected an object"),
        ({}, 'Missing "inputs" or "instances" key'),
        ({"instances": [[1, "x"]], "inputs": [[1, "x"]]}, "both"),
        ({"instances": []}, '"instances": expected a list of at least one row; got a list of 0'),
        ({"instances": {"age": [1]}}, "got an object of 1"),
        ({"instances": None}, "got null"),
        ({"inputs": {}}, "empty object"),
        ({"inputs": 3}, '"inputs": expected a list'),
        ({"instances": [{"age": [1, 2], "city": ["x"]}]}, "differ in length"),
        ({"instances": [{"age": [], "city": []}]}, "are empty"),
        ({"instances": [[1, {"b64": "x"}]]}, "expected base64"),
        ({"instances": [[1, {"b64": 7}]]}, "expected base64, got 7"),
        ({"instances": [[1, "x"]], "signature_name": "embed"}, "serving_default, predict, predict_proba"),
        ({"instances": [[1, "x"]], "signature_name": ["predict"]}, "unknown signature_name"),
    ],
    ids=str,
)
def test_wrong_request_is_told_what_was_expected(content: Any, shown: str) -> None:
    with pytest.raises(InvalidRequest, match=shown):
        rows_of(content, SHOP)


@pytest.mark.parametrize("body", [b"", b"{", b"NaN,", b'{"instances": [nan]}', b'{"instances": [NaN}', b"\xff"])
def test_what_is_no_json_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableRequest):
        rows_of(body, SHOP)


@pytest.mark.parametrize(
    ("name", "output"),
    [({}, "predict"), ({"signature_name": ""}, "predict"), ({"signature_name": None}, "predict"),
     ({"signature_name": "serving_default"}, "predict"), ({"signature_name": "predict_proba"}, "predict_proba")],
)  # fmt: skip
def test_signature_chooses_the_output(name: dict[str, Any], output: str) -> None:
    body = json.dumps({"instances": [[41, "Graz"]], **name}).encode()

    assert Predict(body).read(SHOP).outputs == (output,)


# -- replies -------------------------------------------------------------------------------------

ONE_ROW = {"instances": [[41, "Graz"]]}


@pytest.mark.parametrize(
    ("content", "key"),
    [(ONE_ROW, "predictions"), ({"inputs": TWO_PEOPLE}, "outputs"), ({"inputs": [{"age": 1}]}, "predictions")],
    ids=str,
)
def test_reply_has_the_word_that_belongs_to_the_request(content: Any, key: str) -> None:
    assert json.loads(written(content, reply_of({"predict": np.array(["yes"])}))) == {key: ["yes"]}


def test_several_targets_are_objects_by_row_or_by_column() -> None:
    output = Output(name="predict_proba", dtype="float64", targets=2, classes=[["a", "b"], ["c", "d", "e"]])
    signature = signature_of(AGE, CITY, outputs=(PREDICT, output))
    reply = reply_of({"predict_proba": [np.array([[0.25, 0.75]]), np.array([[0.5, 0.25, 0.25]])]}, signature)

    by_row = written(ONE_ROW, reply)
    by_column = written({"inputs": {"age": [41]}}, reply)

    first, second = [0.25, 0.75], [0.5, 0.25, 0.25]
    assert json.loads(by_row) == {"predictions": [{"predict_proba_0": first, "predict_proba_1": second}]}
    assert json.loads(by_column) == {"outputs": {"predict_proba_0": [first], "predict_proba_1": [second]}}


def test_sparse_rows_are_spread_out() -> None:
    signature = signature_of(AGE, CITY, outputs=(Output(name="transform", dtype="float64", shape=(3,), sparse=True),))
    rows = SparseRows(3, np.array([0, 1, 1]), np.array([2]), np.array([0.5]))

    assert json.loads(written(ONE_ROW, reply_of({"transform": rows}, signature))) == {
        "predictions": [[0.0, 0.0, 0.5], [0.0, 0.0, 0.0]]
    }


@pytest.mark.parametrize(
    ("values", "text"),
    [
        pytest.param(np.array([math.nan, math.inf, -math.inf, 1.0]), b"[NaN,Infinity,-Infinity,1.0]", id="numbers"),
        pytest.param(np.array([[1, "ä"], [math.nan, "x"]], dtype=object), '[[1,"ä"],[NaN,"x"]]'.encode(), id="objects"),
        pytest.param(np.array([2**53 + 1]), b"[9007199254740993]", id="integers"),
        pytest.param(np.array([0.1, 3.0], dtype=np.float32), b"[0.10000000149011612,3.0]", id="single precision"),
        pytest.param(np.array([b"\xff"]), b'[{"b64":"/w=="}]', id="bytes"),
        pytest.param(np.array([True]), b"[true]", id="truths"),
    ],
)
def test_values_are_written_exactly(values: Values, text: bytes) -> None:
    assert written(ONE_ROW, reply_of({"predict": values})) == b'{"predictions":' + text + b"}"


@given(values=st.lists(st.floats(width=64), min_size=1, max_size=5))
def test_every_float_comes_back(values: list[float]) -> None:
    body = written(ONE_ROW, reply_of({"predict": np.array(values)}))

    got = json.loads(body)["predictions"]
    assert np.array(got).tobytes() == np.array([math.nan if value != value else value for value in values]).tobytes()


# -- examples ------------------------------------------------------------------------------------


def examples_of(content: Any, signature: Signature = SHOP) -> dict[str, Any]:
    request = Examples(json.dumps(content).encode(), choose_classes).read(signature)
    return {name: array.tolist() for name, array in zip(signature.names, column_arrays(request.rows), strict=True)}


@pytest.mark.parametrize(
    "content",
    [
        {"examples": [{"age": 41, "city": "Graz"}, {"age": [23], "city": [None]}]},
        {"examples": [{"age": 41, "city": {"b64": "R3Jheg=="}}, {"age": 23}], "context": {}},
    ],
    ids=str,
)
def test_examples_are_rows(content: Any) -> None:
    assert examples_of(content) == TWO_PEOPLE


def test_context_belongs_to_every_example() -> None:
    got = examples_of({"context": {"city": "Graz"}, "examples": [{"age": 41}, {"age": 23}]})

    assert got == {"age": [41, 23], "city": ["Graz", "Graz"]}


def test_example_may_hold_a_whole_row_of_a_matrix() -> None:
    assert examples_of({"examples": [{"input-0": [1.5, 2.0]}]}, NUMBERS) == {"weight": [1.5], "height": [2.0]}


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ({}, "got null"),
        ({"examples": []}, "at least one object"),
        ({"examples": [[41, "Graz"]]}, "at least one object"),
        ({"examples": [{"age": 41}], "context": []}, '"context"'),
        ({"examples": [{"age": 41}], "context": {"age": 3}}, "feature 'age' is in the context and in an example"),
        ({"examples": [TWO_PEOPLE]}, "one value per feature"),
        ({"examples": [{"age": 41}], "signature_name": "predict"}, "expected the signature predict_proba"),
    ],
    ids=str,
)
def test_wrong_examples_are_refused(content: Any, shown: str) -> None:
    with pytest.raises(InvalidRequest, match=shown):
        examples_of(content)


def test_labels_are_texts_and_scores_are_exact() -> None:
    signature = signature_of(AGE, outputs=(PROBA.model_copy(update={"classes": [0, True]}),))

    body = write_classes(reply_of({"predict_proba": np.array([[0.1, math.nan], [0.5, 0.5]])}, signature))

    assert body == b'{"results":[[["0",0.1],["true",NaN]],[["0",0.5],["true",0.5]]]}'


def test_amounts_of_shape_n_1_are_numbers() -> None:
    assert write_numbers(reply_of({"predict": np.array([[0.1], [math.inf]])})) == b'{"results":[0.1,Infinity]}'


# -- anything ------------------------------------------------------------------------------------

SIGNATURES = st.sampled_from([SHOP, NUMBERS, ONE, TEXTS])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just({"b64": "AA=="}),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["age", "city", "x", "text", "weight", "height", "b64", "input-0"]), inner)
    ),
    max_leaves=12,
)
KEYS = st.sampled_from(["instances", "inputs", "examples", "context", "signature_name", "more"])


@given(body=st.binary(max_size=60), signature=SIGNATURES)
def test_any_bytes_are_read_or_refused(body: bytes, signature: Signature) -> None:
    try_both(body, signature)


@given(content=st.dictionaries(KEYS, VALUES) | VALUES, signature=SIGNATURES)
def test_any_json_is_read_or_refused(content: Any, signature: Signature) -> None:
    try_both(json.dumps(content).encode(), signature)


def try_both(body: bytes, signature: Signature) -> None:
    for exchange in (Predict(body), Examples(body, choose_classes)):
        try:
            rows = exchange.read(signature).rows
        except RequestError:
            continue
        assert rows.n_rows > 0

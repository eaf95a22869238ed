from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import (
    InvalidRequest,
    InvalidRows,
    Problem,
    TandemError,
    UnreadableRequest,
)
from service.core.messages import InferReply, InferRequest
from service.core.signature import Column, Container, Output, Signature
from service.core.table import Frame, Matrix, SparseRows, Values
from service.protocols.http import json_reply
from service.protocols.native import Exchange, choose_outputs, has_record_form
from service.protocols.status import problem_reply
from tests.service.protocols.fake_server import AGE, SHOP, content_of, signature_of
from tests.service.protocols.tables import bodies, signatures

NUMBERS = signature_of(Column(name="a", dtype="float64"), Column(name="b", dtype="float64"))
TEXTS = signature_of(Column(name="text", dtype="string"), container=Container.SERIES)
NAN, INF = np.nan, np.inf


def read(content: Any, signature: Signature = SHOP, query: str | None = None) -> InferRequest:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Exchange(body, query).read(signature)


def problems_of(content: Any, signature: Signature = SHOP) -> tuple[Problem, ...]:
    with pytest.raises(InvalidRows) as caught:
        read(content, signature)
    return caught.value.problems


@given(body=st.binary(max_size=60), signature=signatures())
def test_any_bytes_are_a_request_or_an_error_of_ours(body: bytes, signature: Signature) -> None:
    with suppress(TandemError):
        assert isinstance(read(body, signature), InferRequest)


@given(data=st.data(), signature=signatures(), query=st.none() | st.text(max_size=10))
def test_any_json_is_a_request_or_an_error_of_ours(
    data: st.DataObject, signature: Signature, query: str | None
) -> None:
    content = data.draw(bodies(signature))
    body = json.dumps(content).encode().replace(b"e+300", data.draw(st.sampled_from([b"e+300", b"e+400"])))

    with suppress(TandemError):
        assert read(body, signature, query).rows.n_rows >= 1


def test_rows_of_plain_numbers_are_one_matrix() -> None:
    for content in (
        {"instances": [[1, 2.5], [3, 4]]},
        {"instances": [{"b": 2.5, "a": 1}, {"a": 3, "b": 4}]},
        {"columns": {"b": [2.5, 4], "a": [1, 3]}},
    ):
        rows = read(content, NUMBERS).rows

        assert isinstance(rows, Matrix)
        assert rows.values.flags.c_contiguous
        assert rows.values.tolist() == [[1.0, 2.5], [3.0, 4.0]]


def test_rows_of_several_kinds_are_one_array_per_column() -> None:
    rows = read({"instances": [[41, "Graz"], [23, None]]}).rows

    assert isinstance(rows, Frame)
    assert {name: array.tolist() for name, array in rows.columns.items()} == {"age": [41, 23], "city": ["Graz", None]}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({"instances": ["one", "two"]}, id="texts"),
        pytest.param({"instances": [["one"], ["two"]]}, id="lists"),
        pytest.param({"instances": [{"text": "one"}, {"text": "two"}]}, id="objects"),
        pytest.param({"columns": {"text": ["one", "two"]}}, id="column"),
    ],
)
def test_series_model_takes_a_list_of_texts(content: Any) -> None:
    rows = read(content, TEXTS).rows

    assert isinstance(rows, Frame)
    assert rows.columns["text"].tolist() == ["one", "two"]


@pytest.mark.parametrize("name", ["instances", "columns", "outputs"])
@pytest.mark.parametrize("nullable", [True, False], ids=["nullable", "required"])
def test_column_named_like_a_word_is_sent_in_the_forms_for_many_rows(name: str, nullable: bool) -> None:
    signature = signature_of(Column(name=name, dtype="string", nullable=nullable))

    assert read({"instances": [{name: "x"}]}, signature).rows.n_rows == 1
    assert read({"columns": {name: ["x"]}}, signature).rows.n_rows == 1
    assert not has_record_form(signature)
    with pytest.raises(InvalidRequest):
        read({name: "x"}, signature)
    with pytest.raises(InvalidRequest, match='expected "instances" or "columns"'):
        read({}, signature)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param([[1, 2]], "the body is a list of 1; expected one record like {column: value}, or", id="list"),
        pytest.param(None, "the body is null", id="null"),
        pytest.param(5, "the body is 5", id="number"),
        pytest.param({"instances": [], "columns": {}}, 'the body has both "instances" and "columns"', id="both"),
        pytest.param({"instances": [[1]], "rows": 1}, "unknown field 'rows' beside \"instances\"", id="unknown field"),
        pytest.param({"columns": {}, "x" * 999: 1}, f"unknown field '{'x' * 58}…", id="long unknown field"),
        pytest.param({"instances": []}, '"instances": expected a list of at least one row; got a list of 0', id="none"),
        pytest.param({"instances": {}}, "got an object of 0", id="instances no list"),
        pytest.param({"columns": {}}, '"columns": expected an object of lists by column name', id="no columns"),
        pytest.param({"columns": [[1]]}, "got a list of 1", id="columns no object"),
        pytest.param({"age": 1, "outputs": []}, '"outputs": expected a list of predict, predict_proba', id="no output"),
        pytest.param({"age": 1, "outputs": "predict"}, "got 'predict'", id="outputs no list"),
        pytest.param({"age": 1, "outputs": ["fly"]}, "this model offers predict, predict_proba; got 'fly'", id="fly"),
        pytest.param({"age": 1, "outputs": [["predict"]]}, "got a list of 1", id="output no text"),
    ],
)
def test_request_in_no_known_form_is_told_the_expected_one(content: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(words)):
        read(content)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(
            {"instances": [[1, "a"], [True, "b"]]}, Problem(1, "age", "an integer (int64)", "true"), id="cell"
        ),
        pytest.param({"age": "1"}, Problem(0, "age", "an integer (int64)", "'1'"), id="cell of a record"),
        pytest.param({"city": "a"}, Problem(0, "age", "an integer (int64)", "nothing"), id="missing key"),
        pytest.param({"age": None}, Problem(0, "age", "an integer (int64)", "null"), id="null"),
        pytest.param(
            {"age": 1, "agee": 2}, Problem(0, "agee", "a column of this model: age, city", "'agee'"), id="unknown key"
        ),
        pytest.param({"instances": [[1, "a"], [1], [1, "b", 2]]}, Problem(1, None, "2 values", "1"), id="ragged"),
        pytest.param(
            {"instances": [{"age": 1}, [1, "a"]]}, Problem(1, None, "an object like the others", "a list of 2"),
            id="object and list",
        ),
        pytest.param({"instances": [[1, "a"], 5]}, Problem(1, None, "a list of 2 values", "5"), id="list and number"),
        pytest.param({"columns": {"city": ["a"]}}, Problem(None, "age", "a list of values", "nothing"), id="no column"),
        pytest.param(
            {"columns": {"age": [1, 2], "city": ["a"]}},
            Problem(None, "city", "a list of 2 values, as in the other columns", "a list of 1"),
            id="short column",
        ),
        pytest.param(
            {"columns": {"age": 1}},
            Problem(None, "age", "a list of 1 values, as in the other columns", "1"),
            id="column no list",
        ),
        pytest.param(
            {"columns": {"age": [1], "x": [1]}}, Problem(None, "x", "a column of this model: age, city", "'x'"),
            id="extra column",
        ),
    ],
)  # fmt: skip
def test_first_problem_names_row_column_what_was_expected_and_what_came(content: Any, problem: Problem) -> None:
    assert problems_of(content)[0] == problem


@pytest.mark.parametrize("number", ["1e400", "-1e400"])
@pytest.mark.parametrize("dtype", ["float64", "int64", "string", "bool", "datetime"])
def test_number_that_no_float_holds_is_named_with_row_and_column(number: str, dtype: str) -> None:
    signature = signature_of(Column.model_validate({"name": "a", "dtype": dtype, "nullable": True}))

    (problem,) = problems_of(b'{"instances": [[null], [%s]]}' % number.encode(), signature)

    assert (problem.row, problem.column, problem.got) == (1, "a", number)


@pytest.mark.parametrize(
    ("number", "fits"),
    [
        ("9007199254740992", True), ("9007199254740993", False), ("1152921504606846976", True),
        ("18446744073709551616", True), ("18446744073709551617", False), ("1e300", True), ("1e308", True),
        (f"1{'0' * 22}", True), (f"1{'0' * 23}", False), (f"1{'0' * 400}", False),
    ],
)  # fmt: skip
def test_number_arrives_exactly_in_a_float_column_or_is_refused(number: str, fits: bool) -> None:
    body = b'{"instances": [[0, %s]]}' % number.encode()

    if fits:
        rows = read(body, NUMBERS).rows
        assert isinstance(rows, Matrix)
        assert rows.values[0, 1] == float(number)
    else:
        assert problems_of(body, NUMBERS)[0].column == "b"


def test_null_is_taken_only_in_the_column_of_a_matrix_that_may_be_missing() -> None:
    signature = signature_of(Column(name="a", dtype="float64", nullable=True), Column(name="b", dtype="float64"))

    rows = read({"instances": [[None, 1.5]]}, signature).rows

    assert isinstance(rows, Matrix)
    assert np.array_equal(rows.values, [[NAN, 1.5]], equal_nan=True)
    assert problems_of({"instances": [[1.5, None]]}, signature)[0].column == "b"


def test_surrogate_beside_an_out_of_range_number_is_unreadable() -> None:
    with pytest.raises(UnreadableRequest):
        read(rb'{"age": 1e400, "city": "\ud800"}')


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({"instances": [["x" * 1000, 5]] * 10_000}, id="cells"),
        pytest.param({"instances": [[1] * 3] * 10_000}, id="ragged rows"),
        pytest.param(
            {"instances": [{"\x01" * 100 + str(i): "\N{GRINNING FACE}" * 99} for i in range(10_000)]}, id="keys"
        ),
        pytest.param({f"{i}-{'x' * 100}": "y" * 100 for i in range(10_000)}, id="keys of one record"),
        pytest.param({"columns": {f"{i}": [] for i in range(10_000)}}, id="columns"),
        pytest.param({"instances": [[1, "a"]] + [0] * 10_000}, id="kinds"),
    ],
)
def test_answer_to_ten_thousand_errors_is_small(content: Any) -> None:
    with pytest.raises(InvalidRows) as caught:
        read(content)

    reply = problem_reply(caught.value, "req-1")
    assert caught.value.count >= 10_000
    assert len(reply.body) < 8192
    assert 1 < len(content_of(reply)["errors"]) <= 20


def test_huge_text_is_cut() -> None:
    (problem,) = problems_of({"age": "x" * 1_000_000})

    assert len(problem.got) <= 60


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        pytest.param(None, ("predict",), id="nothing asked"),
        pytest.param(["predict_proba"], ("predict_proba",), id="one"),
        pytest.param(
            ["predict_proba", "predict", "predict_proba"], ("predict_proba", "predict"), id="in the order asked"
        ),
    ],
)
def test_outputs_are_chosen_without_repeats(wanted: Any, chosen: tuple[str, ...]) -> None:
    assert choose_outputs(wanted, SHOP) == chosen


@pytest.mark.parametrize("query", ["", "predict,", "predict proba", "PREDICT"])
def test_output_of_the_query_that_is_not_offered_is_refused(query: str) -> None:
    with pytest.raises(InvalidRequest, match="this model offers"):
        read({"age": 1}, query=query)


# -- replies -------------------------------------------------------------------------------------


def written(outputs: dict[str, Values], *, one: bool, signature: Signature = SHOP) -> Any:
    exchange = Exchange(b'{"age": 1}' if one else b'{"instances": [[1, null]]}')
    exchange.read(SHOP)
    return content_of(json_reply(exchange.write(InferReply("shop", 3, signature, outputs))))


@pytest.mark.parametrize(
    ("values", "one", "value", "places"),
    [
        pytest.param(np.array([NAN]), True, None, [([], "NaN")], id="one number"),
        pytest.param(np.array([NAN, -INF]), False, [None, None], [([0], "NaN"), ([1], "-Infinity")], id="numbers"),
        pytest.param(np.array([[1.0, INF]]), True, [1.0, None], [([1], "Infinity")], id="one row of numbers"),
        pytest.param(np.array([[1.0], [INF]]), False, [[1.0], [None]], [([1, 0], "Infinity")], id="matrix"),
        pytest.param(
            [np.array([[0.5, NAN]]), np.array([[INF]])], True, [[0.5, None], [None]],
            [([0, 1], "NaN"), ([1, 0], "Infinity")], id="one row of several targets",
        ),
        pytest.param(
            [np.array([[0.5], [NAN]]), np.array([[1.0], [2.0]])], False, [[[0.5], [1.0]], [[None], [2.0]]],
            [([1, 0, 0], "NaN")], id="several targets",
        ),
        pytest.param(
            SparseRows(3, np.array([0, 2]), np.array([0, 2]), np.array([NAN, 2.0])), True,
            {"shape": [3], "indices": [0, 2], "data": [None, 2.0]}, [(["data", 0], "NaN")], id="one sparse row",
        ),
        pytest.param(
            SparseRows(3, np.array([0, 0, 1]), np.array([1]), np.array([INF])), False,
            {"shape": [2, 3], "indptr": [0, 0, 1], "indices": [1], "data": [None]}, [(["data", 0], "Infinity")],
            id="sparse",
        ),
        pytest.param(np.array([NAN], dtype=object), True, None, [([], "NaN")], id="one object"),
        pytest.param(
            np.array(["a", None, NAN], dtype=object), False, ["a", None, None], [([2], "NaN")], id="objects"
        ),
    ],
)  # fmt: skip
def test_null_in_an_answer_is_explained(values: Values, one: bool, value: Any, places: list[Any]) -> None:
    got = written({"transform": values}, one=one)

    expected = [{"output": "transform", "at": at, "value": what} for at, what in places]
    assert got == {"transform": value, "non_finite": expected, "model": "shop", "version": 3}


def test_places_name_the_key_of_their_output() -> None:
    outputs: dict[str, Values] = {"predict": np.array([NAN]), "predict_proba": np.array([[0.0, NAN]])}

    many, one = written(outputs, one=False), written(outputs, one=True)

    assert [place["output"] for place in many["non_finite"]] == ["predictions", "probabilities"]
    assert [place["output"] for place in one["non_finite"]] == ["prediction", "probabilities"]


@pytest.mark.parametrize(
    ("values", "value"),
    [
        pytest.param(np.int64([2**53 + 1]), 2**53 + 1, id="integer"),
        pytest.param(np.uint64([2**64 - 1]), 2**64 - 1, id="unsigned integer"),
        pytest.param(np.float32([0.1]), 0.10000000149011612, id="float32"),
        pytest.param(np.array([False]), False, id="bool"),
        pytest.param(np.array(["yes"]), "yes", id="text"),
    ],
)
def test_prediction_of_one_record_is_exact(values: Values, value: Any) -> None:
    assert written({"predict": values}, one=True)["prediction"] == value


def test_classes_stand_beside_outputs_that_run_over_them() -> None:
    by_class = written({"predict_proba": np.array([[0.25, 0.75]])}, one=False)

    assert by_class["classes"] == ["no", "yes"]
    assert "classes" not in written({"predict": np.array(["yes"])}, one=False)


def test_other_outputs_keep_their_names() -> None:
    signature = signature_of(AGE, outputs=(Output(name="score_samples", dtype="float64"),))

    got = written({"score_samples": np.array([1.5])}, one=False, signature=signature)

    assert got == {"score_samples": [1.5], "model": "shop", "version": 3}


def test_unknown_columns_and_wrong_values_are_told_together() -> None:
    found = problems_of({"instances": [{"age": "1", "city": "a", "extra": 1}]})

    assert [problem.column for problem in found] == ["extra", "age"]


def test_outputs_of_the_query_are_looked_at_also_where_the_body_comes_first() -> None:
    exchange = Exchange(b'{"age": 1, "city": "a", "outputs": ["predict"]}', "no-such-output")

    with pytest.raises(InvalidRequest, match="no-such-output"):
        exchange.read(SHOP)

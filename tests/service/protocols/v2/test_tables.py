from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from service.core.errors import InvalidRequest, InvalidRows
from service.core.messages import InferReply
from service.core.signature import Column, Container, Output
from service.core.table import Frame, Matrix, SparseRows
from service.protocols.v2 import tables as tensor_tables
from service.protocols.v2.tables import TensorAbout, choose_outputs, inputs_of, outputs_of, rows_of, tensors_of
from service.protocols.v2.tensors import Tensor
from tests.service.protocols.fake_server import AGE, CITY, SHOP, signature_of

NUMBERS = signature_of(
    Column(name="a", dtype="float64"), Column(name="b", dtype="float64"), container=Container.ARRAY,
    outputs=(Output(name="predict", dtype="float64"), Output(name="transform", dtype="float32", shape=(3,))),
)  # fmt: skip
TARGETS = signature_of(
    AGE,
    outputs=(
        Output(name="predict", dtype="int64", shape=(2,), classes=[[0, 1], [0, 1, 2]]),
        Output(name="predict_proba", dtype="float64", shape=(2,), targets=2, classes=[[0, 1], [0, 1, 2]]),
    ),
)


def texts(*values: Any) -> np.ndarray[Any, Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def test_numbers_are_one_matrix_and_tables_a_tensor_per_column() -> None:
    assert inputs_of(NUMBERS) == [TensorAbout("input-0", "FP64", (-1, 2))]
    assert inputs_of(SHOP) == [TensorAbout("age", "INT64", (-1, 1)), TensorAbout("city", "BYTES", (-1, 1))]


def test_outputs_are_described_by_name_and_of_several_targets_one_by_one() -> None:
    assert outputs_of(NUMBERS) == [TensorAbout("predict", "FP64", (-1,)), TensorAbout("transform", "FP32", (-1, 3))]
    assert outputs_of(SHOP)[0] == TensorAbout("predict", "BYTES", (-1,))
    assert outputs_of(TARGETS)[1:] == [
        TensorAbout("predict_proba_0", "FP64", (-1, 2)), TensorAbout("predict_proba_1", "FP64", (-1, 3)),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["input-0", "X", "a"])
def test_one_matrix_is_taken_under_any_name(name: str) -> None:
    values = np.arange(4.0).reshape(2, 2)

    table = rows_of([Tensor(name, "FP64", values)], NUMBERS)

    assert isinstance(table, Matrix)
    assert np.shares_memory(table.values, values)


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
@pytest.mark.parametrize("content_type", [None, "pd"])
def test_columns_come_one_by_one_in_any_order(shape: tuple[int, ...], content_type: str | None) -> None:
    tensors = [
        Tensor("city", "BYTES", texts("Graz", None).reshape(shape)),
        Tensor("age", "INT64", np.array([1, 2]).reshape(shape)),
    ]

    table = rows_of(tensors, SHOP, content_type)

    assert isinstance(table, Frame)
    assert {name: column.tolist() for name, column in table.columns.items()} == {"age": [1, 2], "city": ["Graz", None]}


def test_numbers_may_come_by_column_too() -> None:
    tensors = [Tensor("b", "FP32", np.array([3, 4], dtype="f4")), Tensor("a", "FP64", np.array([1.0, 2.0]))]

    table = rows_of(tensors, NUMBERS)

    assert isinstance(table, Matrix)
    assert table.values.tolist() == [[1.0, 3.0], [2.0, 4.0]]


def test_texts_in_base64_are_decoded() -> None:
    coded = base64.b64encode("größe".encode()).decode()
    signature = signature_of(CITY, container=Container.SERIES)

    for tensor in [
        Tensor("x", "BYTES", texts(coded, None), "base64"),
        Tensor("x", "BYTES", texts("größe", None), "str"),
    ]:
        table = rows_of([tensor], signature)
        assert isinstance(table, Frame)
        assert table.columns["city"].tolist() == ["größe", None]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ([], "no inputs"),
        ([Tensor("age", "INT64", np.array([1]))] * 2, "same name"),
        ([Tensor("age", "INT64", np.array([1]), "pickle")], "unknown content type 'pickle'"),
        ([Tensor("city", "BYTES", texts("?"), "base64")], "base64"),
        ([Tensor("age", "INT64", np.zeros((1, 2), int)), Tensor("city", "BYTES", texts("a"))], "expected shape"),
        ([Tensor("z", "INT64", np.zeros((1, 3), int))], "rows of 2 values"),
    ],
)  # fmt: skip
def test_requests_that_hold_no_rows_are_refused(tensors: list[Tensor], words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        rows_of(tensors, SHOP)

    assert words in str(caught.value)


def test_content_type_of_the_request_is_that_of_every_tensor_that_has_none() -> None:
    coded = base64.b64encode(b"Graz").decode()
    signature = signature_of(CITY)

    table = rows_of([Tensor("city", "BYTES", texts(coded))], signature, "base64")

    assert isinstance(table, Frame) and table.columns["city"].tolist() == ["Graz"]
    plain = rows_of([Tensor("city", "BYTES", texts(coded), "str")], signature, "base64")
    assert isinstance(plain, Frame) and plain.columns["city"].tolist() == [coded]
    with pytest.raises(InvalidRequest, match="unknown content type 'pickle'"):
        rows_of([Tensor("city", "BYTES", texts("Graz"))], signature, "pickle")


def test_unknown_column_is_named() -> None:
    with pytest.raises(InvalidRows) as caught:
        rows_of([Tensor("age", "INT64", np.array([1])), Tensor("town", "BYTES", texts("Graz"))], SHOP)

    assert caught.value.problems[0].column == "town"


def test_outputs_are_chosen_by_tensor() -> None:
    assert choose_outputs(None, NUMBERS) == ("predict",)
    assert choose_outputs([], NUMBERS) == ("predict",)
    assert choose_outputs(["transform", "predict", "transform"], NUMBERS) == ("transform", "predict")
    assert choose_outputs(["predict_proba_1", "predict_proba_0"], TARGETS) == ("predict_proba",)
    with pytest.raises(InvalidRequest, match="this model offers predict, predict_proba_0"):
        choose_outputs(["predict_proba"], TARGETS)


def test_answers_become_tensors_in_the_order_wanted() -> None:
    probabilities = [np.array([[0.5, 0.5]]), np.array([[0.25, 0.25, 0.5]])]
    reply = InferReply("m", 1, TARGETS, {"predict": np.array([[0, 2]]), "predict_proba": probabilities})

    found = tensors_of(reply, ["predict_proba_1", "predict"])

    assert [tensor.name for tensor in found] == ["predict_proba_1", "predict"]
    assert found[0].values is probabilities[1]
    assert [tensor.name for tensor in tensors_of(reply)] == ["predict", "predict_proba_0", "predict_proba_1"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array(["a", "b"]), ["a", "b"]),
        (texts("a", None), ["a", "null"]),
        (texts(1, True), ["1", "true"]),
        (np.array(["2020-01-02"], dtype="M8[D]"), ["2020-01-02"]),
        (texts(b"\xff"), [b"\xff"]),
    ],
)
def test_labels_become_texts(labels: np.ndarray[Any, Any], expected: list[Any]) -> None:
    (tensor,) = tensors_of(InferReply("m", 1, SHOP, {"predict": labels}))

    assert tensor.datatype == "BYTES"
    assert tensor.values.tolist() == expected


def test_sparse_rows_are_spread_out_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = SparseRows(3, np.array([0, 2, 2]), np.array([0, 2]), np.array([1.5, 2.5]))
    signature = signature_of(CITY, outputs=(Output(name="transform", dtype="float64", shape=(3,), sparse=True),))
    reply = InferReply("m", 1, signature, {"transform": rows})

    (tensor,) = tensors_of(reply)
    assert tensor.values.tolist() == [[1.5, 0.0, 2.5], [0.0, 0.0, 0.0]]

    monkeypatch.setattr(tensor_tables, "DENSE_BYTES", 40)
    with pytest.raises(InvalidRequest, match="too large"):
        tensors_of(reply)

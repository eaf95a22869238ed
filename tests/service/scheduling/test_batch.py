from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.core.errors import ModelFailed
from service.core.messages import InferRequest
from service.core.table import Frame, Matrix, SparseRows, Table, Values, column_arrays
from service.scheduling.batch import kind, merge, size_bytes
from tests.faults.cases import fault

_PREDICT = ("predict",)


def _texts(*values: object) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _frame(rows: int) -> Frame:
    return Frame(
        {
            "income": np.arange(rows, dtype=np.float64),
            "city": _texts(*("Rome" if row % 2 else None for row in range(rows))),
            "since": np.arange(rows).astype("datetime64[ns]"),
        }
    )


def _matrix(rows: int) -> Matrix:
    return Matrix(np.arange(rows * 3, dtype=np.float32).reshape(rows, 3))


def _echo(rows: Table) -> dict[str, Values]:
    """What an engine answers that gives its rows back, in every form that answers have."""
    columns = column_arrays(rows)
    first = columns[0].astype(np.float64)
    row_numbers = np.arange(rows.n_rows + 1)
    return {
        "vector": first,
        "labels": columns[1],
        "targets": [first.reshape(-1, 1), first + 1],
        "sparse": SparseRows(3, row_numbers, np.zeros(rows.n_rows, dtype=np.int32), first),
    }


def _plain(answer: dict[str, Values]) -> dict[str, Any]:
    def one(values: Values) -> Any:
        if isinstance(values, SparseRows):
            return [values.width, values.indptr.tolist(), values.indices.tolist(), values.data.tolist()]
        return [target.tolist() for target in values] if isinstance(values, list) else values.tolist()

    return {name: one(values) for name, values in answer.items()}


@fault("B03", sent="any sizes, merged and split", expected="each its own rows")
@pytest.mark.parametrize("make", [_matrix, _frame])
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_split_undoes_merge(make: Any, lengths: list[int]) -> None:
    tables = [make(rows) for rows in lengths]
    batch = merge([InferRequest(table, _PREDICT) for table in tables])

    answers = batch.split(_echo(batch.rows))

    assert batch.offsets == tuple(np.cumsum([0, *lengths]).tolist())
    assert [_plain(answer) for answer in answers] == [_plain(_echo(table)) for table in tables]


@pytest.mark.parametrize("make", [_matrix, _frame])
def test_merged_rows_are_of_the_same_kind(make: Any) -> None:
    batch = merge([InferRequest(make(rows), _PREDICT) for rows in (2, 3)])

    assert kind(batch.rows) == kind(make(1))


@fault("B16", sent="an engine that works in place on a batch", expected="the requests' rows as they were")
@pytest.mark.parametrize("make", [_matrix, _frame])
def test_whoever_works_in_place_on_merged_rows_leaves_those_of_the_requests(make: Any) -> None:
    requests = [InferRequest(make(rows), _PREDICT) for rows in (2, 3)]

    for column in column_arrays(merge(requests).rows):
        column[:] = column[::-1].copy()

    assert [_plain(_echo(request.rows)) for request in requests] == [_plain(_echo(make(rows))) for rows in (2, 3)]


def test_single_request_is_not_copied() -> None:
    rows = _matrix(4)

    assert merge([InferRequest(rows, _PREDICT)]).rows is rows


def test_matrix_stays_row_by_row_in_memory() -> None:
    rows = merge([InferRequest(_matrix(2), _PREDICT)] * 2).rows

    assert isinstance(rows, Matrix)
    assert rows.values.flags.c_contiguous


@fault("B02", sent="rows of another width or type", expected="another kind: never merged")
@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(Frame({"a": np.array([1])}), Frame({"a": np.array([np.nan])}), id="an integer is missing"),
        pytest.param(Frame({"a": np.array([True])}), Frame({"a": _texts(None)}), id="a truth value is missing"),
        pytest.param(Frame({"a": np.array([1])}), Frame({"b": np.array([1])}), id="names"),
        pytest.param(Matrix(np.ones((1, 2))), Matrix(np.ones((1, 2), dtype=np.float32)), id="precision"),
        pytest.param(Matrix(np.ones((1, 2))), Matrix(np.ones((1, 3))), id="width"),
        pytest.param(
            Frame({"a": np.array(["2020"], "datetime64[s]")}),
            Frame({"a": np.array(["2020"], "datetime64[ns]")}),
            id="unit of time",
        ),
    ],
)
def test_rows_that_stacking_would_change_are_of_another_kind(one: Table, other: Table) -> None:
    assert kind(one) != kind(other)


@fault("B04", sent="answers of another number of rows", expected="ModelFailed")
@pytest.mark.parametrize("rows", [1, 4])
def test_engine_that_answers_another_number_of_rows_has_failed(rows: int) -> None:
    batch = merge([InferRequest(_matrix(1), _PREDICT), InferRequest(_matrix(2), _PREDICT)])

    with pytest.raises(ModelFailed):
        batch.split({"predict": np.zeros(rows)})


def test_texts_weigh_what_they_hold() -> None:
    short = Frame({"text": _texts("a", None)})
    long = Frame({"text": _texts("a" * 10_000, None)})

    assert size_bytes(_matrix(2)) == 24
    assert size_bytes(long) - size_bytes(short) == 9_999

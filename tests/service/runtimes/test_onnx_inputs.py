"""From a table to what a graph is fed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.signature import Column, Container, Output, Signature
from service.core.table import Frame, Matrix, Table
from service.runtimes.onnx_inputs import CODES, NUMBERS, feeder

OUTPUTS = (Output(name="predict", dtype="float64"),)
COLOURS = {"column": "colour", "values": ["red", "green"], "first": 10, "missing": 12, "unseen": 13}


def signature(**dtypes: Any) -> Signature:
    columns = tuple(Column(name=name, dtype=dtype) for name, dtype in dtypes.items())
    return Signature(container=Container.FRAME, columns=columns, outputs=OUTPUTS)


def objects(*values: Any) -> Any:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def fed(table: Table, known: Signature, **options: Any) -> Any:
    inputs = ({NUMBERS} if options.get("numbers", known.names) else set()) | (
        {CODES} if options.get("codes") else set()
    )
    return feeder(inputs, known, {"codes": [], **options})(table)


def test_a_matrix_of_doubles_is_fed_as_it_is() -> None:
    values = np.ones((3, 2))

    feed, bad = fed(Matrix(values), signature(a="float64", b="float64"))

    assert feed[NUMBERS] is values
    assert bad is None


@pytest.mark.parametrize("dtype", ["float32", "int64", "int8", "uint16", "bool"])
def test_a_matrix_of_other_numbers_becomes_doubles(dtype: Any) -> None:
    values = np.array([[0, 1], [1, 1]]).astype(dtype)

    feed, bad = fed(Matrix(values), signature(a=dtype, b=dtype))

    assert feed[NUMBERS].dtype == np.float64
    np.testing.assert_array_equal(feed[NUMBERS], values.astype(float))
    assert bad is None


def test_columns_of_all_kinds_stand_side_by_side_in_the_order_of_the_graph() -> None:
    known = signature(a="float32", b="int64", c="bool", d="float64")
    table = Frame(
        {
            "a": np.array([0.5, np.nan], dtype=np.float32),
            "b": np.array([3, 4]),
            "c": objects(True, None),
            "d": np.array([7.0, 8.0]),
        }
    )

    feed, bad = fed(table, known, numbers=["d", "c", "b", "a"])

    np.testing.assert_array_equal(feed[NUMBERS], [[7.0, 1.0, 3.0, 0.5], [8.0, np.nan, 4.0, np.nan]])
    assert feed[NUMBERS].flags.c_contiguous
    assert bad is None


def test_text_becomes_the_code_of_its_category_or_that_of_missing_or_unseen() -> None:
    table = Frame({"colour": objects("green", None, "red", "\0", "\ud800", "Red")})

    feed, bad = fed(table, signature(colour="string"), numbers=[], codes=[COLOURS])

    assert feed[CODES].tolist() == [[11, 12, 10, 13, 13, 13]]
    assert bad is None


def test_categories_that_are_numbers_are_looked_up_too() -> None:
    codes = [
        {"column": "size", "values": [1.0, 2.5], "first": 0, "missing": 2, "unseen": 3},
        {"column": "member", "values": [False, True], "first": 4, "missing": 6, "unseen": -1},
    ]
    table = Frame({"size": np.array([2.5, np.nan, 7.0]), "member": np.array([True, False, True])})

    feed, bad = fed(table, signature(size="float64", member="bool"), numbers=[], codes=codes)

    assert feed[CODES].tolist() == [[1, 2, 3], [5, 4, 5]]
    assert bad is None


def test_columns_of_a_matrix_may_be_categories() -> None:
    codes = [{"column": "b", "values": [5, 6], "first": 0, "missing": -1, "unseen": 2}]

    feed, _ = fed(Matrix(np.array([[1, 6], [1, 9]])), signature(a="int64", b="int64"), codes=codes)

    assert feed[CODES].tolist() == [[1, 2]]


def test_values_that_the_estimator_was_seen_to_fail_on_are_told_and_fed_as_something_harmless() -> None:
    closed = COLOURS | {"missing": -1, "unseen": -1}
    table = Frame({"colour": objects("green", None, "violet")})

    feed, bad = fed(table, signature(colour="string"), numbers=[], codes=[closed])

    assert feed[CODES].tolist() == [[11, 0, 0]]
    assert bad.tolist() == [False, True, True]


@pytest.mark.parametrize("as_frame", [False, True])
def test_integers_that_a_double_would_round_are_told(as_frame: bool) -> None:
    values = np.array([[2**53 - 1, 0], [2**53 + 1, 0], [-(2**53) - 1, 0]])
    table: Table = Frame({"a": values[:, 0], "b": values[:, 1]}) if as_frame else Matrix(values)

    _, bad = fed(table, signature(a="int64", b="int64"))

    assert bad.tolist() == [False, True, True]


def test_missing_numbers_do_not_hide_one_that_is_too_large() -> None:
    values = np.array([[np.nan, 1.0], [np.nan, 1e31], [2.0, 3.0]])

    _, bad = fed(Matrix(values), signature(a="float64", b="float64"), limit=1e30)

    assert bad.tolist() == [False, True, False]


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=64), min_size=1, max_size=20))
def test_exactly_the_numbers_beyond_the_limit_are_told(numbers: list[float]) -> None:
    values = np.array(numbers).reshape(-1, 1)

    with np.errstate(over="ignore", invalid="ignore"):
        _, bad = fed(Matrix(values), signature(a="float64"), limit=1e30)

    expected = [abs(number) > 1e30 for number in numbers]
    assert (bad.tolist() if bad is not None else [False] * len(numbers)) == expected

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from service.core.errors import InvalidRequest, InvalidRows
from service.core.signature import Column, Container
from service.core.table import Frame, Matrix
from service.protocols.arrays import decode_array, decode_arrays, decode_matrix
from service.protocols.values import Problems, decode_column
from tests.service.protocols.fake_server import AGE, CITY, SHOP, signature_of
from tests.service.protocols.tables import cells, columns, fitting

NUMBERS = signature_of(
    Column(name="a", dtype="float64"), Column(name="b", dtype="float64"), container=Container.ARRAY
)  # fmt: skip


def plain_list(array: NDArray[Any]) -> list[Any]:
    """As JSON would bring it."""
    if array.dtype.kind == "f":
        return [None if value != value else float(value) for value in array]
    return array.tolist()


@st.composite
def number_arrays(draw: st.DrawFn) -> NDArray[Any]:
    dtype = draw(
        hnp.integer_dtypes()
        | hnp.unsigned_integer_dtypes()
        | hnp.floating_dtypes(sizes=(16, 32, 64))
        | st.just(np.dtype("?"))
    )
    near = st.sampled_from([0, 1, 2**24, 2**24 + 1, 2**31, 2**53, 2**53 + 1, 2**63 - 1])
    drawn: NDArray[Any] = draw(hnp.arrays(dtype, st.integers(1, 4)))
    if dtype.kind in "iu" and draw(st.booleans()):
        with np.errstate(over="ignore"):
            drawn[0] = min(draw(near), np.iinfo(dtype).max)
    return drawn


@given(values=number_arrays(), column=columns())
def test_array_is_decoded_as_the_list_of_its_values(values: NDArray[Any], column: Column) -> None:
    by_list, by_array = Problems(), Problems()
    expected = decode_column(plain_list(values), column, by_list, exact=True)

    found = decode_array(values, column, by_array)

    assert by_array.count == by_list.count
    if not by_list.count:
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected, equal_nan=found.dtype.kind in "fM")


@given(data=st.data(), column=columns())
def test_array_of_objects_is_decoded_as_the_list_of_its_values(data: st.DataObject, column: Column) -> None:
    values = data.draw(st.lists(cells() | fitting(column), min_size=1, max_size=4))
    objects = np.empty(len(values), dtype=object)
    objects[:] = values
    by_list, by_array = Problems(), Problems()
    expected = decode_column(values, column, by_list, exact=True)

    found = decode_array(objects, column, by_array)

    assert by_array.count == by_list.count
    if not by_list.count:
        assert found.tolist() == expected.tolist() or found.dtype.kind in "fM"


@given(values=number_arrays(), column=columns(), data=st.data())
def test_what_is_masked_is_decoded_as_null(values: NDArray[Any], column: Column, data: st.DataObject) -> None:
    mask = data.draw(hnp.arrays(bool, values.shape))
    listed = [None if hole else value for value, hole in zip(plain_list(values), mask, strict=True)]
    by_list, by_array = Problems(), Problems()
    expected = decode_column(listed, column, by_list, exact=True)

    found = decode_array(np.ma.MaskedArray(values, mask), column, by_array)

    assert by_array.count == by_list.count
    if not by_list.count:
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected, equal_nan=found.dtype.kind in "fM")


@given(
    numbers=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**12), 10**12), min_size=1, max_size=3),
    unit=st.sampled_from(["D", "h", "m", "s", "ms", "us", "ns"]),
    column=columns().filter(lambda column: column.dtype == "datetime"),
)
def test_moments_are_decoded_as_their_texts(numbers: list[int], unit: str, column: Column) -> None:
    values = np.array(numbers, dtype="i8").view(f"M8[{unit}]")
    offset = "Z" if column.timezone else ""
    texts = [None if np.isnat(value) else f"{np.datetime_as_string(value, unit='auto')}" for value in values]
    # A time of day is what an offset follows, and minutes are what an hour has.
    full = [text and f"{text}{'T00:00' if len(text) == 10 else ''}{offset}" for text in texts]
    by_list, by_array = Problems(), Problems()
    expected = decode_column(full, column, by_list, exact=True)

    found = decode_array(values, column, by_array)

    assert by_array.count == by_list.count
    if not by_list.count:
        assert found.dtype == expected.dtype and np.array_equal(found, expected, equal_nan=True)


@pytest.mark.parametrize("unit", ["D", "h", "m", "s", "ms", "us", "ns"])
@pytest.mark.parametrize("wanted", ["s", "us", "ns"])
def test_moments_of_any_unit_are_taken(unit: str, wanted: str) -> None:
    column = Column(name="at", dtype="datetime", nullable=True, pandas=f"datetime64[{wanted}]")
    values = np.array(["2025-02-28", "NaT"], dtype=f"datetime64[{unit}]")

    found = decode_array(values, column, Problems())

    assert np.array_equal(found, values.astype(f"datetime64[{wanted}]"), equal_nan=True)


def test_moment_finer_than_the_column_is_refused() -> None:
    problems = Problems()

    decode_array(np.array([1], dtype="datetime64[ns]"), Column(name="at", dtype="datetime"), problems)

    assert problems.count == 1


def test_matrix_that_fits_is_not_copied() -> None:
    values = np.arange(6.0).reshape(3, 2)

    table = decode_matrix(values, NUMBERS)

    assert isinstance(table, Matrix)
    assert np.shares_memory(table.values, values)


@pytest.mark.parametrize(
    "values",
    [
        np.asfortranarray(np.arange(6.0).reshape(3, 2)),
        np.frombuffer(b"x" + np.arange(6.0).tobytes(), dtype=np.float64, offset=1).reshape(3, 2),
        np.arange(6.0, dtype=">f8").reshape(3, 2),
        np.arange(6, dtype=np.uint8).reshape(3, 2),
        np.arange(6, dtype=np.float32).reshape(3, 2),
    ],
    ids=["order", "alignment", "byte order", "integers", "single precision"],
)  # fmt: skip
def test_matrix_of_another_make_is_the_same_numbers(values: NDArray[Any]) -> None:
    table = decode_matrix(values, NUMBERS)

    assert isinstance(table, Matrix)
    assert table.values.dtype == np.float64
    assert table.values.flags.c_contiguous and table.values.flags.aligned
    assert table.values.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_named_with_its_place(bad: float) -> None:
    values = np.zeros((3, 2))
    values[2, 1] = bad

    with pytest.raises(InvalidRows) as caught:
        decode_matrix(values, NUMBERS)

    assert (caught.value.problems[0].row, caught.value.problems[0].column) == (2, "b")


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 3), (0, 2), (1, 2, 1), ()])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match=r"rows of 2 values.*got \("):
        decode_matrix(np.zeros(shape), NUMBERS)


def test_matrix_of_one_column_may_be_flat() -> None:
    table = decode_matrix(np.zeros(3), signature_of(Column(name="a", dtype="float32")))

    assert isinstance(table, Matrix)
    assert table.values.shape == (3, 1)


def test_matrix_of_objects_fills_a_mixed_table() -> None:
    table = decode_matrix(np.array([[41, "Graz"], [23, None]], dtype=object), SHOP)

    assert isinstance(table, Frame)
    assert table.columns["age"].tolist() == [41, 23]
    assert table.columns["city"].tolist() == ["Graz", None]


def test_columns_come_in_any_order_and_may_be_left_out_where_they_may_be_missing() -> None:
    table = decode_arrays({"city": np.array(["Graz", b"Linz"], dtype=object), "age": np.array([1, 2])}, SHOP)
    without = decode_arrays({"age": np.array([1, 2])}, SHOP)

    assert isinstance(table, Frame) and isinstance(without, Frame)
    assert list(table.columns) == ["age", "city"]
    assert table.columns["city"].tolist() == ["Graz", "Linz"]
    assert without.columns["city"].tolist() == [None, None]


def test_bytes_that_are_no_text_are_refused() -> None:
    problems = Problems()

    decode_array(np.array([b"\xff"], dtype=object), CITY, problems)

    assert problems.count == 1


@pytest.mark.parametrize(
    ("arrays", "column"),
    [
        ({"age": np.array([1]), "town": np.array(["x"])}, "town"),
        ({"city": np.array(["Graz"])}, "age"),
        ({"age": np.array([1]), "city": np.array(["a", "b"])}, "age"),
        ({"age": np.zeros((1, 1))}, "age"),
        ({"age": np.array([0.5])}, "age"),
    ],
    ids=["unknown", "missing", "length", "shape", "value"],
)
def test_wrong_columns_are_named(arrays: dict[str, NDArray[Any]], column: str) -> None:
    with pytest.raises(InvalidRows) as caught:
        decode_arrays(arrays, signature_of(AGE, CITY))

    assert column in {problem.column for problem in caught.value.problems}


@pytest.mark.parametrize("arrays", [{}, {"age": np.array([], dtype=int)}])
def test_no_rows_are_refused(arrays: dict[str, NDArray[Any]]) -> None:
    with pytest.raises(InvalidRequest):
        decode_arrays(arrays, signature_of(AGE, CITY))

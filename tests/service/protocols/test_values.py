from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from service.core.errors import InvalidRows
from service.core.signature import FLOATS, INTS, Column
from service.core.table import Frame, Matrix, Table, column_arrays
from service.protocols.json_body import read_json
from service.protocols.native import decode_columns, write_columns
from service.protocols.values import (
    ABSENT,
    NeedsExactParse,
    Problems,
    accept_datetime,
    datetime_unit,
    decode_column,
    decode_few,
    decode_numbers,
    expected,
)
from tests.service.protocols.fake_server import signature_of
from tests.service.protocols.tables import DTYPES, cells, columns, fitting


class Unusual:
    """A value of no kind the quick way knows, so that a column with it goes value by value."""


def decode(values: list[Any], column: Column) -> NDArray[Any] | None:
    """The column's array, or None where it is refused."""
    problems = Problems()
    array = decode_column(values, column, problems, exact=True)
    return None if problems.count else array


def column_of(dtype: str, **about: Any) -> Column:
    return Column.model_validate({"name": "x", "dtype": dtype, **about})


def same(one: Any, other: Any) -> bool:
    """Equal, or both missing: None, NaN and NaT stand for it."""
    missing = [value is None or value != value for value in (one, other)]
    return all(missing) or bool(one == other)


@given(data=st.data(), column=columns())
def test_quick_way_accepts_exactly_what_the_law_accepts(data: st.DataObject, column: Column) -> None:
    values = data.draw(st.lists(cells() | fitting(column), min_size=1, max_size=4))
    by_law = Problems()
    decode_column([*values, Unusual()], column, by_law, exact=True)

    at_once = decode(values, column)

    assert (at_once is not None) == (by_law.count == 1)


@given(data=st.data(), column=columns())
def test_column_decodes_to_what_its_values_decode_to_one_by_one(data: st.DataObject, column: Column) -> None:
    drawn = data.draw(st.lists(cells() | fitting(column), min_size=1, max_size=8))
    values = [value for value in drawn if decode([value], column) is not None]
    assume(values)

    together = decode(values, column)

    assert together is not None
    singles = [array[0] for value in values if (array := decode([value], column)) is not None]
    assert all(same(one, other) for one, other in zip(together, singles, strict=True))


@given(data=st.data())
def test_columns_that_are_alike_decode_as_each_of_them_alone(data: st.DataObject) -> None:
    few = st.one_of(
        columns(), st.builds(column_of, st.sampled_from(["float64", "int64", "string"]), nullable=st.booleans())
    )
    drawn = data.draw(st.lists(few, min_size=1, max_size=5))
    kinds = [column.model_copy(update={"name": f"x{place}"}) for place, column in enumerate(drawn)]
    rows = data.draw(st.integers(1, 3))
    values = [data.draw(st.lists(cells() | fitting(kind), min_size=rows, max_size=rows)) for kind in kinds]

    found = decode_few(values, signature_of(*kinds), exact=True)

    alone = {kind.name: decode(own, kind) for kind, own in zip(kinds, values, strict=True)}
    if found is not None:  # else each is looked at alone
        assert list(found) == list(alone)
        for array, own in zip(found.values(), alone.values(), strict=True):
            assert own is not None
            assert (array.dtype, array.shape) == (own.dtype, own.shape)
            assert all(map(same, array.tolist(), own.tolist()))


def test_columns_of_numbers_and_texts_that_are_alike_are_decoded_together() -> None:
    kinds = [
        Column(name=f"x{place}", dtype=dtype, nullable=True)
        for place, dtype in enumerate(("float64", "string", "float64", "string"))
    ]

    found = decode_few([[1], ["a"], [None], [None]], signature_of(*kinds))

    assert found is not None
    assert {name: array.tolist() for name, array in found.items()} == {
        "x0": [1.0], "x1": ["a"], "x2": [pytest.approx(np.nan, nan_ok=True)], "x3": [None],
    }  # fmt: skip


@given(data=st.data(), dtype=st.sampled_from([*FLOATS, *INTS, "bool"]), nullable=st.booleans())
def test_matrix_decodes_to_what_its_columns_decode_to(data: st.DataObject, dtype: str, nullable: bool) -> None:
    column = column_of(dtype, nullable=nullable and dtype in FLOATS)
    values = data.draw(st.lists(cells() | fitting(column), min_size=1, max_size=4))

    array = decode_numbers(values, np.dtype(dtype), nullable=column.nullable, max_abs=np.inf)

    if array is not None:
        by_column = decode(values, column)
        assert by_column is not None
        assert array.dtype == by_column.dtype
        assert np.array_equal(array, by_column, equal_nan=array.dtype.kind == "f")


@st.composite
def arrays_of(draw: st.DrawFn, column: Column) -> NDArray[Any]:
    """What a column of this kind decodes to, at any value the dtype holds."""
    size, dtype = 3, column.dtype
    if dtype in FLOATS:
        array = draw(hnp.arrays(dtype, size, elements={"allow_infinity": False, "allow_nan": column.nullable}))
    elif dtype in INTS and not column.nullable:
        array = draw(hnp.arrays(dtype, size))
    elif dtype in INTS:
        top = min(np.iinfo(dtype).max, 2**53 - 1)
        array = np.array([*draw(st.lists(st.integers(0, int(top)), min_size=size, max_size=size)), np.nan])
    elif dtype == "bool":
        array = np.array([True, None, False], dtype=object) if column.nullable else draw(hnp.arrays("?", size))
    elif dtype == "string":
        texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
        array = np.array(draw(st.lists(st.none() | texts if column.nullable else texts, min_size=size)), dtype=object)
    else:
        days = st.datetimes().map(lambda moment: moment.replace(year=max(1678, min(moment.year, 2261)), day=1))
        array = np.array(draw(st.lists(days, min_size=size)), dtype=f"datetime64[{datetime_unit(column)}]")
        if column.nullable:
            array[0] = np.array("NaT", dtype=array.dtype)
    return array


@given(data=st.data(), dtype=st.sampled_from(DTYPES), nullable=st.booleans())
def test_decode_undoes_encode(data: st.DataObject, dtype: str, nullable: bool) -> None:
    unit = data.draw(st.sampled_from(["s", "ms", "us", "ns"]))
    zone = data.draw(st.sampled_from([None, "UTC"]))
    about = {"timezone": zone, "pandas": f"datetime64[{unit}]"} if dtype == "datetime" else {}
    column = column_of(dtype, nullable=nullable, **about)
    array = data.draw(arrays_of(column))
    signature = signature_of(column)
    table: Table = Frame({"x": array}) if signature.matrix_dtype is None else Matrix(array.reshape(-1, 1))

    body = json.dumps(write_columns(table, signature), allow_nan=False).encode()
    back = read_json(body, lambda content, exact: decode_columns(content, signature, exact=exact))

    (decoded,) = column_arrays(back)
    assert type(back) is type(table)
    assert decoded.dtype == array.dtype
    assert np.array_equal(decoded, array, equal_nan=array.dtype.kind in "fM")


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        pytest.param("int64", 2**63 - 1, id="greatest int64"),
        pytest.param("int64", -(2**63), id="least int64"),
        pytest.param("uint64", 2**64 - 1, id="greatest uint64"),
        pytest.param("int64", 2**53 + 1, id="integer that no float64 holds"),
        pytest.param("int8", 1.0, id="1.0 is an integer"),
        pytest.param("float64", 2**53, id="integer that a float64 holds"),
        pytest.param("float64", 2**60, id="large integer that a float64 holds"),
        pytest.param("float64", 1e300, id="large float64"),
        pytest.param("float64", 5e-324, id="least float64"),
        pytest.param("float32", 2**24, id="integer that a float32 holds"),
        pytest.param("float16", 65504, id="greatest float16"),
        pytest.param("bool", False, id="false"),
        pytest.param("string", "1.5", id="text"),
    ],
)
def test_value_arrives_exactly(dtype: str, value: Any) -> None:
    array = decode([value], column_of(dtype))

    assert array is not None
    assert array.tolist() == [value]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        pytest.param("float64", True, id="true is no number"),
        pytest.param("int64", True, id="true is no integer"),
        pytest.param("float64", "1.5", id="a text is no number"),
        pytest.param("int64", "1", id="a text is no integer"),
        pytest.param("int64", 1.5, id="1.5 is no integer"),
        pytest.param("int64", 2.0**53, id="a float that may have lost digits is no integer"),
        pytest.param("int64", 2**63, id="beyond int64"),
        pytest.param("uint64", -1, id="below uint64"),
        pytest.param("int8", 128, id="beyond int8"),
        pytest.param("float64", 2**53 + 1, id="rounded by float64"),
        pytest.param("float64", 2**64 + 1, id="beyond 64 bits and rounded by float64"),
        pytest.param("float64", 10**400, id="beyond float64"),
        pytest.param("float32", 2**24 + 1, id="rounded by float32"),
        pytest.param("float32", 1e39, id="beyond float32"),
        pytest.param("float16", 65505.0, id="beyond float16"),
        pytest.param("bool", 1, id="1 is not true"),
        pytest.param("bool", "true", id="a text is not true"),
        pytest.param("string", 1, id="a number is no text"),
        pytest.param("string", ["a"], id="a list is no text"),
        pytest.param("float64", {"a": 1}, id="an object is no number"),
        *(pytest.param(dtype, None, id=f"null is no {dtype}") for dtype in ("float64", "int64", "bool", "string")),
        pytest.param("datetime", None, id="null is no datetime"),
        pytest.param("float64", ABSENT, id="nothing is no number"),
    ],
)
def test_no_value_is_cast(dtype: str, value: Any) -> None:
    assert decode([value], column_of(dtype)) is None


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("float64", "<f8"), ("float32", "<f4"), ("int64", "<f8"), ("uint8", "<f8"),
        ("bool", "|O"), ("string", "|O"), ("datetime", "<M8[us]"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("nothing", [None, ABSENT], ids=["null", "no key"])
def test_null_is_a_missing_value_where_the_column_may_be_missing(dtype: str, kind: str, nothing: Any) -> None:
    array = decode([nothing, nothing], column_of(dtype, nullable=True))

    assert array is not None
    assert array.dtype.str == kind
    assert all(value is None or value != value for value in array)


def test_integer_beside_a_missing_one_must_be_exact_in_float64() -> None:
    column = column_of("int64", nullable=True)

    assert decode([2**53 - 1, None], column) is not None
    assert decode([2**53 + 1, None], column) is None
    assert decode([-(2**63)], column) is None


@pytest.mark.parametrize(("dtype", "value"), [("uint8", -1), ("uint8", 256), ("int8", -129), ("uint64", -1)])
def test_integer_beside_a_missing_one_keeps_to_its_dtype(dtype: str, value: int) -> None:
    assert decode([value, None], column_of(dtype, nullable=True)) is None


@pytest.mark.parametrize(
    ("about", "value", "fits"),
    [
        pytest.param({"closed": True}, "a", True, id="known category"),
        pytest.param({"closed": True}, "b", False, id="unknown category of a closed column"),
        pytest.param({}, "b", True, id="unknown category of an open column"),
        pytest.param({"closed": True, "nullable": True}, None, True, id="null beside closed categories"),
        pytest.param({"closed": True}, None, False, id="null is no category"),
    ],
)
def test_categories_are_closed_or_open(about: dict[str, Any], value: Any, fits: bool) -> None:
    assert (decode([value], column_of("string", categories=["a"], **about)) is not None) is fits


@pytest.mark.parametrize(("value", "fits"), [(1e30, True), (-1e30, True), (1.1e30, False), (-1.1e30, False)])
def test_number_beyond_what_the_estimator_takes_is_refused(value: float, fits: bool) -> None:
    assert (decode([value], column_of("float64", max_abs=1e30)) is not None) is fits


@pytest.mark.parametrize("value", [2.0**63, -(2.0**64), 1e300])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "string"])
def test_float_that_may_be_an_integer_asks_for_the_exact_parser(dtype: str, value: float) -> None:
    with pytest.raises(NeedsExactParse):
        decode_column([value] if dtype != "float32" else [1e30], column_of(dtype), Problems())


@pytest.mark.parametrize(
    ("text", "pandas", "timezone", "moment"),
    [
        pytest.param("2020-01-02", "datetime64[us]", None, "2020-01-02T00:00:00.000000", id="day"),
        pytest.param("2020-01-02 03:04", "datetime64[s]", None, "2020-01-02T03:04:00", id="minutes"),
        pytest.param("2020-01-02T03:04:05.123456789", "datetime64[ns]", None, "2020-01-02T03:04:05.123456789", id="ns"),
        pytest.param("1969-12-31T23:59:59.5", "datetime64[ms]", None, "1969-12-31T23:59:59.500", id="before 1970"),
        pytest.param("2020-01-02T03:04:05Z", "datetime64[s, UTC]", "UTC", "2020-01-02T03:04:05", id="UTC"),
        pytest.param("2020-01-02T03:04:05+05:30", "datetime64[s, UTC]", "UTC", "2020-01-01T21:34:05", id="ahead"),
        pytest.param("2020-01-01T23:30:00-01:00", "datetime64[s, UTC]", "UTC", "2020-01-02T00:30:00", id="behind"),
        pytest.param("1500-01-01", "datetime64[us]", None, "1500-01-01T00:00:00.000000", id="long ago"),
        pytest.param("9999-12-31", None, None, "9999-12-31T00:00:00.000000", id="far away"),
        pytest.param(
            "1677-09-21T00:12:43.145224193", "datetime64[ns]", None, "1677-09-21T00:12:43.145224193", id="first ns"
        ),
        pytest.param(
            "2262-04-11T23:47:16.854775807", "datetime64[ns]", None, "2262-04-11T23:47:16.854775807", id="last ns"
        ),
    ],
)
def test_datetime_is_read_in_the_unit_of_its_column(
    text: str, pandas: str | None, timezone: str | None, moment: str
) -> None:
    column = column_of("datetime", pandas=pandas, timezone=timezone)

    ok, got = accept_datetime(text, column)

    assert ok
    assert str(got) == moment
    assert np.datetime_data(got)[0] == datetime_unit(column)


@pytest.mark.parametrize(
    ("text", "timezone"),
    [
        pytest.param("2020-01-02T03:04:05Z", None, id="an offset where there is none"),
        pytest.param("2020-01-02T03:04:05", "UTC", id="no offset where there is one"),
        pytest.param("2021-02-30", None, id="no such day"),
        pytest.param("2020-13-01", None, id="no such month"),
        pytest.param("2020-01-02T24:00", None, id="no such hour"),
        pytest.param("2020-01-02T03:04:05+99:99", "UTC", id="no such offset"),
        pytest.param("10000-01-01", None, id="year 10000"),
        pytest.param("-0001-01-01", None, id="negative year"),
        pytest.param("1677-09-20", None, id="before the first nanosecond"),
        pytest.param("2262-04-12", None, id="after the last nanosecond"),
        pytest.param("1677-09-21T00:13:00+01:00", "UTC", id="before the first nanosecond in UTC"),
        pytest.param("2262-04-11T23:00:00-05:00", "UTC", id="after the last nanosecond in UTC"),
        pytest.param("2020-01-02T03:04:05.1234567890", None, id="ten digits"),
        pytest.param("2020-1-2", None, id="one digit"),
        pytest.param("٢٠٢٠-01-02", None, id="digits beyond ASCII"),
        pytest.param("now", None, id="a word numpy knows"),
        pytest.param("NaT", None, id="no time"),
        pytest.param("2020-01-02\n", None, id="newline"),
        pytest.param("", None, id="empty"),
    ],
)
def test_other_datetime_is_refused(text: str, timezone: str | None) -> None:
    column = column_of("datetime", pandas="datetime64[ns]", timezone=timezone)

    assert accept_datetime(text, column) == (False, text)


def test_number_is_no_datetime() -> None:
    assert accept_datetime(1577934245, column_of("datetime")) == (False, 1577934245)


@pytest.mark.parametrize(
    ("about", "text"),
    [
        pytest.param({"dtype": "float64"}, "a number (float64)", id="float64"),
        pytest.param({"dtype": "float32"}, "a number of at most 3.40282347e+38 in size (float32)", id="float32"),
        pytest.param({"dtype": "float64", "max_abs": 1e6}, "a number of at most 1000000 in size (float64)", id="limit"),
        pytest.param({"dtype": "uint8", "nullable": True}, "an integer (uint8) or null", id="nullable integer"),
        pytest.param({"dtype": "bool"}, "true or false", id="bool"),
        pytest.param({"dtype": "string", "categories": ["a"]}, "a string", id="open categories"),
        pytest.param(
            {"dtype": "string", "categories": ["a", "b"], "closed": True}, "one of 'a', 'b'", id="closed categories"
        ),
        pytest.param(
            {"dtype": "int64", "categories": list(range(9)), "closed": True},
            "one of 0, 1, 2, 3, 4 … (9 in all)",
            id="many categories",
        ),
        pytest.param({"dtype": "datetime"}, "an ISO 8601 date and time without an offset", id="local time"),
        pytest.param(
            {"dtype": "datetime", "timezone": "UTC"}, "an ISO 8601 date and time with an offset", id="with offset"
        ),
    ],
)
def test_expectation_is_said_in_a_few_words(about: dict[str, Any], text: str) -> None:
    assert expected(Column.model_validate({"name": "x", **about})) == text


def test_problems_are_raised_together_by_row_and_counted() -> None:
    problems = Problems()
    decode_column([1.0, True, None], column_of("float64"), problems)
    decode_column(["a"] * 5000, column_of("float64"), problems)

    with pytest.raises(InvalidRows) as caught:
        problems.raise_if_any()

    assert caught.value.count == 5002
    assert [problem.row for problem in caught.value.problems][:5] == [0, 1, 1, 2, 2]
    assert len(caught.value.problems) == Problems.SHOWN


def test_nothing_is_raised_where_nothing_is_wrong() -> None:
    Problems().raise_if_any()


@pytest.mark.parametrize(
    ("text", "unit", "accepted"),
    [
        pytest.param("2020-01-01T00:00:00.123456", "us", True, id="as fine as the column"),
        pytest.param("2020-01-01T00:00:00.123456000", "us", True, id="zeros beyond it say nothing"),
        pytest.param("2020-01-01T00:00:00.1234567", "us", False, id="finer than the column"),
        pytest.param("2020-01-01T00:00:00.5", "s", False, id="a fraction of whole seconds"),
    ],
)
def test_a_datetime_is_never_cut_to_the_unit_of_its_column(text: str, unit: str, accepted: bool) -> None:
    column = Column(name="when", dtype="datetime", pandas=f"datetime64[{unit}]")

    assert accept_datetime(text, column)[0] is accepted


@pytest.mark.parametrize("text", ["9999-12-31T23:30:00-01:00", "0000-01-01T00:00:00+01:00", "2020-01-01Z"])
def test_a_datetime_that_no_text_could_repeat_is_refused(text: str) -> None:
    column = Column(name="when", dtype="datetime", timezone="UTC")

    assert accept_datetime(text, column)[0] is False

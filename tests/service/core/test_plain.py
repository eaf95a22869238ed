from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from service.core.plain import plain, plain_label
from service.core.table import SparseRows, Values
from tests.faults.cases import fault

NAN, INF = math.nan, math.inf


def as_json(values: Values) -> Any:
    return orjson.loads(orjson.dumps(plain(values)[0], option=orjson.OPT_SERIALIZE_NUMPY))


def objects(*items: Any) -> NDArray[Any]:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


@given(
    array=hnp.arrays(
        st.sampled_from(["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", ">f8", ">i4"]),
        hnp.array_shapes(max_dims=3, max_side=3),
        elements=None,
    )
)
def test_finite_numbers_arrive_exactly(array: NDArray[Any]) -> None:
    got = np.array(as_json(array), dtype=array.dtype)

    finite = np.isfinite(array)
    assert np.array_equal(got[finite], array[finite])
    assert np.isnan(got[~finite].astype(float)).all()


@given(array=hnp.arrays("f8", hnp.array_shapes(max_dims=3, max_side=3)))
def test_places_say_what_each_null_was(array: NDArray[np.float64]) -> None:
    _, places = plain(array)

    names = {"NaN": NAN, "Infinity": INF, "-Infinity": -INF}
    assert {path for path, _ in places} == {tuple(map(int, p)) for p in np.argwhere(~np.isfinite(array))}
    assert all(np.array_equal(array[path], names[name], equal_nan=True) for path, name in places)


@pytest.mark.parametrize(
    ("values", "content", "places"),
    [
        pytest.param(np.float32([0.1, NAN]), [0.10000000149011612, None], [((1,), "NaN")], id="float32"),
        pytest.param(np.float16([INF, 0.5]), [None, 0.5], [((0,), "Infinity")], id="float16"),
        pytest.param(
            np.array([[1.0, -INF], [NAN, 2.0]]),
            [[1.0, None], [None, 2.0]],
            [((0, 1), "-Infinity"), ((1, 0), "NaN")],
            id="matrix",
        ),
        pytest.param(np.uint64([2**64 - 1]), [2**64 - 1], [], id="uint64"),
        pytest.param(np.int64([-(2**63)]), [-(2**63)], [], id="int64"),
        pytest.param(np.array([True]), [True], [], id="bool"),
        pytest.param(np.array(["Graz", ""]), ["Graz", ""], [], id="texts"),
        pytest.param(np.array([b"\x00\xff"]), [{"b64": "AP8="}], [], id="bytes"),
        pytest.param(
            objects("a", None, 1, NAN, np.float32(INF), True),
            ["a", None, 1, None, None, True],
            [((3,), "NaN"), ((4,), "Infinity")],
            id="objects",
        ),
        pytest.param(
            np.array([["a", NAN], [None, 1.5]], dtype=object),
            [["a", None], [None, 1.5]],
            [((0, 1), "NaN")],
            id="matrix of objects",
        ),
        pytest.param(
            objects([1.0, NAN], (2.0, [INF])),
            [[1.0, None], [2.0, [None]]],
            [((0, 1), "NaN"), ((1, 1, 0), "Infinity")],
            id="lists in objects",
        ),
        pytest.param(
            np.array(["2020-01-02", "NaT"], dtype="datetime64[s]"),
            ["2020-01-02T00:00:00", None],
            [],
            id="datetimes",
        ),
        pytest.param(
            SparseRows(4, np.array([0, 1, 3]), np.array([2, 0, 3]), np.array([1.5, NAN, 2.0])),
            {"shape": [2, 4], "indptr": [0, 1, 3], "indices": [2, 0, 3], "data": [1.5, None, 2.0]},
            [(("data", 1), "NaN")],
            id="sparse",
        ),
        pytest.param(
            [np.array([[0.25, 0.75], [NAN, 1.0]]), np.array([[INF], [0.5]])],
            [[[0.25, 0.75], [None]], [[None, 1.0], [0.5]]],
            [((0, 1, 0), "Infinity"), ((1, 0, 0), "NaN")],
            id="several targets",
        ),
    ],
)
def test_values_become_json_and_the_places_of_what_it_lacks(values: Values, content: Any, places: Any) -> None:
    assert as_json(values) == content
    assert plain(values)[1] == places


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]), id="column by column"),
        pytest.param(np.array([[1.0, 9.0, 2.0, 9.0], [3.0, 9.0, 4.0, 9.0]])[:, ::2], id="every second"),
        pytest.param(np.array([[1.0, 2.0], [3.0, 4.0]], dtype=">f8"), id="other byte order"),
        pytest.param(np.array([[1, 2], [3, 4]], dtype=">i2"), id="integers of other byte order"),
    ],
)
def test_memory_layout_does_not_show(array: NDArray[Any]) -> None:
    assert as_json(array) == [[1, 2], [3, 4]]


@fault("T17", sent="labels that are bytes, numpy scalars, dates, tuples", expected="one form in JSON, without loss")
@pytest.mark.parametrize(
    ("label", "content"),
    [
        pytest.param(None, None, id="none"),
        pytest.param(True, True, id="bool"),
        pytest.param(np.bool_(False), False, id="numpy bool"),
        pytest.param(2**62, 2**62, id="int"),
        pytest.param(np.uint8(7), 7, id="numpy int"),
        pytest.param(np.str_("Graz"), "Graz", id="numpy text"),
        pytest.param(1.5, 1.5, id="float"),
        pytest.param(NAN, None, id="nan"),
        pytest.param(np.float32(-INF), None, id="infinity"),
        pytest.param(b"ab", {"b64": "YWI="}, id="bytes"),
        pytest.param(dt.date(2020, 1, 2), "2020-01-02", id="date"),
        pytest.param(dt.datetime(2020, 1, 2, 3, tzinfo=dt.UTC), "2020-01-02T03:00:00+00:00", id="datetime"),
        pytest.param(pd.Timestamp("2020-01-02T03:00"), "2020-01-02T03:00:00", id="pandas timestamp"),
        pytest.param(np.datetime64("2020-01-02"), "2020-01-02", id="numpy datetime"),
        pytest.param(np.datetime64("NaT", "s"), None, id="numpy NaT"),
        pytest.param(pd.NaT, None, id="pandas NaT"),
        pytest.param(pd.NA, None, id="pandas NA"),
        pytest.param(("a", 1), ["a", 1], id="tuple"),
    ],
)
def test_label_has_one_json_form(label: Any, content: Any) -> None:
    got = plain_label(label)

    assert got == content
    assert type(got) is type(content)


@fault("T17", sent="labels without a form in JSON", expected="refused at export, and by the golden rows at load")
@pytest.mark.parametrize("label", [object(), 1j, {1}, Decimal(1)], ids=lambda label: type(label).__name__)
def test_label_without_a_json_form_is_refused_by_its_type(label: Any) -> None:
    with pytest.raises(TypeError, match="has no JSON form"):
        plain_label(label)

"""Values of one column that tell engines apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.core.signature import Column
from training.hard_values import TEXTS, accepts, hard_values

FLOATS = np.array([-2.0, 0.5, 3.0])


def flat(column: Column, values: Any) -> list[Any]:
    return [value for some in hard_values(column, np.asarray(values)).values() for value in some]


def test_floats_have_both_zeros_their_ends_and_numbers_that_float32_rounds() -> None:
    found = flat(Column(name="a", dtype="float64"), FLOATS)

    assert {-2.0, 3.0, 8.0, 0.1} <= set(found)
    assert any(value == 0 and np.signbit(value) for value in found)
    assert any(float(np.float32(value)) != value for value in found)


def test_nothing_is_far_from_the_sample() -> None:
    found = flat(Column(name="a", dtype="float64"), FLOATS)

    assert max(abs(value) for value in found) <= 20


def test_large_integers_are_tried_where_the_sample_has_some() -> None:
    column = Column(name="a", dtype="int64")

    assert 2**24 + 1 not in flat(column, [1, 2, 3])
    assert 2**24 + 1 in flat(column, [1, 10**7])
    assert 2**53 + 1 in flat(column, [1, 10**16])


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        pytest.param(Column(name="a", dtype="float64", nullable=True), None, True, id="null"),
        pytest.param(Column(name="a", dtype="float64"), None, False, id="null where none may be"),
        pytest.param(Column(name="a", dtype="float64", max_abs=10.0), 10.5, False, id="beyond the limit"),
        pytest.param(Column(name="a", dtype="float32"), 1e39, False, id="beyond float32"),
        pytest.param(Column(name="a", dtype="float64"), np.inf, False, id="infinite"),
        pytest.param(Column(name="a", dtype="uint8"), -1, False, id="negative"),
        pytest.param(Column(name="a", dtype="int8"), 127, True, id="the last integer"),
        pytest.param(Column(name="a", dtype="int64"), 0.5, False, id="no integer"),
    ],
)
def test_only_what_a_request_may_carry_is_tried(column: Column, value: Any, expected: bool) -> None:
    assert accepts(column, value) is expected


def test_every_category_is_tried_and_unknown_ones_where_they_are_taken() -> None:
    opened = Column(name="a", dtype="string", categories=["b", "c"])
    closed = opened.model_copy(update={"closed": True})
    texts = np.array(["b", "c"], dtype=object)

    assert {"b", "c", "", "B"} < set(flat(opened, texts))
    assert set(flat(closed, texts)) == {"b", "c"}


def test_a_pandas_category_has_no_unknown_ones() -> None:
    column = Column(name="a", dtype="int64", pandas="category", categories=[3, 1])

    assert set(flat(column, [3, 1])) == {3, 1}


def test_free_text_is_changed_as_people_change_text() -> None:
    found = flat(Column(name="a", dtype="string"), np.array(["good food", None], dtype=object))

    assert {"GOOD FOOD", "good food!?", *TEXTS} <= set(found)


def test_dates_go_beyond_the_sample_in_its_own_unit() -> None:
    values = np.array(["2024-01-01", "2024-03-01", "NaT"], dtype="datetime64[us]")

    found = flat(Column(name="a", dtype="datetime", nullable=True), values)

    assert np.datetime64("2024-03-02", "us") in found
    assert None in found
    assert all(value is None or value.dtype == values.dtype for value in found)


def test_a_column_of_nothing_but_holes_is_only_missing() -> None:
    assert flat(Column(name="a", dtype="float64", nullable=True), [np.nan]) == [None]

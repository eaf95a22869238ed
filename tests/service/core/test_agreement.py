from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.agreement import SMALL, largest_difference

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(value=json_values)
def test_every_value_agrees_with_itself(value: Any) -> None:
    assert largest_difference(value, value).size == 0.0


@given(a=json_values, b=json_values)
def test_only_floats_can_differ_a_little(a: Any, b: Any) -> None:
    size = largest_difference([a, "same"], [b, "same"]).size

    assert size == 0.0 or math.isinf(size) or _has_float(a)


def _has_float(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_float, value.values()))
    return any(map(_has_float, value)) if isinstance(value, list) else isinstance(value, float)


@pytest.mark.parametrize(
    ("expected", "got", "size"),
    [
        pytest.param(1.0, 1.001, 0.001 / 1.001, id="relative to the larger"),
        pytest.param(1e300, 1.001e300, 0.001 / 1.001, id="of any size"),
        pytest.param([1.0, 1e-9], [1.0, 0.0], 1e-9 / SMALL, id="small numbers against the largest"),
        pytest.param([1.0, 0.5], [1.0, 0.25], 0.5, id="others against themselves"),
        pytest.param(0.0, 1e-12, 1.0, id="alone, nothing is small"),
        pytest.param({"a": 1, "b": [2.0]}, {"b": [2.0], "a": 1}, 0.0, id="order of keys"),
    ],
)
def test_size_is_relative(expected: Any, got: Any, size: float) -> None:
    assert largest_difference(expected, got).size == pytest.approx(size, rel=1e-12)


@pytest.mark.parametrize(
    ("expected", "got", "words"),
    [
        pytest.param(1, 1.0, "the answer is 1.0 where 1 was recorded", id="an integer is no float"),
        pytest.param(10**12, 10**12 + 1, "the answer is 1000000000001 where", id="integers are exact"),
        pytest.param(True, 1, "the answer is 1 where True was recorded", id="true is no number"),
        pytest.param("1", 1, "the answer is 1 where '1' was recorded", id="text is no number"),
        pytest.param("NaN", 0.5, "the answer is 0.5 where 'NaN' was recorded", id="what is no number stays none"),
        pytest.param(None, 0.0, "the answer is 0.0 where None was recorded", id="null is no number"),
        pytest.param([1], {"0": 1}, "the answer is {'0': 1} where [1] was recorded", id="other shape"),
        pytest.param([1, 2], [1], "number of values of the answer is 1 where 2 was recorded", id="fewer values"),
        pytest.param({"a": 1}, {"b": 1}, "keys of the answer is 'b' where 'a' was recorded", id="other keys"),
        pytest.param(
            {"predictions": [[0.5, "a"], [0.5, "b"]]},
            {"predictions": [[0.5, "a"], [0.4, "c"]]},
            "predictions[1][1] is 'c' where 'b' was recorded",
            id="worst place, by name and index",
        ),
    ],
)
def test_what_is_no_float_must_be_equal(expected: Any, got: Any, words: str) -> None:
    found = largest_difference(expected, got)

    assert math.isinf(found.size)
    assert words in found.where

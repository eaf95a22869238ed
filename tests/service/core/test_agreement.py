from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.agreement import disagreement

RTOL = 1e-9

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(value=json_values)
def test_every_value_agrees_with_itself(value: Any) -> None:
    assert disagreement(value, value, RTOL) is None


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        pytest.param(1.0, 1.0 + 1e-12, id="last digits"),
        pytest.param(1e300, 1e300 * (1 + 1e-12), id="last digits of a large number"),
        pytest.param(0.0, 1e-12, id="near zero"),
        pytest.param(1, 1.0, id="JSON does not tell 1 from 1.0"),
        pytest.param({"a": 1, "b": [2.0]}, {"b": [2.0], "a": 1}, id="order of keys"),
    ],
)
def test_same_answer_within_the_tolerance(expected: Any, got: Any) -> None:
    assert disagreement(expected, got, RTOL) is None


@pytest.mark.parametrize(
    ("expected", "got", "words"),
    [
        pytest.param(1.0, 1.1, "the answer is 1.1 where 1.0 was recorded", id="another number"),
        pytest.param(10**12, 10**12 + 1, "the answer is 1000000000001 where", id="integers are exact"),
        pytest.param(True, 1, "the answer is 1 where True was recorded", id="true is no number"),
        pytest.param(0, False, "the answer is False where 0 was recorded", id="no number is false"),
        pytest.param("1", 1, "the answer is 1 where '1' was recorded", id="text is no number"),
        pytest.param(None, 0.0, "the answer is 0.0 where None was recorded", id="null is no number"),
        pytest.param([1], {"0": 1}, "the answer is {'0': 1} where [1] was recorded", id="other shape"),
        pytest.param([1, 2], [1], "the answer has 1 values where 2 were recorded", id="fewer values"),
        pytest.param({"a": 1}, {"b": 1}, "the answer has ['b'] where ['a'] was recorded", id="other keys"),
        pytest.param({"p": {"q": 1}}, {"p": {}}, "p has [] where ['q'] was recorded", id="keys inside"),
        pytest.param(
            {"predictions": [[0.5, "a"], [0.5, "b"]]},
            {"predictions": [[0.5, "a"], [0.5, "c"]]},
            "predictions[1][1] is 'c' where 'b' was recorded",
            id="first place, by name and index",
        ),
    ],
)
def test_disagreement_names_the_first_place(expected: Any, got: Any, words: str) -> None:
    found = disagreement(expected, got, RTOL)

    assert found is not None
    assert found.startswith(words)

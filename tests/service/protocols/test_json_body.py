from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import UnreadableRequest, shorten
from service.protocols.json_body import MAX_DEPTH, MAX_DIGITS, is_nested_deeper, read_json
from service.protocols.values import NeedsExactParse


def as_it_is(parsed: Any, exact: bool) -> Any:
    return parsed


def exactly(parsed: Any, exact: bool) -> Any:
    if not exact:
        raise NeedsExactParse
    return parsed


HUGE = b"[1e400, "  # the fast parser refuses this number, so that what follows meets the exact one

REFUSED = [
    pytest.param(b"", id="empty"),
    pytest.param(b" \r\n\t", id="only spaces"),
    pytest.param(b"{", id="cut"),
    pytest.param(b"{} {}", id="trailing text"),
    pytest.param(b"{'a': 1}", id="single quotes"),
    pytest.param(b'{"a": 1,}', id="trailing comma"),
    pytest.param(b"[01]", id="leading zero"),
    pytest.param(b"[NaN]", id="NaN"),
    pytest.param(b"[Infinity]", id="Infinity"),
    pytest.param(b"[-Infinity]", id="minus Infinity"),
    pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
    pytest.param("{}".encode("utf-16"), id="UTF-16"),
    pytest.param(b'["\xff"]', id="invalid UTF-8"),
    pytest.param(b'["\xed\xa0\x80"]', id="surrogate in UTF-8"),
    pytest.param(rb'["\ud800"]', id="lone surrogate"),
    pytest.param(rb'{"\udfff": 1}', id="lone surrogate in a key"),
    pytest.param(b'["a\nb"]', id="bare newline in a text"),
    pytest.param(b"[" + b"1" * 5000 + b"]", id="integer of 5000 digits"),
    pytest.param(b"[" * 1500 + b"]" * 1500, id="nested 1500 deep"),
    pytest.param(b'[{"a":' * 17 + b"1" + b"}]" * 17, id="lists and objects nested 34 deep"),
    pytest.param(HUGE + b"NaN]", id="NaN after 1e400"),
    pytest.param(HUGE + rb'"\ud800"]', id="lone surrogate after 1e400"),
    pytest.param(HUGE + rb'{"\ud800": 1}]', id="lone surrogate in a key after 1e400"),
    pytest.param(HUGE + b'"\xff"]', id="invalid UTF-8 after 1e400"),
    pytest.param(HUGE + b"1" * 5000 + b"]", id="integer of 5000 digits after 1e400"),
    pytest.param(HUGE + b"[" * 100_000 + b"]" * 100_001, id="nested 100 000 deep after 1e400"),
    pytest.param(HUGE, id="cut after 1e400"),
    pytest.param(HUGE + b"1] 2", id="trailing text after 1e400"),
    pytest.param(b"\xef\xbb\xbf" + HUGE + b"1]", id="byte order mark before 1e400"),
]


@pytest.mark.parametrize("body", REFUSED)
def test_body_that_is_not_one_json_text_in_utf8_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableRequest) as caught:
        read_json(body, as_it_is)

    assert str(caught.value).startswith("the body ")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("body", REFUSED)
def test_part_of_a_body_is_called_what_it_is(body: bytes) -> None:
    with pytest.raises(UnreadableRequest, match=r"^line 7 (is|has) "):
        read_json(body, as_it_is, what="line 7")


def test_plain_body_is_parsed_once() -> None:
    assert read_json(b'{"a": [1, 2.5, null]}', lambda parsed, exact: (parsed, exact)) == ({"a": [1, 2.5, None]}, False)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        pytest.param(b"18446744073709551617", 2**64 + 1, id="beyond uint64"),
        pytest.param(b"-9223372036854775809", -(2**63) - 1, id="beyond int64"),
        pytest.param(b"1" + b"0" * 400, 10**400, id="beyond float64"),
        pytest.param(b"1e300", 1e300, id="float"),
        pytest.param(b"5e-324", 5e-324, id="least float"),
    ],
)
def test_exact_reading_keeps_every_digit(body: bytes, value: Any) -> None:
    got = read_json(body, exactly)

    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("text", ["1e400", "-1e400", "1E+999", "123456789e400"])
def test_number_out_of_range_is_no_float_and_shows_as_it_was_written(text: str) -> None:
    (number,) = read_json(f"[{text}]".encode(), as_it_is)

    assert type(number) is not float
    assert shorten(number) == text


def test_number_out_of_range_is_shown_short() -> None:
    (number,) = read_json(b"[9" + b"9" * 1000 + b"e400]", as_it_is)

    assert len(shorten(number)) == 60


@pytest.mark.parametrize("body", [b"[NaN]", b"[1, Infinity]", b"-Infinity"])
def test_words_for_numbers_that_json_lacks_are_refused(body: bytes) -> None:
    with pytest.raises(UnreadableRequest, match="not valid JSON"):
        read_json(body, as_it_is)


def test_words_for_numbers_are_read_where_a_protocol_has_them() -> None:
    nan, *infinite = read_json(b'[NaN, Infinity, -Infinity, "NaN"]', as_it_is, allow_nan=True)

    assert nan is None
    assert [type(value) is float for value in infinite] == [False, False, False]
    assert [shorten(value) for value in infinite] == ["Infinity", "-Infinity", "'NaN'"]


@pytest.mark.parametrize("body", [b"[NaN", b"[nan]", b"[+Infinity]", b'{"NaN": NaN,}', b"NaNNaN"])
def test_words_make_nothing_else_readable(body: bytes) -> None:
    with pytest.raises(UnreadableRequest):
        read_json(body, as_it_is, allow_nan=True)


def test_what_the_builder_raises_passes_through() -> None:
    def refuse(parsed: Any, exact: bool) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        read_json(b"{}", refuse)


@pytest.mark.parametrize(("digits", "reads"), [(MAX_DIGITS, True), (MAX_DIGITS + 1, False)])
@pytest.mark.parametrize("sign", ["", "-"])
def test_integers_have_so_many_digits_at_most(sign: str, digits: int, reads: bool) -> None:
    body = f"[{sign}{'9' * digits}]".encode()

    if reads:
        assert read_json(body, as_it_is) == [int(f"{sign}{'9' * digits}")]
    else:
        with pytest.raises(UnreadableRequest, match="integer of more than 1000 digits"):
            read_json(body, as_it_is)


def test_fractions_have_as_many_digits_as_they_like() -> None:
    assert read_json(b"[0." + b"1" * 100_000 + b"]", as_it_is) == [0.1111111111111111]


@pytest.mark.parametrize(("levels", "reads"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False)])
@pytest.mark.parametrize(("opens", "closes"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_lists_and_objects_nest_so_deep_at_most(opens: bytes, closes: bytes, levels: int, reads: bool) -> None:
    body = opens * levels + b"1" + closes * levels

    if reads:
        read_json(body, as_it_is)
    else:
        with pytest.raises(UnreadableRequest, match="more than 32 levels"):
            read_json(body, as_it_is)


@pytest.mark.parametrize(
    ("body", "is_deeper"),
    [
        pytest.param(b"[]" * 1000, False, id="side by side"),
        pytest.param(b'["' + b"[{" * 1000 + b'"]', False, id="in a text"),
        pytest.param(b'["' + b'\\"[' * 1000 + b'"]', False, id="in a text of quotes"),
        pytest.param(b'["]",' * 40 + b"1" + b"]" * 40, True, id="closed in texts only"),
        pytest.param(b'["\\"]",' * 40 + b"1" + b"]" * 40, True, id="closed in texts of quotes only"),
        pytest.param(b'["\\\\",' * 40 + b"1" + b"]" * 40, True, id="behind texts of a backslash"),
        pytest.param(b"[" * 40, True, id="never closed"),
        pytest.param(b"]" * 100 + b"[" * 20 + b"}" * 20, False, id="closed before it opens"),
        pytest.param(b"[]," * 40 + b"[" * 33 + b"]" * 33, True, id="at the end"),
    ],
)
def test_depth_is_counted_outside_of_texts(body: bytes, is_deeper: bool) -> None:
    assert is_nested_deeper(body, 32) is is_deeper


@given(levels=st.integers(0, 6), text=st.text('[]{}"\\a'), pad=st.lists(st.just([]), max_size=20))
def test_depth_is_that_of_the_parsed_value(levels: int, text: str, pad: list[Any]) -> None:
    value: Any = [text, {text: pad}]
    for _ in range(levels):
        value = [text, value, text]

    assert is_nested_deeper(json.dumps(value).encode(), 5) is (levels + (3 if not pad else 4) > 5)


def test_depth_of_a_text_that_never_ends_takes_linear_time() -> None:
    # Quadratic, this would take hours.
    assert not is_nested_deeper(b"[" * 32 + b'1e400, "' + b'\\"[' * 1_000_000, 32)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(value=json_values)
def test_exact_reading_undoes_writing(value: Any) -> None:
    body = json.dumps(value, ensure_ascii=False).encode()

    assert read_json(body, exactly) == value

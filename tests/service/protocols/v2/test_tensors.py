from __future__ import annotations

import base64
import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.core.errors import InvalidRequest, TandemError
from service.protocols.json_body import read_json
from service.protocols.v2.tensors import (
    DATATYPES,
    Tensor,
    datatype_of,
    read_list,
    read_raw,
    write_list,
    write_raw,
    write_texts,
)
from service.protocols.values import NeedsExactParse

NUMBERS = [name for name in DATATYPES if name != "BYTES"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)


@given(data=st.data(), datatype=st.sampled_from(NUMBERS), shape=SHAPES)
def test_raw_numbers_come_back_to_the_bit(data: st.DataObject, datatype: str, shape: tuple[int, ...]) -> None:
    values = data.draw(hnp.arrays(DATATYPES[datatype], shape))

    tensor = read_raw("x", datatype, list(shape), write_raw(values, datatype))

    assert tensor.shape == shape
    assert tensor.values.tobytes() == values.tobytes()
    assert datatype_of(tensor.values.dtype) == datatype


@given(st.lists(TEXTS | st.just(""), max_size=5))
def test_raw_texts_come_back(texts: list[str]) -> None:
    values = np.array(texts, dtype=object)

    tensor = read_raw("x", "BYTES", [len(texts)], write_raw(values, "BYTES"))

    assert tensor.values.tolist() == texts


def test_raw_numbers_are_not_copied() -> None:
    content = bytearray(16)

    tensor = read_raw("x", "FP64", [2], memoryview(content))
    content[:8] = struct.pack("<d", 1.5)

    assert tensor.values.tolist() == [1.5, 0.0]


def test_bytes_that_are_no_text_stay_bytes() -> None:
    assert read_raw("x", "BYTES", [1], b"\1\0\0\0\xff").values.tolist() == [b"\xff"]


@pytest.mark.parametrize(
    ("datatype", "shape", "content", "words"),
    [
        ("FP64", [2], b"\0" * 15, "needs 16 bytes; got 15"),
        ("FP64", [1], b"\0" * 16, "needs 8 bytes; got 16"),
        ("BYTES", [1], b"\2\0\0\0a", "end within element 0 of 1"),
        ("BYTES", [2], b"\4\0\0\0abcd", "end within element 1 of 2"),
        ("BYTES", [2**39], b"\1\0\0\0a", "need 2199023255552 bytes or more; got 5"),
        ("BYTES", [1], b"\1\0\0\0ab", "1 bytes are left"),
        ("BYTES", [0], b"a", "1 bytes are left"),
        ("BOOL", [3], b"\0\1\2", "each byte of BOOL to be 0 or 1"),
        ("FP8", [1], b"", "unknown datatype 'FP8'"),
        (None, [1], b"", "unknown datatype null"),
        ("FP32", [-1], b"", "is no shape"),
        ("FP32", [True], b"\0\0\0\0", "is no shape"),
        ("FP32", ["1"], b"", "is no shape"),
        ("FP32", [1] * 33, b"", "is no shape"),
        ("FP32", [2, "9" * 99], b"", "[2, '999999999999999999…] is no shape"),
        ("FP32", [2**30, 2**30], b"", "[1073741824, 1073741824] is no shape"),
        ("FP32", [0, 2**30, 2**30], b"", "is no shape"),
    ],
)
def test_raw_bytes_that_do_not_fit_are_refused(datatype: Any, shape: Any, content: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match="'x'") as caught:
        read_raw("x", datatype, shape, content)

    assert words in str(caught.value)


@given(st.sampled_from([*DATATYPES, "FP8"]), st.lists(st.integers(-1, 2**31), max_size=3), st.binary(max_size=40))
def test_any_raw_bytes_are_a_tensor_or_a_refusal(datatype: str, shape: list[int], content: bytes) -> None:
    try:
        tensor = read_raw("x", datatype, shape, content)
    except InvalidRequest:
        return
    assert list(tensor.shape) == shape


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]], [[[1], [2], [3]], [[4], [5], [6]]]])
def test_data_may_be_nested_or_flat(data: Any) -> None:
    assert read_list("x", "INT32", [2, 3], data).values.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("data", [[[1, 2], [3, 4], [5, 6]], [[1, 2, 3, 4, 5, 6]], [[[1, 2, 3]], [[4, 5, 6]]]])
@pytest.mark.parametrize("shape", [[2, 3], [2, 1, 3], [6], [1, 6, 1]])
def test_lists_of_another_shape_are_refused(data: Any, shape: list[int]) -> None:
    if [size for size in np.shape(data) if size > 1] == [size for size in shape if size > 1]:
        assert read_list("x", "INT32", shape, data).values.tolist() == np.reshape(data, shape).tolist()
    else:
        with pytest.raises(InvalidRequest) as caught:
            read_list("x", "INT32", shape, data)
        assert (
            str(caught.value) == f"input 'x': its lists are nested as {list(np.shape(data))}, but its shape is {shape}"
        )


@given(hnp.arrays(np.float64, SHAPES, elements={"allow_infinity": False}))
def test_json_numbers_come_back_to_the_bit(values: Any) -> None:
    written = orjson.loads(orjson.dumps(write_list(values), option=orjson.OPT_SERIALIZE_NUMPY))

    tensor = read_list("x", "FP64", list(values.shape), written, exact=True)

    assert np.array_equal(tensor.values, values, equal_nan=True)


@pytest.mark.parametrize(
    ("datatype", "data", "expected"),
    [
        ("BOOL", [True, False], [True, False]),
        ("INT64", [2**63 - 1, -(2**63)], [2**63 - 1, -(2**63)]),
        ("UINT64", [2**64 - 1, 0], [2**64 - 1, 0]),
        ("INT8", [1.0, -128], [1, -128]),
        ("BYTES", ["größe", None], ["größe", None]),
        ("BOOL", [True, None], [True, None]),
    ],
)
def test_elements_are_what_the_datatype_says(datatype: str, data: list[Any], expected: list[Any]) -> None:
    body = orjson.dumps(data)

    tensor = read_json(body, lambda content, exact: read_list("x", datatype, [2], content, exact=exact))

    assert tensor.values.tolist() == expected


def test_single_precision_is_rounded_where_it_is_declared() -> None:
    assert read_list("x", "FP32", [1], [0.1]).values.tolist() == [float(np.float32(0.1))]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "words"),
    [
        ("INT64", [1], [1.5], "element 0: expected an integer"),
        ("INT8", [2], [1, 128], "element 1"),
        ("UINT8", [1], [-1], "element 0"),
        ("FP32", [1], [1e39], "element 0: expected a number of at most"),
        ("FP64", [1], ["1"], "element 0"),
        ("FP64", [1], [True], "element 0"),
        ("BOOL", [1], [1], "element 0: expected true or false"),
        ("BYTES", [1], [1], "element 0: expected a string"),
        ("FP16", [1], [1.0], "no JSON form"),
        ("FP64", [2], [1.0], "holds 2 elements; got 1"),
        ("FP64", [2], [[1.0], 2.0], "differ in length or depth"),
        ("FP64", [2], [[1.0], [2.0, 3.0]], "differ in length or depth"),
        ("FP64", [1], 1.0, "to be a list"),
        ("FP64", [1], {"a": 1}, "to be a list"),
        ("FP64", [1], None, "to be a list"),
    ],
)
def test_elements_that_do_not_fit_are_named(datatype: str, shape: Any, data: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match="'x'") as caught:
        read_list("x", datatype, shape, data, exact=True)

    assert words in str(caught.value)


def test_deep_nesting_is_refused() -> None:
    data: Any = 1.0
    for _ in range(500):
        data = [data]

    with pytest.raises(InvalidRequest, match="too deeply"):
        read_list("x", "FP64", [1], data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=6,
)


@given(st.sampled_from([*DATATYPES, "x"]), st.lists(st.integers(0, 3), max_size=3), JSON)
def test_any_json_is_a_tensor_or_a_refusal(datatype: str, shape: list[int], data: Any) -> None:
    try:
        tensor = read_list("x", datatype, shape, data)
    except (TandemError, NeedsExactParse):
        return
    assert list(tensor.shape) == shape


@given(st.lists(TEXTS | st.binary(max_size=4), max_size=4))
def test_texts_of_json_come_back_and_say_how_they_are_coded(texts: list[str | bytes]) -> None:
    values = np.empty(len(texts), dtype=object)
    values[:] = texts

    written, content_type = write_texts(values)

    assert content_type in ("str", "base64")
    read = [base64.b64decode(text) if content_type == "base64" else text.encode() for text in written]
    assert read == [text.encode() if isinstance(text, str) else text for text in texts]


def test_other_arrays_travel_as_bytes() -> None:
    assert datatype_of(np.array(["a"]).dtype) == "BYTES"
    assert datatype_of(np.array(["2020"], dtype="M8[s]").dtype) == "BYTES"
    assert datatype_of(np.dtype(">f4")) == "FP32"
    assert Tensor("x", "BYTES", np.array([["a"]], dtype=object)).shape == (1, 1)

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import InvalidRequest
from service.protocols.protos import tensorflow_pb as tf
from service.protocols.v1.model import DATA_TYPES
from service.protocols.v1.tensors import (
    REPEATED,
    dtype_of,
    read_example,
    read_tensor,
    read_tensors,
    shape_of,
    write_tensor,
)
from service.protocols.v2.tensors import DATATYPES, Tensor


def proto(datatype: str, *sizes: int, **elements: Any) -> Any:
    return tf.TensorProto(dtype=dtype_of(datatype), tensor_shape=shape_of(sizes), **elements)


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("FP32", "float_val", [0.5, -1.0]),
        ("FP64", "double_val", [0.1, 1e300]),
        ("INT8", "int_val", [-128, 127]),
        ("INT16", "int_val", [-(2**15), 7]),
        ("INT32", "int_val", [-(2**31), 7]),
        ("INT64", "int64_val", [2**63 - 1, -1]),
        ("UINT8", "int_val", [0, 255]),
        ("UINT16", "int_val", [0, 65535]),
        ("UINT32", "uint32_val", [0, 2**32 - 1]),
        ("UINT64", "uint64_val", [0, 2**64 - 1]),
        ("BOOL", "bool_val", [True, False]),
        ("BYTES", "string_val", [b"", "größe".encode()]),
    ],
)
def test_elements_are_read_from_the_field_of_their_type(datatype: str, field: str, values: list[Any]) -> None:
    tensor = read_tensor("x", proto(datatype, 2, 1, **{field: values}))

    wanted = ["", "größe"] if datatype == "BYTES" else values
    assert (tensor.name, tensor.datatype, tensor.shape) == ("x", datatype, (2, 1))
    assert tensor.values.ravel().tolist() == wanted


def test_half_precision_is_sent_as_its_bits() -> None:
    bits = np.array([1.5, -2.0], dtype=np.float16).view(np.uint16).tolist()

    assert read_tensor("x", proto("FP16", 2, half_val=bits)).values.tolist() == [1.5, -2.0]


def test_raw_numbers_are_not_copied() -> None:
    message = proto("FP64", 2, 2, tensor_content=np.arange(4.0).tobytes())

    values = read_tensor("x", message).values

    assert values.tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert not values.flags.owndata and not values.flags.writeable


def test_nan_is_read_from_either_form() -> None:
    raw = read_tensor("x", proto("FP32", 1, tensor_content=np.array([math.nan], dtype="<f4").tobytes()))
    typed = read_tensor("x", proto("FP32", 1, float_val=[math.nan]))

    assert math.isnan(raw.values[0]) and math.isnan(typed.values[0])


def test_last_element_fills_the_shape() -> None:
    assert read_tensor("x", proto("FP32", 2, 2, float_val=[1.0, 2.0])).values.tolist() == [[1.0, 2.0], [2.0, 2.0]]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        pytest.param(tf.TensorProto(dtype=8), "unknown dtype 8", id="complex numbers"),
        pytest.param(tf.TensorProto(), "unknown dtype 0", id="no dtype"),
        pytest.param(
            tf.TensorProto(dtype=1, tensor_shape=tf.TensorShapeProto(unknown_rank=True)), "unknown", id="no shape"
        ),
        pytest.param(proto("FP32", -1, float_val=[1.0]), "is no shape", id="unknown size"),
        pytest.param(proto("FP32", 3), "shape \\[3\\] holds 3 elements; got 0", id="nothing"),
        pytest.param(proto("FP32", 1, float_val=[1.0, 2.0]), "holds 1 elements; got 2", id="too many"),
        pytest.param(proto("FP32", 2, tensor_content=b"1234"), "needs 8 bytes; got 4", id="too few bytes"),
        pytest.param(proto("FP32", 1, double_val=[1.0]), "got 0", id="the field of another type"),
        pytest.param(proto("INT8", 1, int_val=[200]), "expected an integer", id="beyond the type"),
        pytest.param(proto("FP16", 1, half_val=[70000]), "16 bits", id="beyond half precision"),
        pytest.param(proto("BYTES", 1, tensor_content=b"a"), "string_val", id="raw strings"),
        pytest.param(proto("BYTES", 1, string_val=[b"\xff"]), "element 0: expected a string", id="no UTF-8"),
    ],
)
def test_wrong_tensor_is_refused(message: Any, shown: str) -> None:
    with pytest.raises(InvalidRequest, match=shown):
        read_tensor("x", message)


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param({"x": proto("FP32", REPEATED, 2, float_val=[1.0])}, id="one"),
        pytest.param({"x": proto("BYTES", 2**62, 2**62, string_val=[b""])}, id="a large one"),
        pytest.param({str(i): proto("BOOL", REPEATED // 2, bool_val=[True]) for i in range(3)}, id="several"),
    ],
)
def test_few_bytes_do_not_make_a_large_table(messages: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="leave out"):
        read_tensors(messages)


def test_inputs_are_read_by_name() -> None:
    messages = {"a": proto("FP32", 3, float_val=[1.0]), "b": proto("INT64", 3, int64_val=[1, 2, 3])}

    assert [(t.name, t.values.tolist()) for t in read_tensors(messages)] == [("a", [1.0] * 3), ("b", [1, 2, 3])]


@pytest.mark.parametrize("datatype", DATATYPES)
def test_reading_undoes_writing(datatype: str) -> None:
    values = np.array([["a", "ä"]], dtype=object) if datatype == "BYTES" else np.array([[1, 0]], DATATYPES[datatype])

    got = read_tensor("x", write_tensor(Tensor("x", datatype, values)))

    assert got.datatype == datatype
    assert got.values.tolist() == values.tolist()


def test_every_type_has_the_number_of_tensorflow() -> None:
    assert {tf.DataType[name] for name in DATA_TYPES.values()} == {1, 2, 3, 4, 5, 6, 7, 9, 10, 17, 19, 22, 23}


def test_example_is_lists_of_values_by_feature() -> None:
    example = tf.Example(
        features={
            "feature": {
                "text": {"bytes_list": {"value": [b"a", b"\xff"]}},
                "number": {"float_list": {"value": [0.5, math.nan]}},
                "count": {"int64_list": {"value": [2**62]}},
                "empty": {"float_list": {}},
                "unset": {},
            }
        }
    )

    assert read_example(example) == {"text": ["a", b"\xff"], "number": [0.5, None], "count": [2**62]}


SIZES = st.lists(st.integers(-2, 4) | st.sampled_from([2**40, 2**63 - 1]), max_size=4)
ELEMENTS = st.fixed_dictionaries(
    {},
    optional={
        "tensor_content": st.binary(max_size=40),
        "float_val": st.lists(st.floats(width=32), max_size=4),
        "double_val": st.lists(st.floats(), max_size=4),
        "int_val": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
        "int64_val": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
        "string_val": st.lists(st.binary(max_size=3), max_size=4),
        "half_val": st.lists(st.integers(-1, 2**17), max_size=4),
        "bool_val": st.lists(st.booleans(), max_size=4),
    },
)


@given(dtype=st.integers(0, 24), sizes=SIZES, elements=ELEMENTS)
def test_any_tensor_is_read_or_refused(dtype: int, sizes: list[int], elements: dict[str, Any]) -> None:
    message = tf.TensorProto(dtype=dtype, tensor_shape=shape_of(tuple(sizes)), **elements)

    try:
        (tensor,) = read_tensors({"x": message})
    except InvalidRequest:
        return
    assert tensor.shape == tuple(sizes)

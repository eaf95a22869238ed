from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import TandemError
from service.core.signature import Column, Container, Output, Signature
from service.protocols.v2 import body as v2_body
from service.protocols.v2 import numbers as v2_numbers
from service.protocols.v2.body import V2Body
from service.protocols.v2.numbers import read_number_body

pytest.importorskip("simdjson", reason="no wheel of pysimdjson for this platform: the long way is the only one")

SIGNATURE = Signature(
    container=Container.ARRAY,
    columns=tuple(Column(name=f"x{i}", dtype="float64") for i in range(2)),
    outputs=(Output(name="predict", dtype="float64"),),
)


@pytest.fixture(autouse=True)
def _any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v2_numbers, "LEAST_BYTES", 0)


def body_of(data: Any, *, shape: Any = (2, 2), datatype: Any = "FP64", **members: Any) -> bytes:
    tensor = {"name": "x", "shape": shape, "datatype": datatype, "data": data}
    return json.dumps({"inputs": [tensor], **members}).encode()


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70) | st.integers(-3, 3)
ODD = NUMBERS | st.none() | st.booleans() | st.just("[") | st.lists(NUMBERS, max_size=2)
DATA = (
    st.lists(NUMBERS, min_size=4, max_size=4)
    | st.lists(st.lists(NUMBERS, min_size=2, max_size=2), min_size=2, max_size=2)
    | st.lists(ODD, max_size=4)
    | ODD
)
EXTRA: list[dict[str, Any]] = [
    {}, {"outputs": [{"name": "predict"}]}, {"outputs": None}, {"outputs": "["}, {"id": "["}, {"note": [1]},
    {"parameters": {"content_type": "np", "headers": {}}}, {"parameters": {"timeout": [1]}},
]  # fmt: skip


@given(
    data=DATA,
    shape=st.sampled_from([(2, 2), (4,), (1, 4), (2, 1, 2), (0,), (), None, "22", [[2], 2]]),
    datatype=st.sampled_from(["FP64", "FP32", "FP16", "INT64", "BOOL", "BYTES", None, ["FP64"]]),
    extra=st.sampled_from(EXTRA),
)
def test_short_way_reads_what_the_long_way_reads(data: Any, shape: Any, datatype: Any, extra: dict[str, Any]) -> None:
    body = body_of(data, shape=shape, datatype=datatype, **extra)

    assert _outcome(body) == _long_outcome(body)


def _outcome(body: bytes) -> Any:
    try:
        request = V2Body(body, {}).read(SIGNATURE)
    except TandemError as error:
        return type(error), str(error)
    (tensor,) = request.tensors
    return (
        tensor.name, tensor.datatype, tensor.shape, tensor.values.dtype, tensor.values.tobytes(),
        request.outputs, request.id, request.content_type, request.timeout_s,
    )  # fmt: skip


def _long_outcome(body: bytes) -> Any:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(v2_body, "read_number_body", lambda _: None)
        return _outcome(body)


@pytest.mark.parametrize("data", [[0.1, 2, -3e5, 0], [[0.1, 2], [-3e5, 0]]])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_flat_and_nested_numbers_are_an_array(data: Any, datatype: str) -> None:
    content = read_number_body(body_of(data, datatype=datatype, outputs=[{"name": "predict"}]))

    assert content is not None
    assert content["outputs"] == [{"name": "predict"}]
    values = content["inputs"][0]["data"]
    assert values.tolist() == np.array([0.1, 2, -3e5, 0], dtype=values.dtype).tolist()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(body_of([1, 2, 3, 2**53]), id="an integer that may have lost digits"),
        pytest.param(body_of([1, 2, 3, 2**24], datatype="FP32"), id="one that FP32 may not hold"),
        pytest.param(body_of([1, 2, 3, None]), id="null"),
        pytest.param(body_of([[1, 2, 3, 4]]), id="another shape"),
        pytest.param(body_of([[1, 2], [3]]), id="rows of other lengths"),
        pytest.param(body_of([1, [2], 3, 4]), id="a list among numbers"),
        pytest.param(body_of([]), id="nothing"),
        pytest.param(body_of([1, 2, 3, 4]).replace(b'"x"', b'"x", "data": [9]'), id="data twice"),
        pytest.param(body_of([1, 2, 3, 4])[:-1] + b', "inputs": []}', id="inputs twice"),
        pytest.param(
            body_of([1, 2, 3, 4])[:-1] + b', "parameters": ' + b'{"a":' * 31 + b"1" + b"}" * 32, id="nested 32 deep"
        ),
        pytest.param(body_of([1, 2, 3, 4])[:-1], id="no JSON"),
        pytest.param(b"[" + body_of([1, 2, 3, 4]) + b"]", id="no object"),
        pytest.param(b'{"inputs": {"datatype": 1}}', id="no list of inputs"),
    ],
)
def test_what_needs_a_closer_look_is_declined(body: bytes) -> None:
    assert read_number_body(body) is None


def test_small_bodies_take_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v2_numbers, "LEAST_BYTES", 1000)

    assert read_number_body(body_of([1, 2, 3, 4])) is None

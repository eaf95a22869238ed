from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import __version__
from service.core.deadline import Deadline
from service.core.errors import (
    InvalidRequest,
    InvalidRows,
    ModelFailed,
    RequestError,
    UnknownModel,
    UnknownVersion,
)
from service.core.messages import Target
from service.core.signature import Column, Container, Output
from service.core.table import Frame, Matrix
from service.protocols.protos import inference_pb as pb
from service.protocols.rpc import Call, Kind
from service.protocols.v2.calls import RPCS
from service.protocols.v2.tensors import DATATYPES
from tests.service.protocols.fake_server import SHOP, FakeServer, signature_of

NUMBERS = signature_of(
    Column(name="a", dtype="float64", nullable=True),
    Column(name="b", dtype="float64", nullable=True),
    container=Container.ARRAY,
    outputs=(Output(name="predict", dtype="float64"), Output(name="transform", dtype="float16", shape=(2,))),
)
ANSWERS = {"predict": np.array([0.1, -0.0]), "transform": np.array([[1, 2], [3, 4]], dtype="f2")}
MATRIX = np.array([[1.5, -0.0], [math.nan, 4.0]])


def call_of(seconds: float = 30.0) -> Call:
    return Call(Deadline.after(seconds), "req-1", {})


def ask(server: FakeServer, method: str, call: Call | None = None, **fields: Any) -> Any:
    """What `method` answers to a request of these fields, or raises."""
    (rpc,) = (rpc for rpc in RPCS if rpc.method == method)
    answer = rpc.handler(server, rpc.read(rpc.request(**fields).SerializeToString()), call or call_of())
    answer = answer if isinstance(answer, rpc.response) else answer.result(timeout=0)
    assert isinstance(answer, rpc.response)
    return answer


def parameter(value: Any) -> Any:
    kind = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}[type(value)]
    return pb.InferParameter(**{kind: value})


def tensor(name: str, datatype: str, shape: Any, parameters: Mapping[str, Any] | None = None, **contents: Any) -> Any:
    """An input; without contents one that is raw."""
    return pb.ModelInferRequest.InferInputTensor(
        name=name, datatype=datatype, shape=shape, parameters=parameters,
        contents=pb.InferTensorContents(**contents) if contents else None,
    )  # fmt: skip


PERSON = [tensor("age", "INT64", [1, 1], int64_contents=[41]), tensor("city", "BYTES", [1], bytes_contents=[b"Graz"])]
RAW_PERSON = {
    "inputs": [tensor("age", "INT64", [1, 1]), tensor("city", "BYTES", [1])],
    "raw_input_contents": [struct.pack("<q", 41), struct.pack("<I", 4) + b"Graz"],
}


# -- inference -----------------------------------------------------------------------------------


def test_typed_contents_are_answered_with_typed_contents() -> None:
    server = FakeServer()

    response = ask(server, "ModelInfer", model_name="shop", model_version="3", id="mine", inputs=PERSON)

    assert (response.model_name, response.model_version, response.id) == ("shop", "3", "mine")
    assert [(o.name, o.datatype, list(o.shape)) for o in response.outputs] == [("predict", "BYTES", [1])]
    assert list(response.outputs[0].contents.bytes_contents) == [b"yes"]
    assert list(response.raw_output_contents) == []
    assert server.targets == [Target("shop", 3)]
    (request,) = server.requests
    assert isinstance(request.rows, Frame)
    assert {name: values.tolist() for name, values in request.rows.columns.items()} == {"age": [41], "city": ["Graz"]}


def test_raw_contents_are_answered_with_raw_contents() -> None:
    server = FakeServer()
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in ("predict_proba", "predict")]

    response = ask(server, "ModelInfer", model_name="shop", outputs=wanted, **RAW_PERSON)

    assert [output.name for output in response.outputs] == ["predict_proba", "predict"]
    assert not any(output.HasField("contents") for output in response.outputs)
    assert list(response.raw_output_contents) == [struct.pack("<2d", 0.25, 0.75), b"\x03\0\0\0yes"]
    assert server.requests[0].outputs == ("predict_proba", "predict")
    assert server.targets == [Target("shop", None)]


@pytest.mark.parametrize("datatype", ["FP64", "FP32"])
def test_numbers_reach_the_model_the_same_typed_and_raw(datatype: str) -> None:
    values = MATRIX.astype(DATATYPES[datatype])
    contents = {f"{datatype.lower()}_contents": values.ravel().tolist()}
    server = FakeServer(NUMBERS, ANSWERS)
    ask(server, "ModelInfer", inputs=[tensor("x", datatype, [2, 2], **contents)])
    again = FakeServer(NUMBERS, ANSWERS)

    ask(again, "ModelInfer", inputs=[tensor("x", datatype, [2, 2])], raw_input_contents=[values.tobytes()])

    typed, raw = server.requests[0].rows, again.requests[0].rows
    assert isinstance(typed, Matrix) and isinstance(raw, Matrix)
    assert typed.values.tobytes() == raw.values.tobytes() == values.astype("f8").tobytes()


def test_raw_numbers_of_the_models_own_kind_are_not_copied_once_they_are_read() -> None:
    server = FakeServer(NUMBERS, ANSWERS)

    ask(server, "ModelInfer", inputs=[tensor("x", "FP64", [2, 2])], raw_input_contents=[MATRIX.tobytes()])

    rows = server.requests[0].rows
    assert isinstance(rows, Matrix)
    assert not rows.values.flags.owndata and not rows.values.flags.writeable  # a view of the message's bytes


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-128, 127]), ("INT16", "int_contents", [-(2**15), 2**15 - 1]),
        ("INT32", "int_contents", [-(2**31), 2**31 - 1]), ("INT64", "int64_contents", [-(2**63), 2**63 - 1]),
        ("UINT8", "uint_contents", [0, 255]), ("UINT16", "uint_contents", [0, 2**16 - 1]),
        ("UINT32", "uint_contents", [0, 2**32 - 1]), ("UINT64", "uint64_contents", [0, 2**64 - 1]),
    ],
)  # fmt: skip
def test_every_datatype_keeps_its_limits(datatype: str, field: str, values: list[Any]) -> None:
    dtype = "bool" if datatype == "BOOL" else DATATYPES[datatype].name
    signature = signature_of(Column.model_validate({"name": "x", "dtype": dtype}), container=Container.ARRAY)
    answer = {"predict": np.array(values, dtype=dtype), "predict_proba": np.zeros((2, 2))}
    server = FakeServer(signature.model_copy(update={"outputs": (Output(name="predict", dtype=dtype),)}), answer)

    response = ask(server, "ModelInfer", inputs=[tensor("x", datatype, [2, 1], **{field: values})])

    rows = server.requests[0].rows
    assert isinstance(rows, Matrix)
    assert rows.values.ravel().tolist() == values
    assert response.outputs[0].datatype == datatype
    assert list(getattr(response.outputs[0].contents, field)) == values


def test_half_precision_is_raw_or_becomes_single() -> None:
    half = np.array([[1, 2]], dtype="<f2")
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name="transform")]

    raw = ask(
        FakeServer(NUMBERS, ANSWERS), "ModelInfer", outputs=wanted,
        inputs=[tensor("x", "FP16", [1, 2])], raw_input_contents=[half.tobytes()],
    )  # fmt: skip
    typed = ask(
        FakeServer(NUMBERS, ANSWERS), "ModelInfer", outputs=wanted,
        inputs=[tensor("x", "FP64", [1, 2], fp64_contents=[1, 2])],
    )  # fmt: skip

    assert raw.outputs[0].datatype == "FP16"
    assert raw.raw_output_contents[0] == np.array([1, 2, 3, 4], dtype="<f2").tobytes()
    assert (typed.outputs[0].datatype, list(typed.outputs[0].contents.fp32_contents)) == ("FP32", [1, 2, 3, 4])


def test_a_request_without_an_id_is_answered_with_that_of_the_call() -> None:
    assert ask(FakeServer(), "ModelInfer", inputs=PERSON).id == "req-1"


def test_columns_of_a_frame_are_answered_as_one() -> None:
    request = pb.ModelInferRequest(inputs=PERSON)
    request.parameters["content_type"].string_param = "pd"

    response = ask(FakeServer(), "ModelInfer", inputs=request.inputs, parameters=request.parameters)

    assert response.parameters["content_type"].string_param == "pd"


def test_parameters_that_nobody_knows_are_nobodys_business() -> None:
    parameters = {"priority": parameter(1), "triton_x": parameter(0.5), "headers": pb.InferParameter()}

    assert ask(FakeServer(), "ModelInfer", inputs=PERSON, parameters=parameters).model_name == "shop"


@pytest.mark.parametrize(
    ("microseconds", "seconds"), [(parameter(0), 30.0), (parameter(2_000_000), 2.0), (pb.InferParameter(), 30.0)]
)
def test_timeout_brings_the_deadline_forward(microseconds: Any, seconds: float) -> None:
    server = FakeServer()

    ask(server, "ModelInfer", inputs=PERSON, parameters={"timeout": microseconds})

    assert server.deadline.seconds == seconds


@pytest.mark.parametrize("version", ["0", "x", "1e3", "-1", "9" * 30])
def test_what_is_no_version_is_asked_for_as_none_that_there_is(version: str) -> None:
    server = FakeServer()

    ask(server, "ModelInfer", inputs=PERSON, model_version=version)

    assert server.targets == [Target("", 0)]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"inputs": []}, "no inputs"),
        ({"inputs": PERSON, "raw_input_contents": [b""]}, "'age' has contents, and the request has raw"),
        ({"inputs": RAW_PERSON["inputs"], "raw_input_contents": [b""]}, "2 inputs, and 1 raw_input_contents"),
        ({"inputs": [], "raw_input_contents": [b""]}, "0 inputs, and 1 raw_input_contents"),
        ({"inputs": [tensor("age", "INT64", [1, 1])]}, "holds 1 elements; got 0"),
        ({"inputs": [tensor("age", "INT64", [2], int64_contents=[1])]}, "holds 2 elements; got 1"),
        ({"inputs": [tensor("age", "INT64", [-1], int64_contents=[1])]}, "is no shape"),
        ({"inputs": [tensor("age", "INT8", [1], int_contents=[300])]}, "element 0: expected an integer (int8)"),
        ({"inputs": [tensor("age", "INT64", [1], int_contents=[1])]}, "INT64 in int64_contents; got int_contents"),
        ({"inputs": [tensor("age", "FP16", [1], fp32_contents=[1])]}, "FP16 travels in raw_input_contents only"),
        ({"inputs": [tensor("age", "DECIMAL", [1], fp32_contents=[1])]}, "unknown datatype 'DECIMAL'"),
        ({"inputs": [tensor("age", "", [1])], "raw_input_contents": [b""]}, "unknown datatype ''"),
        ({"inputs": [tensor("city", "BYTES", [1], bytes_contents=[b"\xff"])]}, "element 0: expected a string"),
        ({"inputs": [tensor("age", "INT64", [], {"content_type": parameter(1)}, int64_contents=[1])]}, "content_type:"),
        ({"inputs": [tensor("age", "INT64", [1], {"shared_memory_region": parameter("r")})]}, "is not offered"),
        ({"inputs": PERSON, "parameters": {"timeout": parameter(-1)}}, "timeout: expected whole microseconds"),
        ({"inputs": PERSON, "parameters": {"timeout": parameter("1")}}, "timeout: expected whole microseconds"),
        ({"inputs": PERSON, "outputs": [pb.ModelInferRequest.InferRequestedOutputTensor(name="x")]}, "output 'x'"),
        (
            {"inputs": PERSON, "outputs": [pb.ModelInferRequest.InferRequestedOutputTensor(
                name="predict", parameters={"classification": parameter(3)})]},
            "'classification' is not offered",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ask(FakeServer(), "ModelInfer", **fields)

    assert words in str(caught.value)


def test_values_that_the_columns_do_not_take_are_named_by_row() -> None:
    inputs = [
        tensor("age", "FP64", [2], fp64_contents=[1.0, 1.5]),
        tensor("city", "BYTES", [2], bytes_contents=[b"a"] * 2),
    ]

    with pytest.raises(InvalidRows, match="row 1, column 'age': expected an integer"):
        ask(FakeServer(), "ModelInfer", inputs=inputs)


def test_what_the_model_raises_is_in_the_future() -> None:
    with pytest.raises(ModelFailed):
        ask(FakeServer(error=ModelFailed()), "ModelInfer", inputs=PERSON)


def test_a_stream_wraps_answers_and_names_the_request_that_failed() -> None:
    (rpc,) = (rpc for rpc in RPCS if rpc.kind is Kind.STREAM)
    assert rpc.failed is not None

    response = ask(FakeServer(), "ModelStreamInfer", inputs=PERSON, id="1")
    failed = rpc.failed(pb.ModelInferRequest(id="2"), UnknownModel())

    assert (response.infer_response.id, response.error_message) == ("1", "")
    assert (failed.infer_response.id, failed.error_message) == ("2", str(UnknownModel()))
    assert not rpc.failed(None, UnknownModel()).HasField("infer_response")


# -- what there is -------------------------------------------------------------------------------


@pytest.mark.parametrize("is_ready", [True, False])
def test_a_server_that_is_not_ready_is_alive(is_ready: bool) -> None:
    server = FakeServer(is_ready=is_ready)

    assert ask(server, "ServerLive").live
    assert ask(server, "ServerReady").ready is is_ready


def test_a_model_is_ready_where_it_answers() -> None:
    assert ask(FakeServer(), "ModelReady", name="shop", version="3").ready
    with pytest.raises(UnknownModel):
        ask(FakeServer(), "ModelReady", name="ship")
    with pytest.raises(UnknownVersion):
        ask(FakeServer(), "ModelReady", name="shop", version="1")


def test_metadata_describe_server_and_model() -> None:
    server = ask(FakeServer(), "ServerMetadata")
    model = ask(FakeServer(), "ModelMetadata", name="shop")

    assert (server.name, server.version) == ("tandem", __version__)
    assert list(server.extensions) == ["binary_tensor_data", "model_repository", "model_configuration"]
    assert (model.name, model.platform, list(model.versions)) == ("shop", "tandem_sklearn", ["2", "3", "4"])
    assert [(i.name, i.datatype, list(i.shape)) for i in model.inputs] == [
        ("age", "INT64", [-1, 1]), ("city", "BYTES", [-1, 1]),
    ]  # fmt: skip
    assert [(o.name, o.datatype, list(o.shape)) for o in model.outputs] == [
        ("predict", "BYTES", [-1]), ("predict_proba", "FP64", [-1, 2]),
    ]  # fmt: skip


def test_configuration_counts_the_rows_among_the_dimensions() -> None:
    config = ask(FakeServer(), "ModelConfig", name="shop").config

    assert (config.name, config.platform, config.max_batch_size) == ("shop", "tandem_sklearn", 0)
    assert [(i.name, pb.DataType(i.data_type).name, list(i.dims)) for i in config.input] == [
        ("age", "TYPE_INT64", [-1, 1]), ("city", "TYPE_STRING", [-1, 1]),
    ]  # fmt: skip
    assert pb.DataType(config.output[1].data_type) is pb.DataType["TYPE_FP64"]


def test_every_datatype_has_its_number_in_a_configuration() -> None:
    names = {"TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}" for datatype in DATATYPES}

    assert names == set(pb.DataType.__members__) - {"TYPE_INVALID"}


# -- the repository ------------------------------------------------------------------------------


def test_index_lists_versions_and_what_is_wrong_with_them() -> None:
    everything = ask(FakeServer(), "RepositoryIndex").models
    ready = ask(FakeServer(), "RepositoryIndex", ready=True).models

    assert ("shop", "4", "the digest differs") in [(m.name, m.version, m.reason) for m in everything]
    assert {m.state for m in ready} == {"READY"}


def test_models_are_loaded_and_unloaded_by_name() -> None:
    server = FakeServer()

    ask(server, "RepositoryModelUnload", model_name="shop")
    ask(server, "RepositoryModelLoad", model_name="shop")

    assert server.changes == [("unload", "shop"), ("load", "shop")]
    with pytest.raises(UnknownModel):
        ask(server, "RepositoryModelLoad", model_name="ship")


def test_a_model_is_loaded_as_it_lies_on_disk() -> None:
    config = {"config": pb.ModelRepositoryParameter(string_param="{}")}

    with pytest.raises(InvalidRequest, match="'config' is not supported"):
        ask(FakeServer(), "RepositoryModelLoad", model_name="shop", parameters=config)


# -- the wire ------------------------------------------------------------------------------------

# One request and its answer as the protocol's own description numbers their fields, written by hand.
_REQUEST = (
    b"\x0a\x04shop" b"\x12\x013" b"\x1a\x02id"
    b"\x2a\x10\x0a\x03age\x12\x05INT64\x1a\x02\x01\x01" b"\x2a\x10\x0a\x04city\x12\x05BYTES\x1a\x01\x01"
    b"\x32\x0f\x0a\x0dpredict_proba"
    b"\x3a\x08\x29\0\0\0\0\0\0\0" b"\x3a\x08\x04\0\0\0Graz"
)  # fmt: skip
_RESPONSE = (
    b"\x0a\x04shop" b"\x12\x013" b"\x1a\x02id"
    b"\x2a\x19\x0a\x0dpredict_proba\x12\x04FP64\x1a\x02\x01\x02"
    b"\x32\x10\0\0\0\0\0\0\xd0\x3f\0\0\0\0\0\0\xe8\x3f"
)  # fmt: skip


def test_bytes_on_the_wire_are_those_of_the_protocol() -> None:
    (rpc,) = (rpc for rpc in RPCS if rpc.method == "ModelInfer")

    answer = rpc.handler(FakeServer(), rpc.read(_REQUEST), call_of())

    assert answer.result(timeout=0).SerializeToString() == _RESPONSE


# -- whatever comes ------------------------------------------------------------------------------

_SIZES = st.lists(st.sampled_from([1, 1, 1, 2, 0, -1, 3, 2**40, 2**63 - 1]), max_size=3)
_DATATYPES = st.sampled_from([*DATATYPES, "BF16", "", "fp64"])
_TEXTS = st.sampled_from(["age", "city", "a", "b", "x", "pd", "np", "base64", "predict", "größe", ""])
_PARAMETERS = st.dictionaries(
    st.sampled_from(["content_type", "timeout", "binary_data_size", "shared_memory_region", "id"]),
    st.one_of(
        st.just(pb.InferParameter()),
        st.booleans().map(parameter),
        st.integers(-(2**63), 2**63 - 1).map(parameter),
        st.floats().map(parameter),
        _TEXTS.map(parameter),
    ),
    max_size=2,
)
_CONTENTS = st.fixed_dictionaries(
    {},
    optional={
        "bool_contents": st.lists(st.booleans(), max_size=4),
        "int_contents": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
        "int64_contents": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
        "uint_contents": st.lists(st.integers(0, 2**32 - 1), max_size=4),
        "uint64_contents": st.lists(st.integers(0, 2**64 - 1), max_size=4),
        "fp32_contents": st.lists(st.floats(width=32), max_size=4),
        "fp64_contents": st.lists(st.floats(), max_size=4),
        "bytes_contents": st.lists(st.binary(max_size=8) | st.sampled_from([b"Graz", b"R3Jheg=="]), max_size=4),
    },
)
_INPUTS = st.builds(
    lambda name, datatype, shape, parameters, contents: pb.ModelInferRequest.InferInputTensor(
        name=name, datatype=datatype, shape=shape, parameters=parameters,
        contents=pb.InferTensorContents(**contents) if contents is not None else None,
    ),
    _TEXTS, _DATATYPES, _SIZES, _PARAMETERS, st.none() | _CONTENTS,
)  # fmt: skip
_OUTPUTS = st.builds(pb.ModelInferRequest.InferRequestedOutputTensor, name=_TEXTS, parameters=_PARAMETERS)
_RAW = st.binary(max_size=40) | st.sampled_from([bytes(8), bytes(16), struct.pack("<2d", math.nan, math.inf)])
_WILD = st.builds(
    pb.ModelInferRequest,
    model_name=_TEXTS,
    model_version=st.sampled_from(["", "3", "x"]),
    id=_TEXTS,
    parameters=_PARAMETERS,
    inputs=st.lists(_INPUTS, max_size=3),
    outputs=st.lists(_OUTPUTS, max_size=2),
    raw_input_contents=st.lists(_RAW, max_size=3),
)
# Right in everything but the values, so that these are reached.
_NUMBERS = st.lists(st.floats() | st.just(0.0), min_size=2, max_size=2).map(
    lambda values: pb.ModelInferRequest(inputs=[tensor("x", "FP64", [1, 2], fp64_contents=values)])
)
_ROWS = st.tuples(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=5)).map(
    lambda row: pb.ModelInferRequest(
        inputs=[
            tensor("age", "INT64", [1], int64_contents=[row[0]]),
            tensor("city", "BYTES", [1], bytes_contents=[row[1]]),
        ]
    )
)


@given(request=st.one_of(_WILD, _NUMBERS, _ROWS), signature=st.sampled_from([SHOP, NUMBERS]))
def test_any_request_is_answered_or_refused_as_the_callers_own_mistake(request: Any, signature: Any) -> None:
    (rpc,) = (rpc for rpc in RPCS if rpc.method == "ModelInfer")
    server = FakeServer(signature, ANSWERS if signature is NUMBERS else None)
    try:
        answer = rpc.handler(server, rpc.read(request.SerializeToString()), call_of())
    except RequestError:
        return

    response = answer.result(timeout=0)
    assert response.outputs
    assert len(response.raw_output_contents) in (0, len(response.outputs))


@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(content: bytes) -> None:
    (rpc,) = (rpc for rpc in RPCS if rpc.method == "ModelInfer")
    with contextlib.suppress(RequestError):
        rpc.handler(FakeServer(), rpc.read(content), call_of()).result(timeout=0)

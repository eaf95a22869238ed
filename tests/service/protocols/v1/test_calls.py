from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.deadline import Deadline
from service.core.errors import (
    InvalidRequest,
    RequestError,
    UnknownModel,
    UnknownVersion,
)
from service.core.messages import ModelSummary, Target
from service.core.signature import Column, Container, Output
from service.core.table import Matrix, column_arrays
from service.protocols.protos import pool
from service.protocols.protos import tensorflow_pb as tf
from service.protocols.protos import tensorflow_serving_pb as pb
from service.protocols.route import Scope
from service.protocols.rpc import Call
from service.protocols.v1.calls import RPCS, classify, metadata, predict, regress, status
from service.protocols.v1.tensors import read_tensor, write_tensor
from service.protocols.v2.tensors import Tensor
from tests.service.protocols.fake_server import FakeServer, signature_of


def call() -> Call:
    return Call(Deadline.after(10), "req-1", {})


def people(**more: Any) -> Any:
    """A request to predict for one row of "shop"."""
    inputs = {
        "age": write_tensor(Tensor("age", "INT64", np.array([[41]]))),
        "city": write_tensor(Tensor("city", "BYTES", np.array(["Graz"], dtype=object))),
    }
    return pb.PredictRequest(**{"model_spec": {"name": "shop"}, "inputs": inputs, **more})


def spec(**fields: Any) -> dict[str, Any]:
    return {"model_spec": {"name": "shop", **fields}}


def example(**features: Any) -> Any:
    """An Example; of a feature's values the first says which kind they are."""
    kinds = {bytes: "bytes_list", float: "float_list", int: "int64_list"}
    return tf.Example(features={"feature": {name: {kinds[type(v[0])]: {"value": v}} for name, v in features.items()}})


GRAZ = example(age=[41], city=[b"Graz"])


def amounts(*values: float) -> FakeServer:
    """A regressor of two columns."""
    signature = signature_of(
        Column(name="a", dtype="float32", nullable=True),
        Column(name="b", dtype="float32", nullable=True),
        container=Container.ARRAY,
        outputs=(Output(name="predict", dtype="float64"),),
    )
    return FakeServer(signature, {"predict": np.array(values)})


# -- predictions ---------------------------------------------------------------------------------


def test_predict_answers_tensors_by_name() -> None:
    server = FakeServer()

    response = predict(server, people(), call()).result(timeout=0)

    (row,) = zip(*(array.tolist() for array in column_arrays(server.requests[0].rows)), strict=True)
    assert row == (41, "Graz")
    assert list(response.outputs) == ["predict"]
    assert read_tensor("predict", response.outputs["predict"]).values.tolist() == ["yes"]
    assert (response.model_spec.name, response.model_spec.version.value) == ("shop", 3)


def test_predict_takes_a_matrix_by_any_name_without_a_copy() -> None:
    server = amounts(2.5)
    content = np.array([[1.0, math.nan]], dtype="<f4").tobytes()
    tensor = tf.TensorProto(dtype=1, tensor_shape={"dim": [{"size": 1}, {"size": 2}]}, tensor_content=content)

    response = predict(server, pb.PredictRequest(inputs={"x": tensor}), call()).result(timeout=0)

    rows = server.requests[0].rows
    assert isinstance(rows, Matrix) and not rows.values.flags.owndata
    assert rows.values.tobytes() == content
    assert read_tensor("predict", response.outputs["predict"]).values.tolist() == [2.5]


def test_signature_chooses_the_output_and_is_named_in_the_response() -> None:
    response = predict(FakeServer(), people(**spec(signature_name="predict_proba")), call()).result(timeout=0)

    tensor = read_tensor("predict_proba", response.outputs["predict_proba"])
    assert (tensor.datatype, tensor.values.tolist()) == ("FP64", [[0.25, 0.75]])
    assert response.model_spec.signature_name == "predict_proba"


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({}, Target("shop")),
        ({"version": {"value": 3}}, Target("shop", 3)),
        ({"version": {"value": 0}}, Target("shop", 0)),
        ({"version": {"value": -7}}, Target("shop", 0)),
        ({"version_label": "stable"}, Target("shop", label="stable")),
    ],
    ids=str,
)
def test_model_spec_names_the_target(fields: dict[str, Any], target: Target) -> None:
    server = FakeServer()

    predict(server, people(**spec(**fields)), call())

    assert server.targets == [target]


def targets_server() -> FakeServer:
    """A classifier of two targets."""
    output = Output(name="predict_proba", dtype="float64", targets=2, classes=[["a", "b"], ["c", "d"]])
    signature = signature_of(*FakeServer().signature.columns, outputs=(output,))
    return FakeServer(signature, {"predict_proba": [np.array([[0.25, 0.75]]), np.array([[0.5, 0.5]])]})


@pytest.mark.parametrize(
    ("wanted", "answered"),
    [
        ([], ["predict_proba_0", "predict_proba_1"]),
        (["predict_proba_1"], ["predict_proba_1"]),
    ],
    ids=str,
)
def test_output_filter_leaves_out_the_others(wanted: list[str], answered: list[str]) -> None:
    response = predict(targets_server(), people(output_filter=wanted), call()).result(timeout=0)

    assert sorted(response.outputs) == answered


@pytest.mark.parametrize(
    ("request_", "shown"),
    [
        pytest.param(people(output_filter=["predict_proba"]), "not all of signature predict", id="another signature's"),
        pytest.param(people(output_filter=["nope"]), "unknown output 'nope'", id="unknown output"),
        pytest.param(people(**spec(signature_name="nope")), "unknown signature_name", id="unknown signature"),
        pytest.param(pb.PredictRequest(), "no inputs", id="no inputs"),
        pytest.param(people(inputs={"age": tf.TensorProto()}), "input 'age': unknown dtype", id="no tensor"),
    ],
)
def test_wrong_request_is_refused(request_: Any, shown: str) -> None:
    with pytest.raises(InvalidRequest, match=shown):
        predict(FakeServer(), request_, call())


def test_classify_answers_every_label_with_its_probability() -> None:
    request = pb.ClassificationRequest(input={"example_list": {"examples": [GRAZ]}}, **spec())

    response = classify(FakeServer(), request, call()).result(timeout=0)

    (classifications,) = response.result.classifications
    assert [(one.label, one.score) for one in classifications.classes] == [("no", 0.25), ("yes", 0.75)]
    assert response.model_spec.version.value == 3


def test_regress_answers_one_amount_per_example_and_context_is_in_each() -> None:
    server = amounts(2.5, 3.5)
    given = {"examples": [example(a=[1.0]), example(a=[2])], "context": example(b=[math.nan])}

    response = regress(server, pb.RegressionRequest(input={"example_list_with_context": given}), call()).result()

    assert [one.value for one in response.result.regressions] == [2.5, 3.5]
    columns = column_arrays(server.requests[0].rows)
    assert columns[0].tolist() == [1.0, 2.0] and np.isnan(columns[1]).all()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        pytest.param({}, "expected example_list", id="no input"),
        pytest.param({"example_list": {}}, "at least one object", id="no examples"),
        pytest.param({"example_list": {"examples": [example(age=[1, 2])]}}, "one value per feature", id="two values"),
        pytest.param(
            {"example_list_with_context": {"examples": [GRAZ], "context": GRAZ}}, "in the context", id="a feature twice"
        ),
        pytest.param({"example_list": {"examples": [example(age=[1.5])]}}, "column 'age'", id="no integer"),
        pytest.param({"example_list": {"examples": [tf.Example()]}}, "column 'age'", id="nothing in it"),
    ],
)
def test_wrong_examples_are_refused(given: dict[str, Any], shown: str) -> None:
    with pytest.raises(InvalidRequest, match=shown):
        classify(FakeServer(), pb.ClassificationRequest(input=given), call())


def test_classify_of_a_regressor_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="classify: this model has no predict_proba"):
        classify(amounts(1.0), pb.ClassificationRequest(input={"example_list": {"examples": [GRAZ]}}), call())


# -- on the wire ---------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    head, rest = value & 0x7F, value >> 7
    return bytes([head | 0x80]) + varint(rest) if rest else bytes([head])


def field(number: int, value: int | bytes) -> bytes:
    """A field as protobuf writes it: a number, or something with a length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def test_request_has_the_numbers_of_the_public_interface() -> None:
    spec = field(1, b"shop") + field(2, field(1, 3)) + field(3, b"predict_proba")
    age = field(1, 9) + field(2, field(2, field(1, 1)) + field(2, field(1, 1))) + field(10, varint(41))
    city = field(1, 7) + field(2, field(2, field(1, 1))) + field(8, b"Graz")
    inputs = (field(1, b"age") + field(2, age), field(1, b"city") + field(2, city))
    content = field(1, spec) + b"".join(field(2, one) for one in inputs) + field(3, b"predict_proba")
    server = FakeServer()

    response = predict(server, pb.PredictRequest.FromString(content), call()).result(timeout=0)

    assert [array.tolist() for array in column_arrays(server.requests[0].rows)] == [[41], ["Graz"]]
    assert server.targets == [Target("shop", 3)]
    shape = field(2, field(1, 1)) + field(2, field(1, 2))
    tensor = field(1, 2) + field(2, shape) + field(4, np.array([0.25, 0.75]).tobytes())
    entry = field(1, field(1, b"predict_proba") + field(2, tensor))
    assert response.SerializeToString(deterministic=True) == entry + field(2, spec)


def test_examples_have_the_numbers_of_the_public_interface() -> None:
    features = {b"age": field(3, field(1, varint(41))), b"city": field(1, field(1, b"Graz"))}
    given = b"".join(field(1, field(1, name) + field(2, value)) for name, value in features.items())
    content = field(1, field(1, b"shop")) + field(2, field(1, field(1, field(1, given))))
    server = FakeServer()

    response = classify(server, pb.ClassificationRequest.FromString(content), call()).result(timeout=0)

    assert [array.tolist() for array in column_arrays(server.requests[0].rows)] == [[41], ["Graz"]]
    scores = {b"no": 0.25, b"yes": 0.75}
    classes = b"".join(field(1, field(1, label) + b"\x15" + struct.pack("<f", x)) for label, x in scores.items())
    spec = field(1, b"shop") + field(2, field(1, 3))
    assert response.SerializeToString() == field(1, field(1, classes)) + field(2, spec)


# -- models --------------------------------------------------------------------------------------


def test_metadata_are_the_signatures_in_a_field_of_their_own() -> None:
    response = metadata(FakeServer(), pb.GetModelMetadataRequest(metadata_field=["signature_def"], **spec()), call())

    field = response.metadata["signature_def"]
    assert (response.model_spec.name, response.model_spec.version.value) == ("shop", 3)
    assert field.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    signatures = pb.SignatureDefMap.FromString(field.value).signature_def
    assert sorted(signatures) == ["predict", "predict_proba", "serving_default"]
    about = signatures["predict_proba"]
    assert about.method_name == "tensorflow/serving/predict"
    assert {name: info.dtype for name, info in about.inputs.items()} == {"age": 9, "city": 7}
    (output,) = about.outputs.values()
    assert [dim.size for dim in output.tensor_shape.dim] == [-1, 2]


@pytest.mark.parametrize("fields", [[], ["assets"], ["signature_def", "assets"]], ids=str)
def test_metadata_of_anything_else_is_refused(fields: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="expected signature_def"):
        metadata(FakeServer(), pb.GetModelMetadataRequest(metadata_field=fields, **spec()), call())


def test_status_lists_the_versions_and_why_one_does_not_answer() -> None:
    class Partly(FakeServer):
        def models(self) -> list[ModelSummary]:
            return [ModelSummary("shop", (3,), {}, "live", 3, {4: "the digest differs"})]

    response = status(Partly(), pb.GetModelStatusRequest(**spec()), call())

    assert [
        (one.version, one.state, one.status.error_code, one.status.error_message)
        for one in response.model_version_status
    ] == [(4, 50, 2, "the digest differs"), (3, 30, 0, "")]


@pytest.mark.parametrize(
    ("fields", "error"), [({"name": "nobody"}, UnknownModel), ({"version": {"value": 9}}, UnknownVersion)], ids=str
)
def test_what_is_not_there_is_said_so(fields: dict[str, Any], error: type[Exception]) -> None:
    for handler, request in (
        (status, pb.GetModelStatusRequest(**spec(**fields))),
        (metadata, pb.GetModelMetadataRequest(metadata_field=["signature_def"], **spec(**fields))),
    ):
        with pytest.raises(error):
            handler(FakeServer(), request, call())


def test_every_call_is_open_to_whom_may_predict() -> None:
    assert {rpc.scope for rpc in RPCS} == {Scope.PREDICT}
    assert {rpc.path for rpc in RPCS} == {
        "/tensorflow.serving.PredictionService/Predict",
        "/tensorflow.serving.PredictionService/Classify",
        "/tensorflow.serving.PredictionService/Regress",
        "/tensorflow.serving.PredictionService/GetModelMetadata",
        "/tensorflow.serving.ModelService/GetModelStatus",
    }


@given(content=st.binary(max_size=80), index=st.integers(0, len(RPCS) - 1))
def test_any_bytes_are_answered_or_refused(content: bytes, index: int) -> None:
    rpc = RPCS[index]

    try:
        answer = rpc.handler(FakeServer(), pool.parse(rpc.request, content), call())
    except RequestError:
        return
    assert isinstance(answer.result() if hasattr(answer, "result") else answer, rpc.response)


TENSORS = st.builds(
    tf.TensorProto,
    dtype=st.sampled_from([1, 2, 3, 7, 9, 10, 19]),
    tensor_shape=st.builds(
        lambda sizes: tf.TensorShapeProto(dim=[{"size": size} for size in sizes]),
        st.lists(st.integers(-1, 3), max_size=3),
    ),
    tensor_content=st.just(b"") | st.binary(max_size=16),
    float_val=st.lists(st.floats(width=32), max_size=3),
    int_val=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
    int64_val=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    string_val=st.lists(st.binary(max_size=3), max_size=3),
    half_val=st.lists(st.integers(0, 2**17), max_size=3),
)
NAMES = st.sampled_from(["age", "city", "a", "b", "input-0"])
REQUESTS = st.builds(
    pb.PredictRequest,
    model_spec=st.builds(pb.ModelSpec, signature_name=st.sampled_from(["", "predict", "predict_proba", "x"])),
    inputs=st.dictionaries(NAMES, TENSORS, max_size=2),
    output_filter=st.lists(st.sampled_from(["predict", "predict_proba", "x"]), max_size=2),
)


@given(request=REQUESTS, of_numbers=st.booleans())
def test_any_request_to_predict_is_answered_or_refused(request: Any, of_numbers: bool) -> None:
    server = amounts(1.0) if of_numbers else FakeServer()

    try:
        response = predict(server, request, call()).result(timeout=0)
    except RequestError:
        return
    assert len(response.outputs) == 1

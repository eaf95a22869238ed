"""Asks a server with the stubs of tensorflow-serving-api, and prints what it says as JSON.

usage: python tfserving_grpc.py HOST:PORT ROWS, in the environment of tests/tools/tfserving_environment.sh; ROWS are
instances of the models `numbers` and `amounts`, as JSON
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DT_DOUBLE, DT_INT64, DT_STRING, DataType
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from tensorflow_serving.apis.regression_pb2 import RegressionRequest


def tensor(values: Any, *, typed: bool = False) -> TensorProto:
    """As tf.make_tensor_proto writes it: numbers as bytes, or in their field."""
    array = np.asarray(values)
    shape = {"dim": [{"size": size} for size in array.shape]}
    if array.dtype.kind in "OU":
        return TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=[v.encode() for v in array.ravel()])
    if array.dtype.kind == "i":
        return TensorProto(dtype=DT_INT64, tensor_shape=shape, int64_val=array.ravel().tolist())
    if typed:
        return TensorProto(dtype=DT_DOUBLE, tensor_shape=shape, double_val=array.ravel().tolist())
    return TensorProto(dtype=DT_DOUBLE, tensor_shape=shape, tensor_content=array.astype("<f8").tobytes())


def listed(message: TensorProto) -> Any:
    """As tf.make_ndarray reads it."""
    if message.dtype == DT_STRING:
        return [value.decode() for value in message.string_val]
    dtype = {DT_DOUBLE: "<f8", DT_INT64: "<i8"}[message.dtype]
    shape = [dim.size for dim in message.tensor_shape.dim]
    return np.frombuffer(message.tensor_content, dtype).reshape(shape).tolist()


def refused(call: Callable[[], Any]) -> list[str]:
    """The code and the words of an error."""
    try:
        call()
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    raise AssertionError("it was answered")


def ask(channel: grpc.Channel, rows: list[list[float]]) -> dict[str, Any]:
    predictions, models = PredictionServiceStub(channel), ModelServiceStub(channel)

    def predict(model: str, inputs: dict[str, TensorProto], signature: str = "") -> Any:
        request = PredictRequest(model_spec={"name": model, "signature_name": signature}, inputs=inputs)
        return {name: listed(message) for name, message in predictions.Predict(request, timeout=30).outputs.items()}

    def metadata(model: str) -> Any:
        request = GetModelMetadataRequest(model_spec={"name": model}, metadata_field=["signature_def"])
        signatures = SignatureDefMap()
        assert predictions.GetModelMetadata(request).metadata["signature_def"].Unpack(signatures)
        return {
            name: [DataType.Name(info.dtype) for info in one.outputs.values()]
            for name, one in signatures.signature_def.items()
        }

    def status(model: str) -> Any:
        found = models.GetModelStatus(GetModelStatusRequest(model_spec={"name": model})).model_version_status
        return [[one.version, ModelVersionStatus.State.Name(one.state), one.status.error_code] for one in found]

    examples = [Example() for _ in rows]
    for example, row in zip(examples, rows, strict=True):
        for place, value in enumerate(row):
            example.features.feature[f"x{place}"].float_list.value.append(value)
    given = {"example_list": {"examples": examples}}
    classified = predictions.Classify(ClassificationRequest(model_spec={"name": "numbers"}, input=given))
    regressed = predictions.Regress(RegressionRequest(model_spec={"name": "amounts"}, input=given))
    columns = {f"x{place}": tensor(list(column)) for place, column in enumerate(zip(*rows, strict=True))}
    return {
        "matrix": predict("numbers", {"input-0": tensor(rows)}, "predict_proba"),
        "typed": predict("numbers", {"input-0": tensor(rows, typed=True)}, "predict_proba"),
        "columns": predict("numbers", columns, "predict_proba"),
        "labels": predict("numbers", {"input-0": tensor(rows)}),
        "texts": predict("opinions", {"text": tensor(["great fun", "bad food"])}),
        "classes": [
            [[one.label, one.score] for one in row.classes] for row in classified.result.classifications
        ],
        "amounts": [one.value for one in regressed.result.regressions],
        "version": classified.model_spec.version.value,
        "metadata": metadata("numbers"),
        "status": status("versions"),
        "unknown": refused(lambda: predict("nobody", columns)),
        "wrong": refused(lambda: predict("numbers", {"input-0": tensor([1.0])})),
    }  # fmt: skip


address, rows = sys.argv[1:]
with grpc.insecure_channel(address) as channel:
    print(json.dumps(ask(channel, json.loads(rows))))

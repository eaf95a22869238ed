"""TensorFlow Serving's gRPC API: prediction and model services, without TensorFlow.

Signatures are those of REST (`v1/model.py`). Scores and amounts of Classify and Regress are single precision,
because their messages are; Predict answers in the precision of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final

import numpy as np

from service.core.contracts import Server
from service.core.errors import InvalidRequest, shorten
from service.core.futures import then
from service.core.messages import InferReply, InferRequest, Target
from service.core.signature import Signature
from service.core.table import Table
from service.protocols.protos import tensorflow_pb as tf
from service.protocols.protos import tensorflow_serving_pb as pb
from service.protocols.route import Scope
from service.protocols.rpc import Call, Rpc
from service.protocols.v1.model import (
    METHOD,
    SignatureAbout,
    choose_classes,
    choose_number,
    choose_output,
    labels_of,
    signatures_of,
    states_of,
)
from service.protocols.v1.rows import decode_examples
from service.protocols.v1.tensors import info_of, read_example, read_tensors, write_tensor
from service.protocols.v2.tables import choose_outputs, rows_of, tensors_of

PREDICTIONS: Final = "tensorflow.serving.PredictionService"
MODELS: Final = "tensorflow.serving.ModelService"

# The only thing that there is to know of a model, and the type that it travels as.
METADATA_FIELD: Final = "signature_def"
METADATA_TYPE: Final = "type.googleapis.com/tensorflow.serving.SignatureDefMap"


# -- predictions ---------------------------------------------------------------------------------


def predict(server: Server, request: Any, call: Call) -> Future[Any]:
    """One signature, of whose outputs `output_filter` may leave out some."""
    wanted = list(request.output_filter)

    def read(signature: Signature) -> InferRequest:
        output = choose_output(request.model_spec.signature_name, signature)
        if wanted and choose_outputs(wanted, signature) != (output,):
            raise InvalidRequest(f"output_filter: {shorten(', '.join(wanted))} is not all of signature {output}")
        return InferRequest(rows_of(read_tensors(request.inputs), signature), (output,))

    def write(reply: InferReply) -> Any:
        outputs = {tensor.name: write_tensor(tensor) for tensor in tensors_of(reply, wanted)}
        return pb.PredictResponse(model_spec=_spec(request, reply), outputs=outputs)

    return then(server.infer(_target(request), read, call.deadline), write)


def classify(server: Server, request: Any, call: Call) -> Future[Any]:
    """Every label with its probability, for each example."""

    def read(signature: Signature) -> InferRequest:
        output = choose_classes(request.model_spec.signature_name, signature)
        return InferRequest(_examples(request.input, signature), (output,))

    def write(reply: InferReply) -> Any:
        labels = labels_of(reply.signature)
        rows = [
            pb.Classifications(
                classes=[pb.Class(label=label, score=score) for label, score in zip(labels, scores, strict=True)]
            )
            for scores in _array(reply).tolist()
        ]
        result = pb.ClassificationResult(classifications=rows)
        return pb.ClassificationResponse(model_spec=_spec(request, reply), result=result)

    return then(server.infer(_target(request), read, call.deadline), write)


def regress(server: Server, request: Any, call: Call) -> Future[Any]:
    """One amount for each example."""

    def read(signature: Signature) -> InferRequest:
        output = choose_number(request.model_spec.signature_name, signature)
        return InferRequest(_examples(request.input, signature), (output,))

    def write(reply: InferReply) -> Any:
        amounts = [pb.Regression(value=value) for value in _array(reply).ravel().tolist()]
        result = pb.RegressionResult(regressions=amounts)
        return pb.RegressionResponse(model_spec=_spec(request, reply), result=result)

    return then(server.infer(_target(request), read, call.deadline), write)


def _examples(given: Any, signature: Signature) -> Table:
    """The rows of an Input, the features of its context in every one."""
    kind = given.WhichOneof("kind")
    if kind is None:
        raise InvalidRequest("input: expected example_list or example_list_with_context")
    examples = getattr(given, kind)
    context = read_example(examples.context) if kind == "example_list_with_context" else None
    return decode_examples([read_example(one) for one in examples.examples], context, signature, exact=True)


def _array(reply: InferReply) -> Any:
    (values,) = reply.outputs.values()
    assert isinstance(values, np.ndarray)
    return values


# -- models --------------------------------------------------------------------------------------


def metadata(server: Server, request: Any, call: Call) -> Any:
    """The signatures of a model, wrapped as one field of metadata."""
    if list(request.metadata_field) != [METADATA_FIELD]:
        raise InvalidRequest(f"metadata_field: expected {METADATA_FIELD}; got {_listed(request.metadata_field)}")
    model = server.version(_target(request))
    signatures = {name: _signature(about) for name, about in signatures_of(model.signature).items()}
    response = pb.GetModelMetadataResponse(model_spec=pb.ModelSpec(name=model.model, version={"value": model.version}))
    field = response.metadata[METADATA_FIELD]
    field.type_url = METADATA_TYPE
    field.value = pb.SignatureDefMap(signature_def=signatures).SerializeToString()
    return response


def _listed(names: Sequence[str]) -> str:
    return shorten(", ".join(names)) if names else "none"


def _signature(about: SignatureAbout) -> Any:
    return tf.SignatureDef(
        inputs={tensor.name: info_of(tensor) for tensor in about.inputs},
        outputs={tensor.name: info_of(tensor) for tensor in about.outputs},
        method_name=METHOD,
    )


def status(server: Server, request: Any, call: Call) -> Any:
    """The version asked for, or all of the model, those among them that could not be loaded."""
    _, states = states_of(server, _target(request))
    return pb.GetModelStatusResponse(model_version_status=[_state(*item) for item in states.items()])


def _state(version: int, reason: str | None) -> Any:
    """A version that answers, or one that does not for `reason`."""
    if reason is None:
        state, code = pb.ModelVersionStatus.AVAILABLE, pb.ErrorCode["OK"]
    else:
        state, code = pb.ModelVersionStatus.END, pb.ErrorCode["UNKNOWN_ERROR"]
    about = pb.StatusProto(error_code=code, error_message=reason)
    return pb.ModelVersionStatus(version=version, state=state, status=about)


# -- which model ---------------------------------------------------------------------------------


def _target(request: Any) -> Target:
    """The model, and the version or the label, that a request names. No version below 1 exists."""
    spec = request.model_spec
    match spec.WhichOneof("version_choice"):
        case "version":
            return Target(spec.name, max(0, spec.version.value))
        case "version_label":
            return Target(spec.name, label=spec.version_label)
        case _:
            return Target(spec.name)


def _spec(request: Any, reply: InferReply) -> Any:
    """Which version answered, and by which signature it was asked."""
    return pb.ModelSpec(
        name=reply.model, version={"value": reply.version}, signature_name=request.model_spec.signature_name
    )


RPCS: Final = (
    Rpc(PREDICTIONS, "Predict", pb.PredictRequest, pb.PredictResponse, predict, Scope.PREDICT),
    Rpc(PREDICTIONS, "Classify", pb.ClassificationRequest, pb.ClassificationResponse, classify, Scope.PREDICT),
    Rpc(PREDICTIONS, "Regress", pb.RegressionRequest, pb.RegressionResponse, regress, Scope.PREDICT),
    Rpc(
        PREDICTIONS, "GetModelMetadata", pb.GetModelMetadataRequest, pb.GetModelMetadataResponse, metadata,
        Scope.PREDICT,
    ),
    Rpc(MODELS, "GetModelStatus", pb.GetModelStatusRequest, pb.GetModelStatusResponse, status, Scope.PREDICT),
)  # fmt: skip

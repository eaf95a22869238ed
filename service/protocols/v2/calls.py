"""The Open Inference Protocol, version 2, over gRPC: what tritonclient and kserve speak beside REST.

Tensors are those of REST; a request whose tensors are raw bytes is answered with raw bytes. Shared memory,
traces, log settings and statistics are not offered, and so are not in the table.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service import __version__
from service.core.contracts import Server
from service.core.errors import InvalidRequest, Unavailable
from service.core.futures import then
from service.core.messages import InferReply, InferRequest, Target
from service.core.names import parse_version
from service.core.signature import Signature
from service.protocols.protos import inference_pb as pb
from service.protocols.route import Scope
from service.protocols.rpc import Call, Handler, Kind, Rpc
from service.protocols.status import refusal_of
from service.protocols.v2 import repository
from service.protocols.v2 import rest as v2
from service.protocols.v2.body import require_offered, text_in, timeout_in
from service.protocols.v2.tables import TensorAbout, choose_outputs, inputs_of, outputs_of, rows_of, tensors_of
from service.protocols.v2.tensors import DATATYPES, Tensor, read_list, read_raw, text_of, write_raw

SERVICE: Final = "inference.GRPCInferenceService"
EXTENSIONS: Final = (*v2.EXTENSIONS, "model_configuration")

# The field of InferTensorContents that holds the elements of each datatype.
_CONTENTS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}  # fmt: skip


def infer(server: Server, request: Any, call: Call) -> Future[Any]:
    """Decode, compute, and encode when the answer is there."""
    parameters = _parameters(request, "the request")
    content_type = text_in(parameters, "content_type")
    wanted = [output.name for output in request.outputs]

    def read(signature: Signature) -> InferRequest:
        tensors = _tensors(request)
        for output in request.outputs:
            _parameters(output, f"output {output.name[:60]!r}")
        if (timeout_s := timeout_in(parameters)) is not None:
            call.deadline.bring_forward(timeout_s)
        return InferRequest(rows_of(tensors, signature, content_type), choose_outputs(wanted, signature))

    def write(reply: InferReply) -> Any:
        response = pb.ModelInferResponse(
            model_name=reply.model, model_version=str(reply.version), id=request.id or call.request_id
        )
        if content_type == "pd":
            response.parameters["content_type"].string_param = content_type
        is_raw = bool(request.raw_input_contents)
        for tensor in tensors_of(reply, wanted):
            _write(tensor, response, is_raw)
        return response

    return then(server.infer(_target(request.model_name, request.model_version), read, call.deadline), write)


def infer_in_stream(server: Server, request: Any, call: Call) -> Future[Any]:
    return then(infer(server, request, call), lambda response: pb.ModelStreamInferResponse(infer_response=response))


def failed_in_stream(request: Any, error: BaseException) -> Any:
    """What a stream says of a request that was not answered; its id tells which it is."""
    response = pb.ModelStreamInferResponse(error_message=str(refusal_of(error).error))
    if request is not None:
        response.infer_response.id = request.id
    return response


# -- tensors in and out --------------------------------------------------------------------------


def _tensors(request: Any) -> list[Tensor]:
    """The inputs, all of them raw or none.

    Raises:
        InvalidRequest: mixed, or what `read_raw` and `read_list` refuse.
    """
    raw = request.raw_input_contents
    typed = [entry.name for entry in request.inputs if entry.HasField("contents")]
    if raw and typed:
        raise InvalidRequest(f"input {typed[0][:60]!r} has contents, and the request has raw_input_contents, too")
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequest(f"{len(request.inputs)} inputs, and {len(raw)} raw_input_contents")
    contents = list(raw) if raw else [None] * len(request.inputs)
    return [_read(entry, content) for entry, content in zip(request.inputs, contents, strict=True)]


def _read(entry: Any, raw: bytes | None) -> Tensor:
    parameters = _parameters(entry, f"input {entry.name[:60]!r}")
    shape = list(entry.shape)
    if raw is not None:
        tensor = read_raw(entry.name, entry.datatype, shape, raw)
    else:
        tensor = read_list(entry.name, entry.datatype, shape, _elements(entry), exact=True)
    return replace(tensor, content_type=text_in(parameters, "content_type"))


def _elements(entry: Any) -> list[Any] | NDArray[Any]:
    """The typed contents as `read_list` takes them."""
    field = _CONTENTS.get(entry.datatype)
    given = [found.name for found, _ in entry.contents.ListFields()]
    if entry.datatype == "FP16":
        raise InvalidRequest(f"input {entry.name[:60]!r}: FP16 travels in raw_input_contents only")
    if field is None:  # an unknown datatype, which `read_list` names
        return []
    if given not in ([], [field]):
        raise InvalidRequest(
            f"input {entry.name[:60]!r}: expected the elements of {entry.datatype} in {field}; got {', '.join(given)}"
        )
    values = getattr(entry.contents, field)
    if entry.datatype == "BYTES":
        return [text_of(value) for value in values]
    if entry.datatype in ("FP32", "FP64"):  # where NaN is a missing value
        return np.fromiter(values, DATATYPES[entry.datatype], len(values))
    return list(values)


def _write(tensor: Tensor, response: Any, is_raw: bool) -> None:
    datatype, values = tensor.datatype, tensor.values
    if datatype == "FP16" and not is_raw:  # which has no field
        datatype = "FP32"
    entry = response.outputs.add(name=tensor.name, datatype=datatype, shape=tensor.shape)
    if is_raw:
        response.raw_output_contents.append(write_raw(values, datatype))
        return
    elements = values.ravel().tolist()
    if datatype == "BYTES":
        elements = [value if isinstance(value, bytes) else value.encode() for value in elements]
    getattr(entry.contents, _CONTENTS[datatype]).extend(elements)


# -- parameters ----------------------------------------------------------------------------------


def _parameters(message: Any, what: str) -> dict[str, Any]:
    """Parameters by name, as Python values; one without a value is None.

    Those that nobody knows are nobody's business, but who asks for an extension must not believe to have it.
    """
    found = {
        name: getattr(value, value.WhichOneof("parameter_choice") or "", None)
        for name, value in message.parameters.items()
    }
    require_offered(found, what)
    return found


# -- what there is -------------------------------------------------------------------------------


def live(server: Server, request: Any, call: Call) -> Any:
    return pb.ServerLiveResponse(live=True)


def ready(server: Server, request: Any, call: Call) -> Any:
    return pb.ServerReadyResponse(ready=server.is_ready())


def model_ready(server: Server, request: Any, call: Call) -> Any:
    """False where trying again later may help; a model that is not there is an error."""
    try:
        server.version(_target(request.name, request.version))
    except Unavailable:
        return pb.ModelReadyResponse(ready=False)
    return pb.ModelReadyResponse(ready=True)


def about_server(server: Server, request: Any, call: Call) -> Any:
    return pb.ServerMetadataResponse(name=v2.SERVER, version=__version__, extensions=EXTENSIONS)


def about_model(server: Server, request: Any, call: Call) -> Any:
    model = server.version(_target(request.name, request.version))
    versions = next((s.versions for s in server.models() if s.name == model.model), (model.version,))
    return pb.ModelMetadataResponse(
        name=model.model,
        versions=[str(version) for version in versions],
        platform=v2.PLATFORM,
        inputs=[_about(tensor) for tensor in inputs_of(model.signature)],
        outputs=[_about(tensor) for tensor in outputs_of(model.signature)],
    )


def _about(tensor: TensorAbout) -> Any:
    return pb.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)


def config(server: Server, request: Any, call: Call) -> Any:
    """What clients ask of a configuration. With `max_batch_size` 0 the rows are a dimension of the tensors."""
    model = server.version(_target(request.name, request.version))
    inputs = [
        pb.ModelInput(name=tensor.name, data_type=_data_type(tensor), dims=tensor.shape)
        for tensor in inputs_of(model.signature)
    ]
    outputs = [
        pb.ModelOutput(name=tensor.name, data_type=_data_type(tensor), dims=tensor.shape)
        for tensor in outputs_of(model.signature)
    ]
    about = pb.ModelConfig(name=model.model, platform=v2.PLATFORM, max_batch_size=0, input=inputs, output=outputs)
    return pb.ModelConfigResponse(config=about)


def index(server: Server, request: Any, call: Call) -> Any:
    entries = repository.entries(server.models(), only_ready=request.ready)
    return pb.RepositoryIndexResponse(models=[pb.RepositoryIndexResponse.ModelIndex(**entry) for entry in entries])


def load(server: Server, request: Any, call: Call) -> Future[Any]:
    repository.check_load_parameters(request.parameters)
    return then(server.load(request.model_name), lambda _: pb.RepositoryModelLoadResponse())


def unload(server: Server, request: Any, call: Call) -> Future[Any]:
    return then(server.unload(request.model_name), lambda _: pb.RepositoryModelUnloadResponse())


def _data_type(tensor: TensorAbout) -> int:
    return int(pb.DataType["TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"])


def _target(name: str, version: str) -> Target:
    """The model and version that a request names; what is no version asks for 0, and hears which ones there are."""
    return Target(name, (parse_version(version) or 0) if version else None)


# -- the table -----------------------------------------------------------------------------------


def _unary(method: str, handler: Handler, scope: Scope) -> Rpc:
    return Rpc(SERVICE, method, getattr(pb, f"{method}Request"), getattr(pb, f"{method}Response"), handler, scope)


RPCS: Final = (
    _unary("ServerLive", live, Scope.PUBLIC),
    _unary("ServerReady", ready, Scope.PUBLIC),
    _unary("ServerMetadata", about_server, Scope.PREDICT),
    _unary("ModelReady", model_ready, Scope.PREDICT),
    _unary("ModelMetadata", about_model, Scope.PREDICT),
    _unary("ModelConfig", config, Scope.PREDICT),
    _unary("ModelInfer", infer, Scope.PREDICT),
    Rpc(
        SERVICE, "ModelStreamInfer", pb.ModelInferRequest, pb.ModelStreamInferResponse, infer_in_stream,
        Scope.PREDICT, Kind.STREAM, failed_in_stream,
    ),
    _unary("RepositoryIndex", index, Scope.PREDICT),
    _unary("RepositoryModelLoad", load, Scope.ADMIN),
    _unary("RepositoryModelUnload", unload, Scope.ADMIN),
)  # fmt: skip

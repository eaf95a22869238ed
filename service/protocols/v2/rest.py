"""The Open Inference Protocol, version 2, over HTTP: what Triton, KServe and MLServer and their clients speak."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Final

import orjson

from service import __version__
from service.core.contracts import Server
from service.core.errors import UnsupportedCoding
from service.core.futures import then
from service.core.messages import InferRequest
from service.core.signature import Signature
from service.protocols.catalog import live, ready
from service.protocols.coding import coded
from service.protocols.http import HttpReply, HttpRequest, json_reply
from service.protocols.predict import target_of
from service.protocols.route import Dialect, Route, Scope
from service.protocols.status import refusal_of
from service.protocols.v2.body import V2Body
from service.protocols.v2.tables import TensorAbout, choose_outputs, inputs_of, outputs_of, rows_of

SERVER: Final = "tandem"
PLATFORM: Final = "tandem_sklearn"
EXTENSIONS: Final = ("binary_tensor_data", "model_repository")


def problem(error: BaseException, request_id: str) -> HttpReply:
    """`{"error": …}`. What is wrong with a request is 400 here, and an unknown coding 501."""
    refusal = refusal_of(error)
    status = 400 if refusal.status in (415, 422) else refusal.status
    if isinstance(error, UnsupportedCoding):
        status = 501
    return HttpReply(status, orjson.dumps({"error": str(refusal.error)}), headers=refusal.headers)


V2: Final = Dialect("v2", problem, "/v2/")


def infer(server: Server, http: HttpRequest) -> Future[HttpReply]:
    """Decode, compute, and encode when the answer is there."""
    body = V2Body(http.body, http.headers)

    def read(signature: Signature) -> InferRequest:
        request = body.read(signature)
        if request.timeout_s is not None:
            http.deadline.bring_forward(request.timeout_s)
        outputs = choose_outputs(list(request.outputs), signature)
        return InferRequest(rows_of(request.tensors, signature, request.content_type), outputs)

    answer = server.infer(target_of(http), read, http.deadline, may_block=http.may_block)
    return then(answer, lambda reply: coded(body.write(reply, http.request_id), http))


def about_server(server: Server, http: HttpRequest) -> HttpReply:
    return json_reply({"name": SERVER, "version": __version__, "extensions": list(EXTENSIONS)})


def about_model(server: Server, http: HttpRequest) -> HttpReply:
    model = server.version(target_of(http))
    versions = next((s.versions for s in server.models() if s.name == model.model), (model.version,))
    return json_reply(
        {
            "name": model.model,
            "versions": [str(version) for version in versions],
            "platform": PLATFORM,
            "inputs": [_about(tensor) for tensor in inputs_of(model.signature)],
            "outputs": [_about(tensor) for tensor in outputs_of(model.signature)],
        }
    )


def _about(tensor: TensorAbout) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def list_models(server: Server, http: HttpRequest) -> HttpReply:
    return json_reply({"models": [model.name for model in server.models()]})


def model_ready(server: Server, http: HttpRequest) -> HttpReply:
    """200 where it answers; what else there is to say of it is an error."""
    return json_reply({"name": server.version(target_of(http)).model, "ready": True})


def _routes() -> tuple[Route, ...]:
    routes = [
        Route("GET", "/v2", about_server, Scope.PREDICT, "Server metadata", V2),
        Route("GET", "/v2/", about_server, Scope.PREDICT, "Server metadata", V2),
        Route("GET", "/v2/health/live", live, Scope.PUBLIC, "Does the process answer?", V2),
        Route("GET", "/v2/health/ready", ready, Scope.PUBLIC, "Are the models loaded?", V2),
        Route("GET", "/v2/models", list_models, Scope.PREDICT, "Names of the models", V2),
    ]
    for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [
            Route("POST", f"{model}/infer", infer, Scope.PREDICT, "Infer", V2),
            Route("GET", f"{model}/ready", model_ready, Scope.PREDICT, "Does the model answer?", V2),
            Route("GET", model, about_model, Scope.PREDICT, "Model metadata", V2),
        ]
    return tuple(routes)


ROUTES: Final = _routes()

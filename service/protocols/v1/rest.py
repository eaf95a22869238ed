"""TensorFlow Serving's REST API, which KServe took over as its version 1.

Where the two differ, a reply holds what either reads: the status of a model is TensorFlow's list of versions, with
KServe's `name` and `ready` beside it. A model of which no version answers is 503, as KServe has it. The Content-Type
of a request means nothing here. Unlike TensorFlow's, paths are case-sensitive, like all others of this service.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

import orjson

from service.core.contracts import Server
from service.core.errors import (
    MethodNotAllowed,
    NotOffered,
    UnknownRoute,
    UnsupportedCoding,
)
from service.core.futures import then
from service.core.messages import InferReply, InferRequest
from service.core.signature import Signature
from service.protocols.coding import coded
from service.protocols.http import HttpReply, HttpRequest, json_reply
from service.protocols.predict import target_of
from service.protocols.route import Dialect, Route, Scope
from service.protocols.status import refusal_of
from service.protocols.v1.body import Examples, Predict, write_classes, write_numbers
from service.protocols.v1.model import DATA_TYPES, METHOD, choose_classes, choose_number, signatures_of, states_of
from service.protocols.v2.tables import TensorAbout


def problem(error: BaseException, request_id: str) -> HttpReply:
    """`{"error": …}`. What is wrong with a request is 400, and so is a path or a method that nobody answers."""
    refusal = refusal_of(error)
    status, text = refusal.status, str(refusal.error)
    if isinstance(error, UnsupportedCoding):
        status = 501
    elif isinstance(error, UnknownRoute | MethodNotAllowed):
        status, text = 400, f"Malformed request: {text}"
    elif status == 422:
        status = 400
    return HttpReply(status, orjson.dumps({"error": text}), headers=refusal.headers)


V1: Final = Dialect("v1", problem, "/v1/")


# -- predictions ---------------------------------------------------------------------------------


def predict(server: Server, http: HttpRequest) -> Future[HttpReply]:
    body = Predict(http.body)
    return _infer(server, http, body.read, body.write)


def classify(server: Server, http: HttpRequest) -> Future[HttpReply]:
    return _infer(server, http, Examples(http.body, choose_classes).read, write_classes)


def regress(server: Server, http: HttpRequest) -> Future[HttpReply]:
    return _infer(server, http, Examples(http.body, choose_number).read, write_numbers)


def explain(server: Server, http: HttpRequest) -> HttpReply:
    """KServe's explainers are services of their own; nothing here explains a prediction."""
    raise NotOffered("explanations are not offered")


def _infer(
    server: Server,
    http: HttpRequest,
    read: Callable[[Signature], InferRequest],
    write: Callable[[InferReply], bytes],
) -> Future[HttpReply]:
    answer = server.infer(target_of(http), read, http.deadline, may_block=http.may_block)
    return then(answer, lambda reply: coded(HttpReply(200, write(reply)), http))


# -- models --------------------------------------------------------------------------------------


def live(server: Server, http: HttpRequest) -> HttpReply:
    """What KServe's clients ask for at the root of a server; TensorFlow's have no such question."""
    return json_reply({"status": "alive"})


def list_models(server: Server, http: HttpRequest) -> HttpReply:
    return json_reply({"models": [model.name for model in server.models()]})


def status(server: Server, http: HttpRequest) -> HttpReply:
    """The version asked for, or all of the model, those among them that could not be loaded."""
    model, states = states_of(server, target_of(http))
    versions = [_state(version, reason) for version, reason in states.items()]
    return json_reply({"model_version_status": versions, "name": model, "ready": True})


def _state(version: int, reason: str | None) -> dict[str, Any]:
    """A version that answers, or one that does not for `reason`."""
    state, code = ("AVAILABLE", "OK") if reason is None else ("END", "UNKNOWN")
    return {"version": str(version), "state": state, "status": {"error_code": code, "error_message": reason or ""}}


def metadata(server: Server, http: HttpRequest) -> HttpReply:
    model = server.version(target_of(http))
    signatures = {
        name: {
            "inputs": {tensor.name: _tensor(tensor) for tensor in about.inputs},
            "outputs": {tensor.name: _tensor(tensor) for tensor in about.outputs},
            "method_name": METHOD,
            "defaults": {},
        }
        for name, about in signatures_of(model.signature).items()
    }
    spec = {"name": model.model, "signature_name": "", "version": str(model.version)}
    return json_reply({"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}})


def _tensor(about: TensorAbout) -> dict[str, Any]:
    """As protobuf writes it in JSON: 64-bit integers are texts."""
    dims = [{"size": str(size), "name": ""} for size in about.shape]
    return {
        "dtype": DATA_TYPES[about.datatype],
        "tensor_shape": {"dim": dims, "unknown_rank": False},
        "name": about.name,
    }


def _routes() -> tuple[Route, ...]:
    models = ("/v1/models/{name}", "/v1/models/{name}/versions/{version}", "/v1/models/{name}/labels/{label}")
    # A parameter takes colons, too: the paths with a verb come before those without one.
    routes = [
        Route("POST", f"{model}:{handler.__name__}", handler, Scope.PREDICT, summary, V1)
        for handler, summary in (
            (predict, "Predict rows or columns"),
            (classify, "Probabilities by label"),
            (regress, "One amount per example"),
            (explain, "Not offered"),
        )
        for model in models
    ]
    routes += [
        Route("GET", "/", live, Scope.PUBLIC, "Does the process answer?", V1),
        Route("GET", "/v1/models", list_models, Scope.PREDICT, "Names of the models", V1),
    ]
    for model in models:
        routes += [
            Route("GET", f"{model}/metadata", metadata, Scope.PREDICT, "Signatures of the model", V1),
            Route("GET", model, status, Scope.PREDICT, "Versions and their states", V1),
        ]
    return tuple(routes)


ROUTES: Final = _routes()

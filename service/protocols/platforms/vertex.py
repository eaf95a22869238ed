"""Vertex AI's custom containers: a health route and a predict route, at the paths that the platform chooses.

    {"instances": [[41, "Graz"], {"age": 41, "city": "Graz"}, …]}        → {"predictions": […]}

`{"parameters": {"outputs": ["predict_proba"]}}` chooses what is computed. The default model answers: an endpoint of
Vertex AI is of one model.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Final

from service.core.contracts import Server
from service.core.errors import InvalidRequest, shorten
from service.core.futures import then
from service.core.messages import InferReply, InferRequest, Target
from service.core.signature import Signature
from service.protocols.catalog import ready as health
from service.protocols.http import HttpReply, HttpRequest, json_reply
from service.protocols.platforms.predictions import (
    asked_outputs,
    decode_rows,
    outputs_in,
    predictions_of,
    problem,
    read_rows,
)
from service.protocols.predict import require_json
from service.protocols.route import Dialect, Route, Scope

VERTEX: Final = Dialect("vertex", problem)

# Where the platform asks if nobody has told it otherwise.
_ENDPOINT: Final = "/v1/endpoints/{endpoint}/deployedModels/{deployed}"


def predict(server: Server, http: HttpRequest) -> Future[HttpReply]:
    """Decode, compute, and encode when the answer is there."""
    require_json(http)
    asked = asked_outputs(http)

    def read(signature: Signature) -> InferRequest:
        return read_rows(http.body, asked, signature, lambda content, exact: _build(content, asked, signature, exact))

    def write(reply: InferReply) -> HttpReply:
        return json_reply({"predictions": predictions_of(reply)})

    return then(server.infer(Target(), read, http.deadline, may_block=http.may_block), write)


def _build(content: Any, asked: list[str] | None, signature: Signature, exact: bool) -> InferRequest:
    if not isinstance(content, dict) or "instances" not in content:
        raise InvalidRequest('expected an object with "instances"')
    unknown = content.keys() - {"instances", "parameters"}
    if unknown:
        raise InvalidRequest(f'unknown field {shorten(min(unknown))}; expected "instances" and "parameters"')
    rows = decode_rows(content["instances"], "instances", signature, exact=exact)
    return InferRequest(rows, outputs_in(content.get("parameters"), "parameters", asked, signature))


def health_route(path: str) -> Route:
    return Route("GET", path, health, Scope.PUBLIC, "Are the models loaded?", VERTEX)


def predict_route(path: str) -> Route:
    return Route("POST", path, predict, Scope.PREDICT, "Ask the default model, as Vertex AI does", VERTEX)


# The longer path first: the other one matches it, too.
ROUTES: Final = (predict_route(f"{_ENDPOINT}:predict"), health_route(_ENDPOINT))

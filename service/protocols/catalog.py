"""What is served, and whether it is: the models, and the two health questions."""

from __future__ import annotations

from service.core.contracts import Server
from service.core.errors import Unavailable
from service.protocols.http import HttpReply, HttpRequest, json_reply
from service.protocols.route import Route, Scope


def list_models(server: Server, http: HttpRequest) -> HttpReply:
    """`modelName` and `modelUrl` are for clients of TorchServe and SageMaker, which list models on the same path."""
    models = [
        {
            "name": model.name,
            "versions": list(model.versions),
            "labels": model.labels,
            "state": model.state,
            "version": model.served,
            **({"reasons": {str(v): text for v, text in model.reasons.items()}} if model.reasons else {}),
            **({"codes": {str(v): code for v, code in model.codes.items()}} if model.codes else {}),
            **_aliases(model.name),
        }
        for model in server.models()
    ]
    return json_reply({"models": models})


def describe_model(server: Server, http: HttpRequest) -> HttpReply:
    name = http.path_params["name"]
    return json_reply({**server.describe(name), **_aliases(name)})


def _aliases(name: str) -> dict[str, str]:
    return {"modelName": name, "modelUrl": name}


def live(server: Server, http: HttpRequest) -> HttpReply:
    """The process answers; nothing is said of models. Failing this means: restart me."""
    return json_reply({"live": True})


def ready(server: Server, http: HttpRequest) -> HttpReply:
    """The models are loaded and requests are welcome. Failing this means: send them elsewhere."""
    if not server.is_ready():
        raise Unavailable("not ready: models are being loaded, or the service is stopping")
    return json_reply({"ready": True})


ROUTES = (
    Route("GET", "/models", list_models, Scope.PREDICT, "List the models"),
    Route(
        "GET",
        "/models/{name}",
        describe_model,
        Scope.PREDICT,
        "Describe a model: signature, versions, scores",
    ),
    Route("GET", "/health/live", live, Scope.PUBLIC, "Does the process answer?"),
    Route("GET", "/health/ready", ready, Scope.PUBLIC, "Are the models loaded?"),
)

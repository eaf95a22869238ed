"""The model repository extension of the Open Inference Protocol, version 2: what is there, load it, unload it.

There is one repository, so a name for it in the path says nothing. A model is loaded as it lies on disk, anew where
it is loaded already; a request can change neither its configuration nor its files.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, Final

from service.core.contracts import Server
from service.core.errors import InvalidRequest, shorten
from service.core.futures import then
from service.core.messages import ModelSummary
from service.protocols.http import HttpReply, HttpRequest, json_reply
from service.protocols.json_body import read_json
from service.protocols.route import Route, Scope
from service.protocols.v2.rest import V2


def index(server: Server, http: HttpRequest) -> HttpReply:
    """Every version of every model, or with `{"ready": true}` those that answer."""
    only_ready = _object(http).get("ready", False)
    if not isinstance(only_ready, bool):
        raise InvalidRequest(f'"ready": expected true or false; got {shorten(only_ready)}')
    return json_reply(entries(server.models(), only_ready=only_ready))


def load(server: Server, http: HttpRequest) -> Future[HttpReply]:
    """Answered when it is loaded, here; other workers follow within a poll. After a deadline it is loaded as well."""
    name = http.path_params["name"]
    check_load_parameters(_parameters(http))
    return then(server.load(name), lambda _: json_reply({"name": name, "load": True}))


def unload(server: Server, http: HttpRequest) -> Future[HttpReply]:
    """No model here depends on another, so `unload_dependents` changes nothing."""
    name = http.path_params["name"]
    _parameters(http)
    return then(server.unload(name), lambda _: json_reply({"name": name, "unload": True}))


def entries(models: Iterable[ModelSummary], *, only_ready: bool) -> list[dict[str, str]]:
    """The index: one entry per version that answers, or about which there is something to say."""
    return [
        {
            "name": model.name,
            "version": str(version),
            "state": "READY" if version in model.versions else "UNAVAILABLE",
            "reason": model.reasons.get(version, ""),
        }
        for model in models
        for version in sorted({*model.versions, *model.reasons})
        if version in model.versions or not only_ready
    ]


def check_load_parameters(parameters: Iterable[str]) -> None:
    """Raises InvalidRequest: there are any, such as a configuration or files to load instead of those on disk."""
    for name in parameters:
        raise InvalidRequest(f"parameter {shorten(name)} is not supported: models are loaded as they lie on disk")


def _parameters(http: HttpRequest) -> dict[str, Any]:
    parameters = _object(http).get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidRequest(f'"parameters": expected an object; got {shorten(parameters)}')
    return parameters


def _object(http: HttpRequest) -> dict[str, Any]:
    """The body; an empty one says as much as an empty object."""
    content = read_json(http.body, lambda parsed, exact: parsed) if http.body.strip() else {}
    if not isinstance(content, dict):
        raise InvalidRequest(f"the body is {shorten(content)}; expected an object")
    return content


def _routes() -> tuple[Route, ...]:
    routes = []
    for place in ("/v2/repository", "/v2/repository/{repository}"):
        routes += [
            Route("POST", f"{place}/index", index, Scope.PREDICT, "Models and their states", V2),
            Route("POST", f"{place}/models/{{name}}/load", load, Scope.ADMIN, "Load a model", V2),
            Route("POST", f"{place}/models/{{name}}/unload", unload, Scope.ADMIN, "Unload a model", V2),
        ]
    return tuple(routes)


ROUTES: Final = _routes()

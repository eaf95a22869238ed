"""Loading and unloading models as TorchServe's management API and SageMaker's multi-model endpoints ask for it.

    POST /models?url=iris.mar               or {"model_name": "iris", "url": "/opt/ml/models/iris/model"}
    DELETE /models/{name}
    PUT /models/{name}?min_worker=1
    PUT /models/{name}/{version}/set-default

The models are those of the repository: a URL fetches nothing, it names one of them. `GET /models` and
`GET /models/{name}` are Tandem's own, with the keys of these protocols beside the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Final

from service.core.contracts import Server
from service.core.errors import (
    AlreadyLoaded,
    InvalidRequest,
    UnknownModel,
    shorten,
)
from service.core.futures import settle, then
from service.core.messages import Target
from service.protocols.http import HttpReply, HttpRequest, json_reply
from service.protocols.json_body import read_json
from service.protocols.platforms.torchserve import TORCHSERVE, version_of
from service.protocols.predict import require_json
from service.protocols.route import Route, Scope


def register(server: Server, http: HttpRequest) -> Future[HttpReply]:
    """Load a model that is not loaded. How many workers it shall have, and which handler, is not for callers to say."""
    name = _name_in(http.query if {"url", "model_name"} & http.query.keys() else _body(http))

    def tell(_: None) -> HttpReply:
        version = server.version(Target(name)).version
        return json_reply({"status": f'Model "{name}" Version: {version} registered'})

    return then(server.load(name, again=False), tell)


def unregister(server: Server, http: HttpRequest) -> Future[HttpReply]:
    """Unload a model that is loaded."""
    name = http.path_params["name"]

    def tell(was_loaded: bool) -> HttpReply:
        if not was_loaded:
            raise UnknownModel(f"model {name!r} is unloaded already")
        return json_reply({"status": f'Model "{name}" unregistered'})

    return then(server.unload(name), tell)


def scale(server: Server, http: HttpRequest) -> Future[HttpReply]:
    """With no workers a model is unloaded, and with any it is loaded: they are the service's, and answer for all."""
    name = http.path_params["name"]
    least = _count(http.query, "min_worker", 1)
    if _count(http.query, "max_worker", least) == 0:
        return then(server.unload(name), lambda _: json_reply({"status": f"Workers scaled to 0 for model: {name}"}))

    def tell(loaded: Future[None]) -> HttpReply:
        if not isinstance(loaded.exception(), AlreadyLoaded):
            loaded.result()
        return json_reply({"status": f"Workers of the service answer for model: {name}"})

    return settle(server.load(name, again=False), tell)


def set_default(server: Server, http: HttpRequest) -> Future[HttpReply]:
    """Point the label `stable` at a version."""
    name, version = http.path_params["name"], version_of(http) or 0
    done = f'Default version successfully updated for model "{name}" to "{version}"'
    return then(server.promote(name, version), lambda _: json_reply({"status": done}))


def _body(http: HttpRequest) -> Mapping[str, Any]:
    require_json(http)
    content = read_json(http.body, lambda parsed, exact: parsed)
    if not isinstance(content, dict):
        raise InvalidRequest(f'the body is {shorten(content)}; expected {{"model_name": …, "url": …}}')
    return content


def _name_in(given: Mapping[str, Any]) -> str:
    """The model that is meant: by its name, else by the last part of the URL.

    Raises:
        InvalidRequest: neither is there, or they do not belong together.
    """
    name, url = given.get("model_name"), given.get("url", "")
    if not isinstance(name, str | None) or not isinstance(url, str):
        raise InvalidRequest(f'"model_name" and "url": expected texts; got {shorten(name)} and {shorten(url)}')
    parts = [part.removesuffix(".mar") for part in url.partition("?")[0].split("/") if part]
    if name is None:
        if not parts:
            raise InvalidRequest('expected "url", or "model_name"')
        return parts[-1]
    if parts and name not in parts:
        raise InvalidRequest(
            f'"url" {shorten(url)} does not name model {shorten(name)}: a model is served under the name of its folder'
        )
    return name


def _count(query: Mapping[str, str], key: str, default: int) -> int:
    text = query.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise InvalidRequest(f'"{key}": expected a number of workers; got {shorten(text)}')
    return int(text)


# What SageMaker's multi-model endpoints ask of a container as well.
MULTI_MODEL: Final = (
    Route("POST", "/models", register, Scope.ADMIN, "Load a model", TORCHSERVE),
    Route("DELETE", "/models/{name}", unregister, Scope.ADMIN, "Unload a model", TORCHSERVE),
)
ROUTES: Final = (
    *MULTI_MODEL,
    Route("PUT", "/models/{name}", scale, Scope.ADMIN, "Load a model, or unload it", TORCHSERVE),
    Route(
        "PUT", "/models/{name}/{version}/set-default", set_default, Scope.ADMIN, "Choose the stable version", TORCHSERVE
    ),
)

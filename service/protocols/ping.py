"""The health question of the platforms: TorchServe, SageMaker and MLflow ask the same path."""

from __future__ import annotations

from typing import Final

from service.core.contracts import Server
from service.protocols.http import HttpReply, HttpRequest, json_reply
from service.protocols.route import Route, Scope


def ping(server: Server, http: HttpRequest) -> HttpReply:
    """200 where the models are loaded. TorchServe's clients read the text, all others the status alone."""
    return json_reply({"status": "Healthy"}) if server.is_ready() else json_reply({"status": "Unhealthy"}, 500)


PING: Final = Route("GET", "/ping", ping, Scope.PUBLIC, "Are the models loaded?")

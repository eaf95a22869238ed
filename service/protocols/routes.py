"""The one route table. Both web entry points mount it, so they cannot drift apart."""

from __future__ import annotations

from typing import Final

from service.core.contracts import Server
from service.protocols import catalog, docs, openapi, predict
from service.protocols.http import HttpReply, HttpRequest, Route, Scope, json_reply


def openapi_document(server: Server, http: HttpRequest) -> HttpReply:
    return json_reply(openapi.document(server.served(), ROUTES))


ROUTES: Final[tuple[Route, ...]] = (
    *predict.ROUTES,
    *catalog.ROUTES,
    Route("GET", "/openapi.json", openapi_document, Scope.PUBLIC, "This document"),
    *docs.ROUTES,
)


def by_path() -> dict[str, dict[str, Route]]:
    """The table as {path: {method: route}}: what an entry point mounts is a path, not a method."""
    paths: dict[str, dict[str, Route]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method] = route
    return paths

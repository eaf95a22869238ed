"""The one route table. Every entry point mounts it, so they cannot drift apart."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from service.core.contracts import Server
from service.protocols import catalog, docs, openapi, predict, v2
from service.protocols.http import HttpReply, HttpRequest, json_reply
from service.protocols.route import Dialect, Route, Scope

# The routes of every dialect that settings can switch off, by the name they know it by. One that several
# have in common is the same in each.
DIALECTS: Final[Mapping[str, tuple[Route, ...]]] = MappingProxyType(
    {"v2": v2.ROUTES, "v1": (), "mlflow": (), "sagemaker": (), "vertex": (), "torchserve": ()}
)


@lru_cache(maxsize=16)
def table(dialects: Collection[str] = ()) -> tuple[Route, ...]:
    """Tandem's own routes, and those of `dialects` (a tuple of names)."""
    spoken = [route for name in dialects for route in DIALECTS[name]]

    def openapi_document(server: Server, http: HttpRequest) -> HttpReply:
        return json_reply(openapi.document(server.served(), routes))

    routes = (
        *predict.ROUTES,
        *catalog.ROUTES,
        Route("GET", "/openapi.json", openapi_document, Scope.PUBLIC, "This document"),
        *docs.ROUTES,
        *dict.fromkeys(spoken),
    )
    return routes


def by_path(dialects: Collection[str] = ()) -> dict[str, dict[str, Route]]:
    """The table as {path: {method: route}}: what an entry point mounts is a path, not a method."""
    paths: dict[str, dict[str, Route]] = {}
    for route in table(tuple(dialects)):
        paths.setdefault(route.path, {})[route.method] = route
    return paths


def dialects_of(names: Collection[str]) -> list[Dialect]:
    """The dialects that the routes of `names` speak."""
    return list(dict.fromkeys(route.dialect for name in names for route in DIALECTS[name]))

"""The one route table. Every entry point mounts it, so they cannot drift apart."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from service.core.contracts import Server
from service.protocols import catalog, docs, metrics, model_control, openapi, predict, socket
from service.protocols.http import HttpReply, HttpRequest, json_reply
from service.protocols.platforms import invocations, mlflow, sagemaker, torchserve, vertex
from service.protocols.route import Dialect, Route, Scope
from service.protocols.streaming import routes as streaming
from service.protocols.v1 import rest as v1
from service.protocols.v2 import repository
from service.protocols.v2 import rest as v2

# The routes of every dialect that settings can switch off, by the name they know it by. One that several
# have in common is the same in each.
DIALECTS: Final[Mapping[str, tuple[Route, ...]]] = MappingProxyType(
    {
        "v2": (*v2.ROUTES, *repository.ROUTES),
        "v1": v1.ROUTES,
        "mlflow": mlflow.ROUTES,
        "sagemaker": (*sagemaker.ROUTES, *model_control.MULTI_MODEL),
        "vertex": vertex.ROUTES,
        "torchserve": (*torchserve.ROUTES, *model_control.ROUTES),
    }
)

# Where several dialects have a path to themselves, what answers if all of them are spoken.
SHARED: Final[Mapping[tuple[str, ...], tuple[Route, ...]]] = MappingProxyType(
    {("mlflow", "sagemaker"): invocations.ROUTES}
)


def table(dialects: Collection[str] = (), chosen: Collection[Route] = ()) -> tuple[Route, ...]:
    """Tandem's own routes, and those of `dialects`. Those at `chosen` paths of somebody else's come first."""
    return _table(tuple(dialects), tuple(chosen))


@lru_cache(maxsize=16)
def _table(dialects: tuple[str, ...], chosen: tuple[Route, ...]) -> tuple[Route, ...]:
    spoken = [route for names, routes in SHARED.items() if set(names) <= set(dialects) for route in routes]
    spoken += [route for name in dialects for route in DIALECTS[name]]

    def openapi_document(server: Server, http: HttpRequest) -> HttpReply:
        return json_reply(openapi.document(server.served(), routes))

    first: dict[tuple[str, str], Route] = {}
    for route in (
        *chosen,
        *predict.ROUTES,
        *streaming.ROUTES,
        *socket.ROUTES,
        *catalog.ROUTES,
        *metrics.ROUTES,
        Route("GET", "/openapi.json", openapi_document, Scope.PREDICT, "This document"),
        *docs.ROUTES,
        *spoken,
    ):
        first.setdefault((route.method, route.path), route)
    routes = tuple(first.values())
    return routes


def by_path(dialects: Collection[str] = (), chosen: Collection[Route] = ()) -> dict[str, dict[str, Route]]:
    """The table as {path: {method: route}}: what an entry point mounts is a path, not a method."""
    paths: dict[str, dict[str, Route]] = {}
    for route in table(dialects, chosen):
        paths.setdefault(route.path, {})[route.method] = route
    return paths


def dialects_of(names: Collection[str]) -> list[Dialect]:
    """The dialects that the routes of `names` speak."""
    return list(dict.fromkeys(route.dialect for name in names for route in DIALECTS[name]))

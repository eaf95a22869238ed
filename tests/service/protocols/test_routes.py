from __future__ import annotations

from typing import get_args

from service.protocols.http import HttpReply
from service.protocols.route import Scope
from service.protocols.routes import by_path, table
from service.settings import DialectName
from tests.service.protocols.fake_server import FakeServer, content_of, get

ALL = get_args(DialectName)


def test_no_route_is_declared_twice() -> None:
    keys = [(route.method, route.path) for route in table(ALL)]

    assert len(keys) == len(set(keys))


def test_table_by_path_holds_every_route() -> None:
    paths = by_path(ALL)

    assert [route for methods in paths.values() for route in methods.values()] == sorted(
        table(ALL), key=lambda route: list(paths).index(route.path)
    )
    assert all(paths[route.path][route.method] is route for route in table(ALL))


def test_only_health_and_documents_are_public() -> None:
    public = {route.path for route in table() if route.scope is Scope.PUBLIC}

    assert public == {"/health/live", "/health/ready", "/openapi.json", "/docs", "/docs/{file}"}


def test_document_is_that_of_the_served_models() -> None:
    handler = by_path()["/openapi.json"]["GET"].handler
    reply = handler(FakeServer(), get("/openapi.json"))
    assert isinstance(reply, HttpReply)
    document = content_of(reply)

    assert "/models/shop/predict" in document["paths"]

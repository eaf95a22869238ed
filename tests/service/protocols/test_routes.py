from __future__ import annotations

from service.protocols.http import Scope
from service.protocols.routes import ROUTES, by_path, openapi_document
from tests.service.protocols.fake_server import FakeServer, content_of, get


def test_no_route_is_declared_twice() -> None:
    keys = [(route.method, route.path) for route in ROUTES]

    assert len(keys) == len(set(keys))


def test_table_by_path_holds_every_route() -> None:
    paths = by_path()

    assert [route for methods in paths.values() for route in methods.values()] == sorted(
        ROUTES, key=lambda route: list(paths).index(route.path)
    )
    assert all(paths[route.path][route.method] is route for route in ROUTES)


def test_only_health_and_documents_are_public() -> None:
    public = {route.path for route in ROUTES if route.scope is Scope.PUBLIC}

    assert public == {"/health/live", "/health/ready", "/openapi.json", "/docs", "/docs/{file}"}


def test_document_is_that_of_the_served_models() -> None:
    document = content_of(openapi_document(FakeServer(), get("/openapi.json")))

    assert "/models/shop/predict" in document["paths"]

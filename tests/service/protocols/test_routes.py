from __future__ import annotations

from typing import get_args

import pytest

from service.protocols.http import HttpReply
from service.protocols.route import Scope, place
from service.protocols.routes import by_path, table
from service.protocols.v2.rest import problem as v2_problem
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


def test_only_health_is_public() -> None:
    public = {route.path for route in table() if route.scope is Scope.PUBLIC}

    assert public == {"/health/live", "/health/ready"}


def test_document_is_that_of_the_served_models() -> None:
    handler = by_path()["/openapi.json"]["GET"].handler
    reply = handler(FakeServer(), get("/openapi.json"))
    assert isinstance(reply, HttpReply)
    document = content_of(reply)

    assert "/models/shop/predict" in document["paths"]


@pytest.mark.parametrize("method", ["POST", "GET", "BREW"])
def test_request_knows_its_route_whether_or_not_it_takes_the_method(method: str) -> None:
    http = get("/v2/models/shop/infer")
    http.method = method

    place(http, by_path(["v2"])["/v2/models/{name}/infer"])

    assert (http.template, http.dialect, http.problem) == ("/v2/models/{name}/infer", "v2", v2_problem)

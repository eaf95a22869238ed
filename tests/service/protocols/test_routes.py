from __future__ import annotations

from typing import get_args

import pytest

from service.protocols.http import HttpReply
from service.protocols.route import Paths, Scope, place
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


@pytest.mark.parametrize(
    ("path", "template", "params"),
    [
        ("/predict", "/predict", {}),
        ("/models/a.b/predict", "/models/{name}/predict", {"name": "a.b"}),
        ("/models/a/versions/2/predict", "/models/{name}/versions/{version}/predict", {"name": "a", "version": "2"}),
        ("/v1/models/shop:predict", "/v1/models/{name}:predict", {"name": "shop"}),
    ],
)
def test_path_leads_to_its_routes(path: str, template: str, params: dict[str, str]) -> None:
    paths = by_path(ALL)

    found = Paths(paths).find(path)

    assert found == (paths[template], params)


@pytest.mark.parametrize("path", ["", "/models//predict", "/models/a/b/predict", "/predict/x", "/modelsXa/predict"])
def test_other_paths_lead_nowhere(path: str) -> None:
    assert Paths(by_path(ALL)).find(path) is None


@pytest.mark.parametrize("method", ["POST", "GET", "BREW"])
def test_request_knows_its_route_whether_or_not_it_takes_the_method(method: str) -> None:
    http = get("/v2/models/shop/infer")
    http.method = method

    place(http, by_path(["v2"])["/v2/models/{name}/infer"])

    assert (http.template, http.dialect, http.problem) == ("/v2/models/{name}/infer", "v2", v2_problem)

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import (
    AlreadyLoaded,
    InvalidRequest,
    RequestError,
    UnknownModel,
    UnknownVersion,
    UnreadableRequest,
    UnsupportedMediaType,
)
from service.protocols.http import HttpReply
from service.protocols.model_control import MULTI_MODEL, ROUTES, register, scale, set_default, unregister
from service.protocols.route import Scope
from tests.service.protocols.fake_server import FakeServer, content_of, post


def asked(
    method: Any, server: FakeServer, content: Any = b"", query: Mapping[str, str] | None = None, **path: str
) -> Any:
    reply: Future[HttpReply] = method(server, post(content, query=query, **path))
    return content_of(reply.result(0))


def unloaded() -> FakeServer:
    server = FakeServer()
    server.is_loaded = False
    return server


# -- register ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        {"url": "shop.mar"},
        {"url": "shop"},
        {"url": "https://store.example/models/shop.mar?signature=x/y", "initial_workers": "1", "synchronous": "true"},
        {"model_name": "shop"},
        {"model_name": "shop", "url": "shop.mar"},
    ],
    ids=str,
)
def test_model_is_registered_by_query(query: Mapping[str, str]) -> None:
    server = unloaded()

    reply = asked(register, server, query=query)

    assert server.changes == [("load", "shop")]
    assert reply == {"status": 'Model "shop" Version: 3 registered'}


@pytest.mark.parametrize(
    "content",
    [
        {"model_name": "shop", "url": "/opt/ml/models/shop/model"},
        {"model_name": "shop", "url": "/opt/ml/models/shop/model", "gpu": "0"},
        {"url": "shop.mar", "batch_size": 4},
    ],
    ids=str,
)
def test_model_is_registered_by_body(content: Any) -> None:
    server = unloaded()

    asked(register, server, content)

    assert server.changes == [("load", "shop")]


def test_loaded_model_cannot_be_registered() -> None:
    server = FakeServer()

    assert isinstance(register(server, post({"model_name": "shop"})).exception(0), AlreadyLoaded)
    assert server.changes == []


def test_model_that_is_not_there_cannot_be_registered() -> None:
    assert isinstance(register(FakeServer(), post({"url": "wine.mar"})).exception(0), UnknownModel)


@pytest.mark.parametrize(
    ("content", "query", "error", "told"),
    [
        pytest.param({}, {}, InvalidRequest, 'expected "url", or "model_name"', id="nothing"),
        pytest.param(b"", {"url": ""}, InvalidRequest, 'expected "url"', id="empty"),
        pytest.param(b"", {"url": "//"}, InvalidRequest, 'expected "url"', id="no part"),
        pytest.param(b"", {"batch_size": "1"}, UnreadableRequest, "the body is empty", id="neither query nor body"),
        pytest.param([], {}, InvalidRequest, "the body is a list of 0", id="a list"),
        pytest.param({"url": 1}, {}, InvalidRequest, "expected texts; got null and 1", id="a number"),
        pytest.param({"model_name": ["shop"]}, {}, InvalidRequest, "got a list of 1", id="a list as name"),
        pytest.param(
            b"", {"url": "wine.mar", "model_name": "shop"}, InvalidRequest, "'wine.mar' does not name model 'shop'",
            id="another model",
        ),
    ],
)  # fmt: skip
def test_request_that_names_no_model_is_refused(
    content: Any, query: Mapping[str, str], error: type[Exception], told: str
) -> None:
    server = unloaded()

    with pytest.raises(error, match=told):
        register(server, post(content, query=query))

    assert server.changes == []


def test_form_of_a_browser_registers_nothing() -> None:
    with pytest.raises(UnsupportedMediaType):
        register(unloaded(), post(b'{"model_name": "shop"}', headers={"content-type": "text/plain"}))


@given(
    content=st.binary(max_size=40)
    | st.dictionaries(
        st.sampled_from(["model_name", "url", "x"]), st.none() | st.integers(0, 9) | st.text(max_size=9), max_size=3
    ).map(orjson.dumps),
    query=st.dictionaries(st.sampled_from(["model_name", "url", "x"]), st.text(max_size=9), max_size=3),
)
def test_any_request_to_register_is_answered_or_refused(content: bytes, query: Mapping[str, str]) -> None:
    try:
        error = register(unloaded(), post(content, query=query)).exception(0)
    except RequestError:
        return
    assert error is None or isinstance(error, UnknownModel)


# -- unregister, scale, set-default --------------------------------------------------------------


def test_model_is_unregistered_once() -> None:
    server = FakeServer()

    assert asked(unregister, server, name="shop") == {"status": 'Model "shop" unregistered'}

    assert server.changes == [("unload", "shop")]
    for name in ("shop", "wine"):
        assert isinstance(unregister(server, post(b"", name=name)).exception(0), UnknownModel)


@pytest.mark.parametrize(
    ("query", "is_loaded", "changes"),
    [
        pytest.param({}, True, [], id="loaded already"),
        pytest.param({"min_worker": "3", "synchronous": "true"}, True, [], id="more workers"),
        pytest.param({"min_worker": "1"}, False, [("load", "shop")], id="from none to one"),
        pytest.param({"min_worker": "0", "max_worker": "2"}, False, [("load", "shop")], id="as many as it takes"),
        pytest.param({"min_worker": "0"}, True, [("unload", "shop")], id="none"),
        pytest.param({"min_worker": "0", "max_worker": "0"}, False, [("unload", "shop")], id="still none"),
    ],
)
def test_model_has_workers_or_none(query: Mapping[str, str], is_loaded: bool, changes: list[Any]) -> None:
    server = FakeServer() if is_loaded else unloaded()

    reply = asked(scale, server, query=query, name="shop")

    assert server.changes == changes
    assert reply["status"].endswith("for model: shop")


@pytest.mark.parametrize("count", ["", "-1", "1.5", "two", "²", "9" * 10])
@pytest.mark.parametrize("key", ["min_worker", "max_worker"])
def test_number_of_workers_is_a_number(key: str, count: str) -> None:
    with pytest.raises(InvalidRequest, match=f'"{key}": expected a number of workers'):
        scale(FakeServer(), post(b"", query={key: count}, name="shop"))


def test_model_that_is_not_there_cannot_be_scaled() -> None:
    for least in "01":
        future = scale(FakeServer(), post(b"", query={"min_worker": least}, name="wine"))
        assert isinstance(future.exception(0), UnknownModel)


@pytest.mark.parametrize("version", ["4", "4.0"])
def test_version_becomes_the_default(version: str) -> None:
    server = FakeServer()

    reply = asked(set_default, server, name="shop", version=version)

    assert server.changes == [("promote 4", "shop")]
    assert reply == {"status": 'Default version successfully updated for model "shop" to "4"'}


@pytest.mark.parametrize("version", ["9", "0", "x", "1.5"])
def test_version_that_is_not_there_cannot_become_the_default(version: str) -> None:
    future = set_default(FakeServer(), post(b"", name="shop", version=version))

    assert isinstance(future.exception(0), UnknownVersion)


def test_every_change_is_for_admins() -> None:
    assert {route.scope for route in ROUTES} == {Scope.ADMIN}
    assert {(route.method, route.path) for route in MULTI_MODEL} == {("POST", "/models"), ("DELETE", "/models/{name}")}

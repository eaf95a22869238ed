from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import (
    InvalidRequest,
    RequestError,
    UnknownModel,
    UnreadableRequest,
)
from service.core.messages import UNLOADED, ModelSummary
from service.protocols.http import HttpReply, HttpRequest
from service.protocols.route import Scope
from service.protocols.v2.repository import ROUTES, check_load_parameters, entries, index, load, unload
from service.protocols.v2.rest import EXTENSIONS, V2
from tests.service.protocols.fake_server import FakeServer, content_of, post

SHOP = ModelSummary("shop", (2, 3), {"stable": 2}, "live", 3, {3: "its files went bad", 4: "the digest differs"})
GONE = ModelSummary("gone", (), {}, UNLOADED, None, {1: UNLOADED})


def answered(future: Future[HttpReply]) -> Any:
    return content_of(future.result(0))


def test_index_lists_every_version_with_its_state_and_reason() -> None:
    assert entries([GONE, SHOP], only_ready=False) == [
        {"name": "gone", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"},
        {"name": "shop", "version": "2", "state": "READY", "reason": ""},
        # Its files went bad while it was live: it serves on from memory.
        {"name": "shop", "version": "3", "state": "READY", "reason": "its files went bad"},
        {"name": "shop", "version": "4", "state": "UNAVAILABLE", "reason": "the digest differs"},
    ]


@pytest.mark.parametrize(
    ("body", "versions"),
    [
        pytest.param(b"", ["2", "3", "4"], id="empty"),
        pytest.param(b" \n", ["2", "3", "4"], id="blank"),
        pytest.param({}, ["2", "3", "4"], id="no wish"),
        pytest.param({"ready": False}, ["2", "3", "4"], id="all"),
        pytest.param({"ready": True, "other": 1}, ["2", "3"], id="ready"),
    ],
)
def test_index_may_be_of_what_is_ready(body: Any, versions: list[str]) -> None:
    class Server(FakeServer):
        def models(self) -> list[ModelSummary]:
            return [SHOP]

    assert [entry["version"] for entry in content_of(index(Server(), post(body)))] == versions


@pytest.mark.parametrize("body", [b"", {}, {"parameters": None}, {"parameters": {}}, {"other": 1}])
def test_model_is_loaded(body: Any) -> None:
    server = FakeServer()

    reply = answered(load(server, post(body, name="shop")))

    assert server.changes == [("load", "shop")]
    assert reply == {"name": "shop", "load": True}


@pytest.mark.parametrize("body", [b"", {"parameters": {"unload_dependents": True}}])
def test_model_is_unloaded(body: Any) -> None:
    server = FakeServer()

    reply = answered(unload(server, post(body, name="shop")))

    assert server.changes == [("unload", "shop")]
    assert reply == {"name": "shop", "unload": True}


def test_model_that_is_unloaded_already_stays_so() -> None:
    server = FakeServer()

    for _ in range(2):
        assert answered(unload(server, post(b"", name="shop")))["unload"] is True


@pytest.mark.parametrize("handler", [load, unload])
def test_unknown_model_is_in_the_future(handler: Any) -> None:
    assert isinstance(handler(FakeServer(), post(b"", name="wine")).exception(0), UnknownModel)


@pytest.mark.parametrize("name", ["config", "file:1/model.onnx", "anything"])
def test_model_is_not_loaded_with_files_or_configuration_of_the_caller(name: str) -> None:
    server = FakeServer()

    with pytest.raises(InvalidRequest, match=f"parameter '{name}' is not supported"):
        load(server, post({"parameters": {name: "{}"}}, name="shop"))
    with pytest.raises(InvalidRequest, match=f"'{name}'"):
        check_load_parameters([name])

    assert server.changes == []


@pytest.mark.parametrize(
    ("handler", "body", "error", "told"),
    [
        pytest.param(index, b"{", UnreadableRequest, "not valid JSON", id="no JSON"),
        pytest.param(index, [], InvalidRequest, "a list of 0; expected an object", id="a list"),
        pytest.param(index, {"ready": 1}, InvalidRequest, '"ready": expected true or false; got 1', id="ready"),
        pytest.param(load, {"parameters": 1}, InvalidRequest, '"parameters": expected an object; got 1', id="load"),
        pytest.param(unload, {"parameters": []}, InvalidRequest, '"parameters": expected an object', id="unload"),
        pytest.param(unload, b"null", InvalidRequest, "the body is null; expected an object", id="null"),
    ],
)
def test_body_that_says_nothing_sensible_is_refused(handler: Any, body: Any, error: type[Exception], told: str) -> None:
    server = FakeServer()

    with pytest.raises(error, match=told):
        handler(server, post(body, name="shop"))

    assert server.changes == []


@given(
    body=st.binary(max_size=40)
    | st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.sampled_from(["ready", "config"]),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(["ready", "parameters", "config", "x"]), inner, max_size=3)
        ),
    ).map(orjson.dumps)
)
def test_any_body_is_answered_or_refused(body: bytes) -> None:
    for handler in (index, load, unload):
        try:
            reply = handler(FakeServer(), post(body, name="shop"))
        except RequestError:
            continue
        assert (reply.result(0) if isinstance(reply, Future) else reply).status == 200


def test_index_is_for_callers_and_changes_are_for_admins() -> None:
    scopes = {route.path.rpartition("/")[2]: route.scope for route in ROUTES}

    assert scopes == {"index": Scope.PREDICT, "load": Scope.ADMIN, "unload": Scope.ADMIN}
    assert {route.path.replace("/{repository}", "") for route in ROUTES} == {
        "/v2/repository/index", "/v2/repository/models/{name}/load", "/v2/repository/models/{name}/unload"
    }  # fmt: skip
    assert all(route.dialect is V2 for route in ROUTES)


def test_extension_is_announced() -> None:
    assert "model_repository" in EXTENSIONS


def test_name_of_a_repository_in_the_path_says_nothing() -> None:
    http = HttpRequest("POST", "/", {"repository": "other", "name": "shop"}, {}, {}, b"", "req-1")

    assert answered(load(FakeServer(), http)) == {"name": "shop", "load": True}

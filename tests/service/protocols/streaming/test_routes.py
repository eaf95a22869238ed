from __future__ import annotations

from typing import Any

import pytest

from service.core.deadline import Deadline
from service.core.errors import InvalidRequest, NotAcceptable, UnknownModel, UnsupportedMediaType
from service.core.messages import Target
from service.protocols.http import HttpRequest
from service.protocols.route import Scope
from service.protocols.streaming.arrow import ArrowStream
from service.protocols.streaming.ndjson import NdjsonStream
from service.protocols.streaming.routes import ROUTES, STREAMS, predict_stream
from tests.service.protocols.fake_server import FakeServer
from tests.service.protocols.streaming.held import FakeHeld, said

LINES = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"


class Holding(FakeServer):
    def __init__(self) -> None:
        super().__init__()
        self.held = FakeHeld()

    def hold(self, target: Target, deadline: Any = None) -> Any:
        self.targets.append(target)
        if target.model not in (None, "shop"):
            raise UnknownModel
        return self.held


def asking(content_type: str = LINES, query: dict[str, str] | None = None, **more: Any) -> HttpRequest:
    headers = {"content-type": content_type, **more.pop("headers", {})}
    http = HttpRequest("POST", "/predict/stream", more, query or {}, headers, b"", "req-1")
    http.deadline = Deadline.after(20)
    return http


@pytest.mark.parametrize("content_type", [*STREAMS, f"{LINES}; charset=utf-8"])
def test_answers_come_in_the_form_of_the_rows(content_type: str) -> None:
    reply = predict_stream(Holding(), asking(content_type))

    assert reply.content_type == content_type.partition(";")[0]
    assert isinstance(reply.duplex, ArrowStream if content_type == ARROW else NdjsonStream)
    assert (reply.status, reply.headers) == (200, {"x-model-name": "shop", "x-model-version": "3"})


def test_outputs_are_chosen_in_the_query() -> None:
    reply = predict_stream(Holding(), asking(query={"outputs": "predict_proba"}))

    assert said(reply.duplex, b'{"age": 25}\n') == b'{"probabilities":[0.75,0.25],"classes":["no","yes"]}\n'


@pytest.mark.parametrize(
    ("params", "target"),
    [
        ({}, Target()),
        ({"name": "shop"}, Target("shop")),
        ({"name": "shop", "version": "12"}, Target("shop", 12)),
        ({"name": "shop", "label": "stable"}, Target("shop", label="stable")),
    ],
)
def test_path_names_the_target(params: dict[str, str], target: Target) -> None:
    server = Holding()

    predict_stream(server, asking(**params))

    assert server.targets == [target]


@pytest.mark.parametrize(
    ("http", "error"),
    [
        pytest.param(asking("application/json"), UnsupportedMediaType, id="no stream"),
        pytest.param(asking(""), UnsupportedMediaType, id="no type"),
        pytest.param(asking(f"{LINES}; charset=latin-1"), UnsupportedMediaType, id="charset"),
        pytest.param(asking("text/csv"), UnsupportedMediaType, id="a form that does not stream"),
        pytest.param(asking(headers={"content-encoding": "gzip"}), UnsupportedMediaType, id="compressed"),
        pytest.param(asking(headers={"accept": "application/json"}), NotAcceptable, id="another form"),
        pytest.param(asking(name="other"), UnknownModel, id="unknown model"),
    ],
)
def test_refused_before_anything_is_held(http: HttpRequest, error: type[Exception]) -> None:
    server = Holding()

    with pytest.raises(error):
        predict_stream(server, http)

    assert server.held.closed == 0


@pytest.mark.parametrize("accept", ["", "*/*", LINES, f"application/json, {LINES};q=0.5"])
def test_accept_that_takes_the_form_is_fine(accept: str) -> None:
    assert predict_stream(Holding(), asking(headers={"accept": accept})).content_type == LINES


def test_unknown_output_lets_go_of_the_version() -> None:
    server = Holding()

    with pytest.raises(InvalidRequest):
        predict_stream(server, asking(query={"outputs": "magic"}))

    assert server.held.closed == 1


def test_identity_is_no_coding() -> None:
    assert predict_stream(Holding(), asking(headers={"content-encoding": "identity"})).status == 200


def test_routes_read_the_body_themselves_and_hold_a_place() -> None:
    assert {route.path for route in ROUTES} == {
        "/predict/stream",
        "/models/{name}/predict/stream",
        "/models/{name}/versions/{version}/predict/stream",
        "/models/{name}/labels/{label}/predict/stream",
    }
    assert all(route.streams and route.reads_pieces and route.scope is Scope.PREDICT for route in ROUTES)

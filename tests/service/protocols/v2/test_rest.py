from __future__ import annotations

import gzip
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from service import __version__
from service.core.deadline import Deadline
from service.core.errors import (
    DeadlinePassed,
    InvalidRequest,
    MethodNotAllowed,
    Overloaded,
    TandemError,
    Unavailable,
    UnknownModel,
    UnknownVersion,
    UnsupportedCoding,
)
from service.core.messages import ModelSummary, Target
from service.core.signature import Column, Container
from service.core.table import Frame
from service.protocols.coding import LEAST_BYTES
from service.protocols.http import HttpReply, HttpRequest
from service.protocols.route import Scope
from service.protocols.v2.rest import EXTENSIONS, ROUTES, V2, infer, problem
from tests.service.protocols.fake_server import FakeServer, content_of, get, post, signature_of

PERSON = [
    {"name": "city", "datatype": "BYTES", "shape": [1], "data": ["Graz"]},
    {"name": "age", "datatype": "INT64", "shape": [1, 1], "data": [[41]]},
]


def ask(server: FakeServer, content: Any, headers: Mapping[str, str] | None = None) -> HttpReply:
    return infer(server, post(content, headers=headers or {}, name="shop")).result(timeout=0)


def answer_of(server: FakeServer, http: HttpRequest) -> HttpReply:
    """What the GET route of this path answers."""
    (route,) = (route for route in ROUTES if route.method == "GET" and route.path == http.path)
    reply = route.handler(server, http)
    assert isinstance(reply, HttpReply)
    return reply


def test_inference_answers_the_default_output_and_echoes_the_id() -> None:
    server = FakeServer()

    reply = ask(server, {"id": "mine", "inputs": PERSON, "model_name": "what clients add"})

    assert content_of(reply) == {
        "model_name": "shop",
        "model_version": "3",
        "id": "mine",
        "outputs": [
            {"name": "predict", "shape": [1], "datatype": "BYTES", "parameters": {"content_type": "str"},
             "data": ["yes"]},
        ],
    }  # fmt: skip
    rows = server.requests[0].rows
    assert isinstance(rows, Frame)
    assert {name: values.tolist() for name, values in rows.columns.items()} == {"age": [41], "city": ["Graz"]}


def test_outputs_come_as_they_are_named_and_without_an_id_the_request_has_its_own() -> None:
    reply = ask(FakeServer(), {"inputs": PERSON, "outputs": [{"name": "predict_proba"}, {"name": "predict"}]})

    content = content_of(reply)
    assert content["id"] == "req-1"
    assert [output["name"] for output in content["outputs"]] == ["predict_proba", "predict"]
    assert content["outputs"][0] == {
        "name": "predict_proba", "shape": [1, 2], "datatype": "FP64", "data": [0.25, 0.75],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("params", "target"),
    [
        ({"name": "shop"}, Target("shop")),
        ({"name": "shop", "version": "3"}, Target("shop", 3)),
        ({"name": "shop", "version": "latest"}, Target("shop", 0)),
    ],
)
def test_version_in_the_path_is_the_one_that_is_asked(params: dict[str, str], target: Target) -> None:
    server = FakeServer()

    infer(server, post({"inputs": PERSON}, **params)).result(timeout=0)

    assert server.targets == [target]


def test_caller_may_wait_for_less_than_the_service() -> None:
    http = post({"inputs": PERSON, "parameters": {"timeout": 250_000}}, name="shop")
    http.deadline = Deadline.after(30)

    infer(FakeServer(), http).result(timeout=0)

    assert http.deadline.seconds == 0.25


def test_what_goes_wrong_later_is_in_the_future() -> None:
    server = FakeServer(waits=True, error=Overloaded("full"))
    future = infer(server, post({"inputs": PERSON}, name="shop"))
    assert isinstance(future, Future) and not future.done()

    server.finish()

    with pytest.raises(Overloaded):
        future.result(timeout=0)


def test_long_answers_are_compressed_for_those_who_read_that() -> None:
    rows = LEAST_BYTES
    inputs = [{"name": "age", "datatype": "INT64", "shape": [rows], "data": [1] * rows}]
    server = FakeServer(
        signature_of(Column(name="age", dtype="int64")), outputs={"predict": np.array(["yes"] * rows)}
    )  # fmt: skip

    reply = ask(server, {"inputs": inputs}, {"accept-encoding": "gzip"})

    assert reply.headers["content-encoding"] == "gzip"
    assert gzip.decompress(reply.body).endswith(b'"yes"]}]}')


def test_server_says_who_it_is_and_what_it_offers() -> None:
    for path in ("/v2", "/v2/"):
        content = content_of(answer_of(FakeServer(), get(path)))
        assert content == {"name": "tandem", "version": __version__, "extensions": list(EXTENSIONS)}
    assert content_of(answer_of(FakeServer(), get("/v2/models"))) == {"models": ["shop"]}


@pytest.mark.parametrize("path", ["/v2/models/{name}", "/v2/models/{name}/versions/{version}"])
def test_model_says_what_it_takes_and_gives(path: str) -> None:
    params = {"name": "shop", "version": "3"} if "version" in path else {"name": "shop"}

    content = content_of(answer_of(FakeServer(), get(path, **params)))

    assert content == {
        "name": "shop",
        "versions": ["2", "3", "4"],
        "platform": "tandem_sklearn",
        "inputs": [
            {"name": "age", "datatype": "INT64", "shape": [-1, 1]},
            {"name": "city", "datatype": "BYTES", "shape": [-1, 1]},
        ],
        "outputs": [
            {"name": "predict", "datatype": "BYTES", "shape": [-1]},
            {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 2]},
        ],
    }


def test_model_that_is_unloaded_while_it_is_described_is_described() -> None:
    class Gone(FakeServer):
        def models(self) -> list[ModelSummary]:
            return []

    content = content_of(answer_of(Gone(), get("/v2/models/{name}", name="shop")))

    assert content["versions"] == ["3"]


def test_health_is_a_matter_of_the_status() -> None:
    server = FakeServer()

    assert content_of(answer_of(server, get("/v2/health/live"))) == {"live": True}
    assert content_of(answer_of(server, get("/v2/health/ready"))) == {"ready": True}
    ready = answer_of(server, get("/v2/models/{name}/ready", name="shop"))
    assert content_of(ready) == {"name": "shop", "ready": True}


@pytest.mark.parametrize(
    ("server", "http", "error"),
    [
        (FakeServer(is_ready=False), get("/v2/health/ready"), Unavailable),
        (FakeServer(), get("/v2/models/{name}/ready", name="nobody"), UnknownModel),
        (FakeServer(), get("/v2/models/{name}", name="nobody"), UnknownModel),
        (FakeServer(), get("/v2/models/{name}/versions/{version}", name="shop", version="9"), UnknownVersion),
        (FakeServer(), get("/v2/models/{name}/versions/{version}/ready", name="shop", version="x"), UnknownVersion),
    ],
)
def test_what_is_not_there_is_refused(server: FakeServer, http: HttpRequest, error: type[TandemError]) -> None:
    with pytest.raises(error):
        answer_of(server, http)


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (InvalidRequest("no such output"), 400, {}),
        (UnknownModel(), 404, {}),
        (MethodNotAllowed("PUT", ["GET", "HEAD"]), 405, {"allow": "GET, HEAD"}),
        (UnsupportedCoding("br"), 501, {"accept-encoding": "gzip, deflate"}),
        (Overloaded("too much"), 503, {"retry-after": "1"}),
        (DeadlinePassed(1), 504, {}),
        (RuntimeError("/secret/path"), 500, {}),
    ],
)
def test_errors_are_one_sentence_with_the_status_of_the_protocol(
    error: Exception, status: int, headers: dict[str, str]
) -> None:
    reply = problem(error, "req-1")

    assert (reply.status, reply.content_type, reply.headers) == (status, "application/json", headers)
    assert list(content_of(reply)) == ["error"]
    assert "secret" not in content_of(reply)["error"]


def test_wrong_cells_are_named_with_row_and_column() -> None:
    inputs = [
        {"name": "age", "datatype": "FP64", "shape": [2], "data": [41.0, 1.5]},
        {"name": "city", "datatype": "BYTES", "shape": [2], "data": ["Graz", "Linz"]},
    ]

    with pytest.raises(InvalidRequest) as caught:
        ask(FakeServer(), {"inputs": inputs})

    assert content_of(problem(caught.value, "")) == {
        "error": "row 1, column 'age': expected an integer (int64), got 1.5"
    }


def test_predictions_and_metadata_are_not_public() -> None:
    public = {route.path for route in ROUTES if route.scope is Scope.PUBLIC}

    assert public == {"/v2/health/live", "/v2/health/ready"}
    assert all(route.dialect is V2 for route in ROUTES)


def test_texts_of_one_column_come_under_any_name() -> None:
    server = FakeServer(signature_of(Column(name="text", dtype="string"), container=Container.SERIES))

    ask(server, {"inputs": [{"name": "predict", "datatype": "BYTES", "shape": [1], "data": ["great"]}]})

    rows = server.requests[0].rows
    assert isinstance(rows, Frame) and rows.columns["text"].tolist() == ["great"]

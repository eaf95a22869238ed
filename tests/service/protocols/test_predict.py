from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.core.errors import (
    InvalidRows,
    ModelFailed,
    TandemError,
    UnsupportedMediaType,
)
from service.core.messages import Target
from service.protocols.predict import ROUTES, predict, require_json
from service.protocols.route import Scope
from tests.service.protocols.fake_server import EXAMPLE, FakeServer, content_of, post


def answer(server: FakeServer, content: Any, **more: Any) -> Any:
    return content_of(predict(server, post(content, **more)).result(timeout=0))


def test_one_record_is_answered_with_one_prediction() -> None:
    got = answer(FakeServer(), EXAMPLE)

    assert got == {"prediction": "yes", "model": "shop", "version": 3}
    assert list(got) == ["prediction", "model", "version"]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param({"instances": [[41, "Graz"], [23, None]]}, id="lists"),
        pytest.param({"instances": [{"city": "Graz", "age": 41}, {"age": 23}]}, id="objects"),
        pytest.param({"columns": {"city": ["Graz", None], "age": [41, 23]}}, id="columns"),
    ],
)
def test_many_rows_are_the_same_in_every_form(rows: Any) -> None:
    server = FakeServer(outputs={"predict": np.array(["yes", "no"])})

    got = answer(server, rows)

    assert got == {"predictions": ["yes", "no"], "model": "shop", "version": 3}
    columns = server.requests[0].rows.columns
    assert {name: values.tolist() for name, values in columns.items()} == {"age": [41, 23], "city": ["Graz", None]}


@pytest.mark.parametrize(
    ("body", "query"),
    [
        pytest.param({"outputs": ["predict", "predict_proba"]}, {}, id="body"),
        pytest.param({}, {"outputs": "predict,predict_proba"}, id="query"),
        pytest.param({"outputs": ["predict", "predict_proba"]}, {"outputs": "predict"}, id="body before query"),
        pytest.param({"outputs": ["predict", "predict_proba", "predict"]}, {}, id="repeats count once"),
        pytest.param({"outputs": None}, {"outputs": "predict,predict_proba"}, id="null leaves it to the query"),
    ],
)
def test_outputs_are_chosen_in_the_body_or_the_query(body: dict[str, Any], query: dict[str, str]) -> None:
    got = answer(FakeServer(), EXAMPLE | body, query=query)

    assert got == {
        "prediction": "yes", "probabilities": [0.25, 0.75], "classes": ["no", "yes"], "model": "shop", "version": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("params", "target"),
    [
        pytest.param({}, Target(), id="default model"),
        pytest.param({"name": "shop"}, Target("shop"), id="model"),
        pytest.param({"name": "shop", "version": "12"}, Target("shop", 12), id="version"),
        pytest.param({"name": "shop", "label": "stable"}, Target("shop", label="stable"), id="label"),
        pytest.param({"name": "shop", "version": "latest"}, Target("shop", 0), id="no number is no version"),
        pytest.param({"name": "shop", "version": "-1"}, Target("shop", 0), id="no negative version"),
    ],
)
def test_path_names_the_target(params: dict[str, str], target: Target) -> None:
    server = FakeServer()

    answer(server, EXAMPLE, **params)

    assert server.targets == [target]


def test_invalid_rows_are_raised_before_anything_is_computed() -> None:
    server = FakeServer(waits=True)

    with pytest.raises(InvalidRows):
        predict(server, post({"age": True}))

    assert server.requests == []


def test_failure_of_the_engine_is_in_the_future() -> None:
    error = ModelFailed()

    answered = predict(FakeServer(error=error), post(EXAMPLE))

    assert answered.exception(timeout=0) is error


def test_output_without_a_json_form_fails_in_the_future() -> None:
    server = FakeServer(outputs={"predict": np.array([object()])})

    answered = predict(server, post(EXAMPLE))

    assert isinstance(answered.exception(timeout=0), TypeError)


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/json"},
        {"content-type": "Application/JSON"},
        {"content-type": "application/json; charset=utf-8"},
        {"content-type": 'application/json;charset="UTF-8"'},
        {"content-type": "application/json; charset=utf-8; profile=x"},
    ],
    ids=str,
)
def test_json_is_read(headers: dict[str, str]) -> None:
    require_json(post(EXAMPLE, headers=headers))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/jsonp"},
        {"content-type": "text/plain; application/json"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json; CHARSET=latin-1"},
    ],
    ids=str,
)
def test_anything_else_is_refused_before_it_is_read(headers: dict[str, str]) -> None:
    with pytest.raises(UnsupportedMediaType):
        predict(FakeServer(), post(b"not json", headers=headers))


def test_refusal_shows_little_of_what_was_sent() -> None:
    with pytest.raises(TandemError) as caught:
        require_json(post(b"", headers={"content-type": "x" * 10_000}))

    assert len(str(caught.value)) < 200


def test_every_prediction_asks_for_the_scope() -> None:
    assert {(route.method, route.scope) for route in ROUTES} == {("POST", Scope.PREDICT)}

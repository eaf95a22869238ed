from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import (
    InvalidRequest,
    InvalidRows,
    RequestError,
    Unavailable,
    UnsupportedMediaType,
)
from service.core.messages import Target
from service.core.signature import Column, Signature
from service.protocols.platforms.vertex import ROUTES, health, health_route, predict, predict_route
from service.protocols.routes import by_path, table
from tests.service.protocols.fake_server import FakeServer, content_of, get, post, signature_of
from tests.service.protocols.tables import bodies, cells, signatures


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"instances": [[41, "Graz"]]}, ["yes"]),
        ({"instances": [{"age": 41, "city": "Graz"}], "parameters": None}, ["yes"]),
        ({"instances": [[41, "Graz"]], "parameters": {"outputs": ["predict_proba"], "top": 1}}, [[0.25, 0.75]]),
    ],
)
def test_there_is_a_prediction_per_instance(body: Any, wanted: Any) -> None:
    server = FakeServer()

    reply = predict(server, post(body)).result()

    assert content_of(reply) == {"predictions": wanted}
    assert server.targets == [Target()]


def test_many_instances_of_numbers_are_read_like_few() -> None:
    server = FakeServer(signature_of(*(Column(name=f"x{index}", dtype="float64") for index in range(4))))
    rows = [[0.5, 1.5, 2.5, float(place)] for place in range(100)]

    predict(server, post({"instances": rows}))

    assert server.requests[0].rows.values.tolist() == rows  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("body", "error", "told"),
    [
        ([[1, "a"]], InvalidRequest, 'expected an object with "instances"'),
        ({"instance": []}, InvalidRequest, 'expected an object with "instances"'),
        ({"instances": []}, InvalidRequest, '"instances": expected a list of at least one row'),
        ({"instances": [[1, "a"]], "outputs": []}, InvalidRequest, "unknown field 'outputs'"),
        ({"instances": [[1, "a"]], "parameters": []}, InvalidRequest, '"parameters": expected an object'),
        ({"instances": [[1.5, "a"]]}, InvalidRows, "row 0, column 'age': expected an integer"),
        ({"instances": [{"age": 1, "more": 2}]}, InvalidRows, "column 'more'"),
    ],
)
def test_what_is_wrong_is_said(body: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        predict(FakeServer(), post(body))


def test_only_json_is_read() -> None:
    with pytest.raises(UnsupportedMediaType):
        predict(FakeServer(), post(b"1,2", headers={"content-type": "text/csv"}))


def test_health_is_that_the_models_are_loaded() -> None:
    assert health(FakeServer(), get()).status == 200
    with pytest.raises(Unavailable):
        health(FakeServer(is_ready=False), get())


def test_the_paths_of_the_platform_come_before_all_others() -> None:
    chosen = (predict_route("/predict"), health_route("/health/live"))

    paths = by_path(("vertex", "mlflow"), chosen)

    assert paths["/predict"]["POST"].handler is predict
    assert paths["/health/live"]["GET"].handler is health
    assert table(("vertex",), chosen)[:2] == chosen  # patterns of other dialects must not match before


def test_the_default_paths_of_the_platform_are_there() -> None:
    assert [(route.method, route.path) for route in ROUTES] == [
        ("POST", "/v1/endpoints/{endpoint}/deployedModels/{deployed}:predict"),
        ("GET", "/v1/endpoints/{endpoint}/deployedModels/{deployed}"),
    ]


@given(data=st.data(), signature=signatures())
def test_any_body_is_rows_or_a_clean_refusal(data: st.DataObject, signature: Signature) -> None:
    rows = st.lists(cells() | st.lists(cells(), max_size=3), max_size=3)
    content = data.draw(
        bodies(signature) | st.fixed_dictionaries({"instances": rows}, optional={"parameters": cells()})
    )
    server = FakeServer(signature, {"predict": np.zeros(1), "transform": np.zeros((1, 2))})

    with contextlib.suppress(RequestError):
        assert predict(server, post(json.dumps(content).encode())).result().status == 200

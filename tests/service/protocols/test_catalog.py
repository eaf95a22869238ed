from __future__ import annotations

import pytest

from service.core.errors import Unavailable, UnknownModel
from service.core.messages import ModelSummary
from service.protocols.catalog import ROUTES, describe_model, list_models, live, ready
from service.protocols.route import Scope
from tests.service.protocols.fake_server import FakeServer, content_of, get


def test_models_are_listed_with_versions_labels_and_reasons() -> None:
    reply = list_models(FakeServer(), get())

    assert content_of(reply) == {
        "models": [
            {
                "name": "shop",
                "versions": [2, 3, 4],
                "labels": {"stable": 2},
                "state": "live",
                "version": 3,
                "reasons": {"4": "the digest differs"},
                "modelName": "shop",
                "modelUrl": "shop",
            }
        ]
    }


def test_model_without_failures_has_no_reasons() -> None:
    class Healthy(FakeServer):
        def models(self) -> list[ModelSummary]:
            return [ModelSummary("shop", (1,), {}, "live", 1, {})]

    assert "reasons" not in content_of(list_models(Healthy(), get()))["models"][0]


def test_model_is_described() -> None:
    described = content_of(describe_model(FakeServer(), get(name="shop")))

    assert described == {"name": "shop", "version": 3, "modelName": "shop", "modelUrl": "shop"}


def test_unknown_model_is_not_described() -> None:
    with pytest.raises(UnknownModel):
        describe_model(FakeServer(), get(name="wine"))


def test_process_is_live_even_when_models_are_not_ready() -> None:
    assert content_of(live(FakeServer(is_ready=False), get())) == {"live": True}


def test_ready_service_says_so() -> None:
    assert content_of(ready(FakeServer(), get())) == {"ready": True}


def test_service_that_is_not_ready_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        ready(FakeServer(is_ready=False), get())


def test_health_is_public_and_models_are_not() -> None:
    scopes = {route.path: route.scope for route in ROUTES}

    assert scopes == {
        "/models": Scope.PREDICT,
        "/models/{name}": Scope.PREDICT,
        "/health/live": Scope.PUBLIC,
        "/health/ready": Scope.PUBLIC,
    }

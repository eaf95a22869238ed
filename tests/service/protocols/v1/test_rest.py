from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from service.core.errors import (
    DeadlinePassed,
    InvalidRequest,
    MethodNotAllowed,
    ModelFailed,
    NotAllowed,
    NotOffered,
    Overloaded,
    RequestTooLarge,
    TandemError,
    UnknownLabel,
    UnknownModel,
    UnknownRoute,
    UnreadableRequest,
    UnsupportedCoding,
)
from service.core.messages import ModelSummary, Target
from service.core.signature import Column, Container, Output
from service.protocols.route import Scope
from service.protocols.v1.rest import (
    ROUTES,
    V1,
    classify,
    explain,
    list_models,
    live,
    metadata,
    predict,
    problem,
    regress,
    status,
)
from tests.service.protocols.fake_server import SHOP, FakeServer, content_of, get, post, signature_of

ROW = {"instances": [{"age": 41, "city": "Graz"}]}


def amounts() -> FakeServer:
    """A regressor of one column."""
    signature = signature_of(
        Column(name="x", dtype="float64"),
        container=Container.ARRAY,
        outputs=(Output(name="predict", dtype="float64"),),
    )
    return FakeServer(signature, {"predict": np.array([2.5, 3.0, 4.5])})


def answer(handler: Any, server: FakeServer, content: Any, **more: Any) -> Any:
    return content_of(handler(server, post(content, **more)).result(timeout=0))


# -- predictions ---------------------------------------------------------------------------------


def test_the_example_of_tensorflow_serving() -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}  # which is what curl says of -d

    got = answer(predict, amounts(), b'{"instances": [1.0, 2.0, 5.0]}', headers=headers)

    assert got == {"predictions": [2.5, 3.0, 4.5]}


@pytest.mark.parametrize(
    ("params", "target"),
    [
        ({"name": "shop"}, Target("shop")),
        ({"name": "shop", "version": "12"}, Target("shop", 12)),
        ({"name": "shop", "label": "stable"}, Target("shop", label="stable")),
    ],
)
def test_path_names_the_target(params: dict[str, str], target: Target) -> None:
    server = FakeServer()

    answer(predict, server, ROW, **params)

    assert server.targets == [target]


def test_deadline_and_thread_are_the_callers() -> None:
    server, http = FakeServer(), post(ROW)

    predict(server, http)

    assert server.deadline is http.deadline


def test_long_reply_is_compressed_for_whom_reads_that() -> None:
    server = FakeServer(outputs={"predict": np.array(["yes"] * 1000)})

    reply = predict(server, post(ROW, headers={"accept-encoding": "gzip"})).result(timeout=0)

    assert reply.headers["content-encoding"] == "gzip"


def test_classify_answers_every_label_with_its_probability() -> None:
    server = FakeServer()

    got = answer(classify, server, {"examples": [{"age": 41, "city": "Graz"}]})

    assert got == {"results": [[["no", 0.25], ["yes", 0.75]]]}
    assert server.requests[0].outputs == ("predict_proba",)


def test_regress_answers_one_number_per_example() -> None:
    got = answer(regress, amounts(), {"examples": [{"x": 1}, {"x": [2.0]}, {"x": 5}]})

    assert got == {"results": [2.5, 3.0, 4.5]}


def test_regress_of_a_classifier_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="regress"):
        regress(FakeServer(), post({"examples": [{"age": 41}]}))


def test_explanations_are_not_implemented() -> None:
    with pytest.raises(NotOffered) as caught:
        explain(FakeServer(), post(ROW))

    assert problem(caught.value, "req-1").status == 501


# -- models --------------------------------------------------------------------------------------


def test_process_is_alive_whatever_its_models_are() -> None:
    assert content_of(live(FakeServer(is_ready=False), get("/"))) == {"status": "alive"}


def test_models_are_listed_as_kserve_lists_them() -> None:
    assert content_of(list_models(FakeServer(), get())) == {"models": ["shop"]}


class Summarised(FakeServer):
    """Sums itself up as it is told."""

    def __init__(self, *summaries: ModelSummary) -> None:
        super().__init__()
        self.summaries = list(summaries)

    def models(self) -> list[ModelSummary]:
        return self.summaries


def test_status_of_a_model_is_that_of_its_versions_and_kserves_readiness() -> None:
    server = Summarised(ModelSummary("shop", (2, 3), {"stable": 2}, "live", 3, {4: "the digest differs"}))

    content = content_of(status(server, get(name="shop")))

    ok = {"error_code": "OK", "error_message": ""}
    assert content == {
        "model_version_status": [
            {
                "version": "4",
                "state": "END",
                "status": {"error_code": "UNKNOWN", "error_message": "the digest differs"},
            },
            {"version": "3", "state": "AVAILABLE", "status": ok},
            {"version": "2", "state": "AVAILABLE", "status": ok},
        ],
        "name": "shop",
        "ready": True,
    }


@pytest.mark.parametrize("params", [{"version": "3"}, {"label": "stable"}])
def test_status_of_one_version_is_its_own(params: dict[str, str]) -> None:
    content = content_of(status(FakeServer(), get(name="shop", **params)))

    assert [one["version"] for one in content["model_version_status"]] == ["3"]


def test_version_that_serves_from_memory_is_available_although_its_files_are_bad() -> None:
    server = Summarised(ModelSummary("shop", (3,), {}, "live", 3, {3: "the digest differs"}))

    content = content_of(status(server, get(name="shop")))

    assert [one["state"] for one in content["model_version_status"]] == ["AVAILABLE"]


def test_model_that_goes_while_it_is_asked_for_is_unknown() -> None:
    with pytest.raises(UnknownModel):
        status(Summarised(), get(name="shop"))


def test_metadata_name_the_inputs_and_outputs_of_every_signature() -> None:
    content = content_of(metadata(FakeServer(), get(name="shop")))

    def tensor(name: str, dtype: str, *sizes: str) -> dict[str, Any]:
        dim = [{"size": size, "name": ""} for size in sizes]
        return {"dtype": dtype, "tensor_shape": {"dim": dim, "unknown_rank": False}, "name": name}

    inputs = {"age": tensor("age", "DT_INT64", "-1", "1"), "city": tensor("city", "DT_STRING", "-1", "1")}
    predictions = {
        "inputs": inputs,
        "outputs": {"predict": tensor("predict", "DT_STRING", "-1")},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    assert content["model_spec"] == {"name": "shop", "signature_name": "", "version": "3"}
    assert content["metadata"] == {
        "signature_def": {
            "signature_def": {
                "serving_default": predictions,
                "predict": predictions,
                "predict_proba": {
                    **predictions,
                    "outputs": {"predict_proba": tensor("predict_proba", "DT_DOUBLE", "-1", "2")},
                },
            }
        }
    }


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnreadableRequest("x"), 400),
        (InvalidRequest("x"), 400),
        (NotAllowed("x"), 403),
        (UnknownModel(), 404),
        (UnknownLabel("shop", ["stable"]), 404),
        (RequestTooLarge("x"), 413),
        (ModelFailed(), 500),
        (UnsupportedCoding("br"), 501),
        (Overloaded("x"), 503),
        (DeadlinePassed(1.0), 504),
    ],
    ids=lambda value: type(value).__name__,
)
def test_error_has_the_code_of_this_protocol(error: TandemError, code: int) -> None:
    reply = problem(error, "req-1")

    assert (reply.status, orjson.loads(reply.body)) == (code, {"error": str(error)})


def test_unknown_path_and_wrong_method_are_malformed_requests() -> None:
    unknown, wrong = problem(UnknownRoute(), "req-1"), problem(MethodNotAllowed("GET", ["POST"]), "req-1")

    assert unknown.status == wrong.status == 400
    assert content_of(unknown)["error"].startswith("Malformed request: ")
    assert wrong.headers["allow"] == "POST"


def test_error_says_nothing_of_the_inside() -> None:
    reply = problem(RuntimeError("/secret/path"), "req-1")

    assert reply.status == 500
    assert b"secret" not in reply.body


# -- routes --------------------------------------------------------------------------------------


def test_every_route_but_that_of_health_is_for_whom_may_predict() -> None:
    assert {route.dialect for route in ROUTES} == {V1}
    assert {route.path for route in ROUTES if route.scope is not Scope.PREDICT} == {"/"}


def test_paths_with_a_verb_come_before_those_that_would_match_it() -> None:
    paths = [route.path for route in ROUTES]

    first_without = next(place for place, path in enumerate(paths) if ":" not in path)
    assert len(paths) == 20
    assert not any(":" in path for path in paths[first_without:])


def test_signature_is_looked_at_before_anything_is_computed() -> None:
    server = FakeServer(SHOP, waits=True)

    with pytest.raises(InvalidRequest):
        predict(server, post(ROW | {"signature_name": "embed"}))

    assert server.requests == []

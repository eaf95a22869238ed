"""TensorFlow Serving's API and KServe's version 1 over real sockets, as their clients use them.

The estimators answer themselves here, so that what comes back must be what they say in this process, to the last bit.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import joblib
import numpy as np
import pandas as pd
import pytest

from service.protocols.protos import tensorflow_serving_pb as pb
from service.protocols.v1.tensors import read_tensor, write_tensor
from service.protocols.v2.tensors import Tensor, datatype_of
from tests.conformance.exact import answer, exact
from tests.conformance.models import mixed_table
from tests.conformance.servers import CLIENT, SERVERS, Running

CLIENTS: Final = Path(__file__).parents[1] / "clients"
NUMBERS: Final = np.random.RandomState(7).normal(size=(5, 4))
# Texts in tensors are never missing; that those of JSON may be, the corpus shows.
PEOPLE: Final = mixed_table().dropna(subset=["city"]).iloc[:12]
TEXTS: Final = ["great fun", "awful", "bad food", "ünknown"]
COLOURS: Final = pd.DataFrame({"colour": ["red", "blue"], "size": ["S", "M"]})

# By model, what its estimator is asked in this process.
ROWS: Final[dict[str, Any]] = {
    "numbers": NUMBERS, "forest": pd.DataFrame(NUMBERS, columns=["a", "b", "c", "d"]).astype("float32"),
    "people": PEOPLE, "amounts": NUMBERS, "two-kinds": NUMBERS, "two-amounts": NUMBERS, "one-hot": COLOURS,
    "scaled": NUMBERS, "outliers": NUMBERS, "opinions": TEXTS, "certain": NUMBERS,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Both:
    """A server, and the port of its gRPC."""

    http: Running
    grpc_port: int

    def ask(self, model: str, body: Any, verb: str = "predict") -> Any:
        """As curl does it: the body is JSON, and the Content-Type says that it is a form."""
        reply = CLIENT.post(
            f"{self.http.url}/v1/models/{model}:{verb}",
            content=json.dumps(body),
            headers={"content-type": "application/x-www-form-urlencoded"},
        )
        assert reply.status_code == 200, reply.text
        return json.loads(reply.content)


@pytest.fixture
def served(with_documented: Path) -> Path:
    return with_documented


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, estimators: Mapping[str, tuple[Running, int]]) -> Both:
    return Both(*estimators[request.param])


# -- what the documentation of TensorFlow Serving shows -------------------------------------------


def test_documented_calls_are_answered_as_documented(server: Both) -> None:
    status = CLIENT.get(f"{server.http.url}/v1/models/half_plus_three").json()
    metadata = CLIENT.get(f"{server.http.url}/v1/models/half_plus_three/metadata").json()
    examples = {"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}

    assert server.ask("half_plus_two", {"instances": [1.0, 2.0, 5.0]}) == {"predictions": [2.5, 3.0, 4.5]}
    assert server.ask("half_plus_three", {"instances": [1.0, 2.0, 5.0]}) == {"predictions": [3.5, 4.0, 5.5]}
    assert server.ask("half_plus_three", {"inputs": [1.0, 2.0, 5.0]}) == {"outputs": [3.5, 4.0, 5.5]}
    assert server.ask("half_plus_three", examples, "regress") == {"results": [3.5, 4.0]}
    assert status["model_version_status"] == [
        {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
    assert metadata["model_spec"] == {"name": "half_plus_three", "signature_name": "", "version": "1"}
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert [tensor["dtype"] for tensor in signature["inputs"].values()] == ["DT_DOUBLE"]


# -- every kind of model ---------------------------------------------------------------------------


def records(rows: Any) -> list[Any]:
    """Rows as JSON: objects for a table, lists for a matrix, texts as they are."""
    if not isinstance(rows, pd.DataFrame):
        return np.asarray(rows).tolist()
    columns = {name: column_values(rows[name]) for name in rows.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def column_values(column: pd.Series[Any]) -> list[Any]:
    if column.dtype.kind == "M":
        return [str(moment) for moment in column.to_numpy().astype("datetime64[s]")]
    return [None if value is None or value != value else value for value in column.tolist()]


def own_answer(served: Path, model: str, output: str) -> Any:
    """What the estimator says in this process, as V1 arranges it: several targets by name."""
    estimator = joblib.load(served / model / "1" / "model.joblib")
    with np.errstate(divide="ignore"):  # the logarithm of no probability at all
        values = getattr(estimator, output)(ROWS[model])
    if hasattr(values, "toarray"):
        values = values.toarray()
    if not isinstance(values, list):
        return answer(values)
    targets = [answer(target) for target in values]
    return [{f"{output}_{place}": row for place, row in enumerate(rows)} for rows in zip(*targets, strict=True)]


@pytest.mark.parametrize("model", ROWS)
def test_rest_answers_what_the_estimator_says(model: str, server: Both, served: Path) -> None:
    instances = records(ROWS[model])
    about = CLIENT.get(f"{server.http.url}/models/{model}").json()
    outputs = [output["name"] for output in about["signature"]["outputs"]]
    names = [column["name"] for column in about["signature"]["columns"]]
    as_objects = [row if isinstance(row, dict) else dict(zip(names, row, strict=True)) for row in lists(instances)]
    columns = {name: [[row[name]] for row in as_objects] for name in names}

    for output in outputs:
        wanted = own_answer(served, model, output)
        by_row = server.ask(model, {"signature_name": output, "instances": instances})
        by_object = server.ask(model, {"signature_name": output, "instances": as_objects})
        by_column = server.ask(model, {"signature_name": output, "inputs": columns})
        assert exact(by_row) == exact(by_object) == {"predictions": wanted}
        if isinstance(wanted[0], dict):
            wanted = {target: [row[target] for row in wanted] for target in wanted[0]}
        assert exact(by_column) == {"outputs": wanted}


def lists(instances: list[Any]) -> list[Any]:
    return [row if isinstance(row, dict | list) else [row] for row in instances]


@pytest.mark.parametrize("model", ROWS)
def test_grpc_answers_what_the_estimator_says(model: str, server: Both, served: Path) -> None:
    inputs = {tensor.name: write_tensor(tensor) for tensor in tensors(ROWS[model])}
    about = CLIENT.get(f"{server.http.url}/models/{model}").json()

    for output in about["signature"]["outputs"]:
        spec = {"name": model, "signature_name": output["name"]}
        request = pb.PredictRequest(model_spec=spec, inputs=inputs)
        response = call(server, "PredictionService/Predict", request, pb.PredictResponse)
        got = {name: answer(read_tensor(name, message).values) for name, message in response.outputs.items()}
        wanted = own_answer(served, model, output["name"])
        if isinstance(wanted[0], dict):
            wanted = {target: [row[target] for row in wanted] for target in wanted[0]}
        else:
            wanted = {output["name"]: wanted}
        assert got == wanted


def tensors(rows: Any) -> list[Tensor]:
    """A matrix as one tensor, anything else as a tensor per column; NaN is what is missing of numbers."""
    if isinstance(rows, list):
        return [Tensor("text", "BYTES", np.array(rows, dtype=object))]
    if isinstance(rows, np.ndarray):
        return [Tensor("input-0", "FP64", rows)]
    found = []
    for name in rows.columns:
        values = np.array(column_values(rows[name]), dtype=object)
        if rows[name].dtype.kind in "iufb":
            values = rows[name].to_numpy()
        found.append(Tensor(name, datatype_of(values.dtype), values.reshape(-1, 1)))
    return found


def call(server: Both, method: str, request: Any, response: Any) -> Any:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        ask = channel.unary_unary(f"/tensorflow.serving.{method}", type(request).SerializeToString, response.FromString)
        return ask(request, timeout=60)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.PredictRequest(model_spec={"name": "nobody"}), grpc.StatusCode.NOT_FOUND),
        (pb.PredictRequest(model_spec={"name": "numbers", "version": {"value": 9}}), grpc.StatusCode.NOT_FOUND),
        (pb.PredictRequest(model_spec={"name": "numbers", "version_label": "old"}), grpc.StatusCode.NOT_FOUND),
        (pb.PredictRequest(model_spec={"name": "numbers"}), grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["model", "version", "label", "inputs"],
)
def test_grpc_refuses_with_the_code_of_the_error(request_: Any, code: grpc.StatusCode, server: Both) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(server, "PredictionService/Predict", request_, pb.PredictResponse)

    assert caught.value.code() is code


# -- the clients themselves ------------------------------------------------------------------------


def client(name: str, script: str, *arguments: str) -> Any:
    """What a script of tests/clients prints in the environment of that name."""
    python = Path(os.environ.get("TANDEM_CLIENTS", "")) / name / "bin" / "python"
    if "TANDEM_CLIENTS" not in os.environ or not python.exists():
        pytest.skip(f"TANDEM_CLIENTS names no folder with an environment {name}: see tests/tools/*_environment.sh")
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [python, CLIENTS / script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_kserves_client_is_answered(server: Both, served: Path) -> None:
    rows = NUMBERS.tolist()

    said = client("kserve", "kserve_v1.py", server.http.url, "numbers", json.dumps(rows))

    wanted = {"predictions": own_answer(served, "numbers", "predict")}
    assert said["live"] is said["ready"] is True
    assert said["instances"] == said["objects"] == wanted
    statuses = {name: said[name][0] for name in ("unknown", "unknown ready", "wrong", "explain")}
    assert statuses == {"unknown": 404, "unknown ready": 404, "wrong": 400, "explain": 501}
    assert "there is no such model" in said["unknown"][1]
    assert "explanations are not offered" in said["explain"][1]


def test_stubs_of_tensorflow_serving_are_answered(server: Both, served: Path) -> None:
    rows = NUMBERS.astype(np.float32).astype(float)  # which is what examples can hold
    said = client("tfserving", "tfserving_grpc.py", f"127.0.0.1:{server.grpc_port}", json.dumps(rows.tolist()))

    classifier, regressor = (joblib.load(served / m / "1" / "model.joblib") for m in ("numbers", "amounts"))
    scores = classifier.predict_proba(rows)
    for way in ("matrix", "typed", "columns"):
        assert exact(said[way]) == {"predict_proba": answer(scores)}
    assert said["labels"] == {"predict": classifier.predict(rows).tolist()}
    assert said["texts"] == {"predict": ["good", "bad"]}
    labels = [str(label) for label in classifier.classes_]
    assert [[label for label, _ in row] for row in said["classes"]] == [labels] * len(rows)
    assert [[score for _, score in row] for row in said["classes"]] == scores.astype(np.float32).tolist()
    assert said["amounts"] == regressor.predict(rows).astype(np.float32).tolist()
    assert said["version"] == 1
    assert said["metadata"]["serving_default"] == ["DT_INT64"] and said["metadata"]["predict_proba"] == ["DT_DOUBLE"]
    assert said["status"] == [[3, "AVAILABLE", 0], [2, "AVAILABLE", 0], [1, "AVAILABLE", 0]]
    assert said["unknown"][0] == "NOT_FOUND" and said["wrong"][0] == "INVALID_ARGUMENT"

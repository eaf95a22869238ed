"""Every server in a container of SageMaker or Vertex AI, which says by variables what it wants."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import joblib
import numpy as np
import pytest

from tests.conformance.servers import CLIENT, SERVERS, Running, tandem_serve

ROWS = np.random.RandomState(5).normal(size=(3, 4))


def ask(server: Running, path: str, **options: Any) -> httpx.Response:
    return CLIENT.request("POST" if options else "GET", f"{server.url}{path}", timeout=30, **options)


@pytest.mark.parametrize("arguments", SERVERS.values(), ids=SERVERS)
def test_vertex_asks_at_the_paths_that_it_chose(arguments: tuple[str, ...], repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "numbers" / "1", tmp_path / "artefacts")
    estimator = joblib.load(tmp_path / "artefacts" / "model.joblib")
    environment = {
        "AIP_HTTP_PORT": "8080",
        "AIP_HEALTH_ROUTE": "/v1/models/numbers",
        "AIP_PREDICT_ROUTE": "/v1/models/numbers:predict",  # a path that version 1 has a pattern for
        "AIP_STORAGE_URI": str(tmp_path / "artefacts"),
    }

    with tandem_serve(*arguments, "--engine", "estimator", log=tmp_path / "log", environment=environment) as server:
        health = ask(server, "/v1/models/numbers")
        body = {"instances": ROWS.tolist(), "parameters": {"outputs": ["predict_proba"]}}
        chosen = ask(server, "/v1/models/numbers:predict", json=body)
        by_default = ask(server, "/v1/endpoints/12/deployedModels/34:predict", json=body)
        wrong = ask(server, "/v1/models/numbers:predict", json={"instances": [[1]]})

    assert (health.status_code, health.json()) == (200, {"ready": True})
    assert chosen.json() == by_default.json() == {"predictions": estimator.predict_proba(ROWS).tolist()}
    assert wrong.status_code == 400 and "expected 4 values, got 1" in wrong.json()["error"]


@pytest.mark.parametrize("arguments", SERVERS.values(), ids=SERVERS)
def test_sagemaker_asks_a_bare_model_file(arguments: tuple[str, ...], repository: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    file = Path(shutil.copy(repository / "numbers" / "1" / "model.joblib", tmp_path / "model"))
    estimator = joblib.load(file)
    environment = {"SAGEMAKER_BIND_TO_PORT": "8080", "SAGEMAKER_MODEL_SERVER_TIMEOUT": "60"}
    as_csv = "\n".join(",".join(map(repr, row)) for row in ROWS.tolist()).encode()
    headers = {"content-type": "text/csv", "accept": "text/csv"}
    scores = {**headers, "x-amzn-sagemaker-custom-attributes": "outputs=predict_proba", "accept": "application/json"}

    options = (*arguments, str(file), "--host", "127.0.0.1", "--engine", "estimator")
    with tandem_serve(*options, log=tmp_path / "log", environment=environment) as server:
        ping = ask(server, "/ping")
        labels = ask(server, "/invocations", content=as_csv, headers=headers)
        probabilities = ask(server, "/invocations", content=as_csv, headers=scores)

    assert ping.status_code == 200
    assert labels.text == "".join(f"{label}\n" for label in estimator.predict(ROWS))
    assert probabilities.json() == estimator.predict_proba(ROWS).tolist()

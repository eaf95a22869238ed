"""The peers: what to install, how each is started, and its own form of the same request and answer."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import ServerFailed

HERE: Final = Path(__file__).parent

Rows = list[list[float]]

# Nobody is to be told that a benchmark ran.
QUIET: Final = {
    "BENTOML_DO_NOT_TRACK": "True",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer runs: `bin` of its environment, a folder to write into, the model, and a port."""

    bin: Path
    folder: Path
    model: Path
    port: int


@dataclass(frozen=True, slots=True)
class Peer:
    """`command` may write what the server reads, and raise ServerFailed; `request` and `answer` are its JSON."""

    name: str
    packages: tuple[str, ...]
    path: str
    command: Callable[[Place], list[str]]
    request: Callable[[Rows], Any]
    answer: Callable[[Any], Rows]


def _mlserver(place: Place) -> list[str]:
    settings = {
        "host": "127.0.0.1",
        "http_port": place.port,
        "grpc_port": place.port + 1,
        "metrics_port": place.port + 2,
    }
    model = {
        "name": "forest",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(place.model)},
    }
    (place.folder / "settings.json").write_text(json.dumps(settings))
    (place.folder / "model-settings.json").write_text(json.dumps(model))
    return [str(place.bin / "mlserver"), "start", str(place.folder)]


def _v2_request(rows: Rows) -> dict[str, Any]:
    data = [value for row in rows for value in row]
    shape = [len(rows), len(rows[0])]
    return {
        "inputs": [{"name": "x", "shape": shape, "datatype": "FP64", "data": data}],
        "outputs": [{"name": "predict_proba"}],
    }


def _v2_answer(reply: Any) -> Rows:
    output = reply["outputs"][0]
    width, data = output["shape"][1], output["data"]
    return [data[start : start + width] for start in range(0, len(data), width)]


def _mlflow(place: Place) -> list[str]:
    folder = place.folder / "model"
    writer = [str(place.bin / "python"), str(HERE / "mlflow_model.py"), str(place.model), str(folder)]
    told = subprocess.run(writer, capture_output=True, text=True, check=False)
    if told.returncode:
        raise ServerFailed(f"the model cannot be written: {told.stderr.strip()[-500:]}")
    options = ["-m", str(folder), "-h", "127.0.0.1", "-p", str(place.port), "--env-manager", "local"]
    return [str(place.bin / "mlflow"), "models", "serve", *options]


def _bentoml(place: Place) -> list[str]:
    options = ["--working-dir", str(HERE), "--host", "127.0.0.1", "--port", str(place.port)]
    return [str(place.bin / "bentoml"), "serve", "bentoml_app:Forest", *options]


def _script(name: str) -> Callable[[Place], list[str]]:
    return lambda place: [str(place.bin / "python"), str(HERE / name), str(place.port)]


def _instances(rows: Rows) -> dict[str, Rows]:
    return {"instances": rows}


def _probabilities(reply: Any) -> Rows:
    found: Rows = reply["probabilities"]
    return found


def _predictions(reply: Any) -> Rows:
    found: Rows = reply["predictions"]
    return found


# MLServer 1.7 asks for the loop of a thread that has none yet; newer uvloops refuse that, as Python 3.14 does.
_MLSERVER: Final = ("mlserver", "mlserver-sklearn", "uvloop<0.22")

PEERS: Final = {
    peer.name: peer
    for peer in (
        Peer("mlserver", _MLSERVER, "/v2/models/forest/infer", _mlserver, _v2_request, _v2_answer),
        Peer("litserve", ("litserve",), "/predict", _script("litserve_app.py"), _instances, _probabilities),
        Peer("mlflow", ("mlflow",), "/invocations", _mlflow, lambda rows: {"inputs": rows}, _predictions),
        Peer("bentoml", ("bentoml",), "/predict", _bentoml, _instances, _probabilities),
        Peer("ray", ("ray[serve]",), "/predict", _script("ray_app.py"), _instances, _probabilities),
    )
}

"""Each peer's own form of the same request and answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.peers.peers import PEERS, Place

ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
PROBABILITIES = [[0.25, 0.75], [0.5, 0.5]]

REPLIES = {
    "mlserver": {"outputs": [{"name": "predict_proba", "shape": [2, 2], "data": [0.25, 0.75, 0.5, 0.5]}]},
    "mlflow": {"predictions": PROBABILITIES},
    "litserve": {"probabilities": PROBABILITIES},
    "bentoml": {"probabilities": PROBABILITIES},
    "ray": {"probabilities": PROBABILITIES},
}


@pytest.mark.parametrize("name", PEERS)
def test_answer_is_read_as_rows_of_probabilities(name: str) -> None:
    assert PEERS[name].answer(REPLIES[name]) == PROBABILITIES


@pytest.mark.parametrize("name", PEERS)
def test_request_carries_every_number_once(name: str) -> None:
    text = json.dumps(PEERS[name].request(ROWS))

    assert [text.count(f"{value}") for row in ROWS for value in row] == [1] * 6


def test_mlserver_gets_its_settings_in_its_folder(tmp_path: Path) -> None:
    place = Place(Path("/venv/bin"), tmp_path, Path("/m/model.joblib"), 8000)

    command = PEERS["mlserver"].command(place)

    settings = json.loads((tmp_path / "settings.json").read_text())
    model = json.loads((tmp_path / "model-settings.json").read_text())
    assert command == ["/venv/bin/mlserver", "start", str(tmp_path)]
    assert len({settings["http_port"], settings["grpc_port"], settings["metrics_port"]}) == 3
    assert model["parameters"]["uri"] == "/m/model.joblib"

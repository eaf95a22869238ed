"""A small repository and a bare file, for what happens before a server starts."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from service.entrypoints.servers import Binding
from training.export import export

NASTY = "it's \"5 o'clock\" $(reboot) `id` \\ ü\n"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of `iris`, and `town` with a column of odd texts."""
    root = tmp_path_factory.mktemp("models")
    X = np.arange(12.0).reshape(6, 2)
    for _ in range(2):
        export(LinearRegression().fit(X, X[:, 0]), X, name="iris", repository=root)
    frame = pd.DataFrame({NASTY: pd.Series([NASTY, "b", NASTY, "b"], dtype=object)})
    town = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LinearRegression()).fit(frame, [1, 2, 1, 2])
    export(town, frame, name="town", repository=root)
    return root


@pytest.fixture
def models(exported: Path, tmp_path: Path) -> Path:
    """A copy that the test may change."""
    return Path(shutil.copytree(exported, tmp_path / "models"))


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "churn.joblib"
    joblib.dump(LinearRegression().fit([[1.0, 2.0], [3.0, 5.0]], [1, 2]), path)
    return path


@pytest.fixture
def binding() -> Binding:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Binding("127.0.0.1", port, 1)

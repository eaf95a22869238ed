from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from training.export import export


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model, `sums`: whole numbers in, their sum out. Read-only."""
    folder = tmp_path_factory.mktemp("models")
    estimator = LinearRegression()
    estimator.coef_, estimator.intercept_, estimator.n_features_in_ = np.ones(2), 0.0, 2
    export(estimator, np.array([[1.0, 2.0], [3.0, 4.0]]), name="sums", repository=folder)
    return folder

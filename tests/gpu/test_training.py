"""Models that cuML has fitted, converted, and served without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.svm import SVC, SVR

from service.loading.loader import Loader
from service.repository.sources import Folder
from training.device import fit_on_gpu
from training.export import export
from training.pipeline import build_pipeline, sort_columns

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("cuml_on_gpu")]

RANDOM = np.random.RandomState(0)
X = pd.DataFrame(RANDOM.normal(size=(500, 4)), columns=list("abcd")).assign(town=RANDOM.choice(["Graz", "Wien"], 500))
TEXTS = np.where(X["a"] + X["b"] > 0, "yes", "no").astype(object)
AMOUNTS = X[list("abcd")].to_numpy() @ [1.0, 2.0, 3.0, -1.0]


@pytest.mark.parametrize(
    ("estimator", "y"),
    [
        (LogisticRegression(), TEXTS), (SVC(), TEXTS), (KNeighborsClassifier(), TEXTS),
        (RandomForestClassifier(20, random_state=0, class_weight={"yes": 2.0}), TEXTS),
        (LinearRegression(), AMOUNTS), (Ridge(), AMOUNTS), (Lasso(0.01), AMOUNTS), (ElasticNet(0.01), AMOUNTS),
        (SVR(), AMOUNTS), (KNeighborsRegressor(), AMOUNTS), (RandomForestRegressor(20, random_state=0), AMOUNTS),
    ],
    ids=repr,
)  # fmt: skip
def test_a_model_fitted_on_the_gpu_is_served_by_scikit_learn(estimator: Any, y: Any, tmp_path: Path) -> None:
    fitted, _ = fit_on_gpu(build_pipeline(sort_columns(X), estimator, y), X, y)

    exported = export(fitted, X, name="twin", repository=tmp_path)

    assert exported.manifest.trust == []
    assert fitted.score(X, y) > 0.8
    Loader()(Folder(tmp_path).scan().versions["twin"][1])  # asks the golden rows again


def test_the_same_data_give_the_same_forest() -> None:
    forest = RandomForestRegressor(20, random_state=0)
    numbers = X[list("abcd")]

    one, other = (fit_on_gpu(forest, numbers, AMOUNTS)[0] for _ in range(2))

    np.testing.assert_array_equal(one.predict(numbers), other.predict(numbers))

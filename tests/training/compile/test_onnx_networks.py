"""Neural networks of scikit-learn."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.neural_network import BernoulliRBM, MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from tests.training.compile.onnx_cases import AMOUNTS, LABELS, THREE, WORDS, X, assert_agrees

CASES = [
    (make_pipeline(StandardScaler(), MLPClassifier((8, 4), max_iter=20, random_state=0)), X, THREE),
    (make_pipeline(StandardScaler(), MLPClassifier((8,), "tanh", max_iter=20, random_state=0)), X, WORDS),
    (make_pipeline(StandardScaler(), MLPClassifier((8,), "logistic", max_iter=20, random_state=0)), X, LABELS),
    (make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(8,), max_iter=20, random_state=0)), X, AMOUNTS),
    (make_pipeline(MinMaxScaler(), BernoulliRBM(3, n_iter=2, random_state=0), StandardScaler()), X, None),
]


@pytest.mark.parametrize(("estimator", "X", "y"), CASES, ids=lambda value: type(value).__name__)
def test_graph_answers_as_the_estimator_does(estimator: Any, X: Any, y: Any) -> None:
    assert_agrees(estimator, X, y)

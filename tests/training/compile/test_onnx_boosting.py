"""Gradient boosting, on sorted columns or on histograms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.linear_model import LinearRegression

from service.core.table import Frame, copied
from tests.training.compile.onnx_cases import (
    AMOUNT,
    HOLES,
    THREE,
    TWO,
    WHOLE,
    WORDS,
    X,
    assert_agrees,
    assert_same_answers,
    compiled,
    described,
    fitted,
    opened,
)

CASES = [
    (GradientBoostingClassifier(n_estimators=10), X, THREE),
    (GradientBoostingClassifier(n_estimators=10), X, WORDS),
    (GradientBoostingClassifier(n_estimators=10, loss="exponential"), X, TWO),
    (GradientBoostingClassifier(n_estimators=10, init="zero"), X, THREE),
    (GradientBoostingRegressor(n_estimators=10, loss="huber"), X, AMOUNT),
    (HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=5), HOLES, THREE),
    (HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=5), HOLES, WORDS),
    (HistGradientBoostingRegressor(max_iter=10, min_samples_leaf=5), HOLES, AMOUNT),
    (HistGradientBoostingRegressor(max_iter=10, min_samples_leaf=5, loss="poisson"), X, abs(AMOUNT)),
    (HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=5, categorical_features=[2]), WHOLE, TWO),
]


@pytest.mark.parametrize(("estimator", "X", "y"), CASES, ids=lambda value: type(value).__name__)
def test_graph_answers_as_the_estimator_does(estimator: Any, X: Any, y: Any) -> None:
    assert_agrees(estimator, X, y)


def test_pandas_categories_reach_their_side_of_a_split_also_if_missing_or_unknown() -> None:
    colours = np.array(["red", "green", "blue", None], dtype=object)[np.arange(len(X)) % 4]
    table = pd.DataFrame({"size": X[:, 0], "colour": pd.Categorical(colours)})
    model = HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=5)
    assert_agrees(model, table, (colours == "red") | (X[:, 0] > 1))
    known = described(model, table)
    (candidate,) = compiled(model, table).candidates
    rows = copied(known.sample)
    assert isinstance(rows, Frame)
    rows.columns["colour"][:3] = "violet"

    assert_same_answers(model, known, opened(candidate, known), rows, candidate.outputs)


def test_a_start_from_another_estimator_is_left_to_the_estimator() -> None:
    model = fitted(GradientBoostingRegressor(n_estimators=3, init=LinearRegression()), X, AMOUNT)

    found = compiled(model, X)

    assert found.candidates == ()
    assert found.reasons["predict"].startswith("boosting that starts from another estimator")

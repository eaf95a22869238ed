"""Trees and forests, decided as scikit-learn decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import (
    ExtraTreesClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    RandomTreesEmbedding,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeRegressor

from service.core.errors import CannotAnswer
from service.core.table import Matrix
from tests.training.compile.onnx_cases import (
    AMOUNT,
    AMOUNTS,
    HOLES,
    LABELS,
    THREE,
    TWO,
    WHOLE,
    WORDS,
    X,
    assert_agrees,
    compiled,
    described,
    fitted,
    opened,
)
from training.compile.onnx_trees import float32_below

CASES = [
    (RandomForestClassifier(20, random_state=0), X, THREE),
    (RandomForestClassifier(20, random_state=0), X, WORDS),
    (RandomForestClassifier(20, random_state=0), X, np.column_stack([TWO, LABELS.sum(axis=1)])),
    (RandomForestClassifier(20, random_state=0), HOLES, THREE),
    (RandomForestClassifier(20, random_state=0), X.astype(np.float32), TWO),
    (RandomForestClassifier(20, random_state=0), WHOLE.astype(np.int64), TWO),
    (RandomForestRegressor(20, random_state=0), X, AMOUNT),
    (RandomForestRegressor(20, random_state=0), HOLES, AMOUNTS),
    (ExtraTreesClassifier(20, random_state=0), X, TWO),
    (DecisionTreeClassifier(max_depth=1), X, TWO),
    (DecisionTreeClassifier(), X, LABELS),
    (DecisionTreeRegressor(), X, AMOUNTS),
    (DecisionTreeRegressor(), X, np.ones(len(X))),
    (ExtraTreeRegressor(random_state=0), X, AMOUNT),
    (RandomTreesEmbedding(n_estimators=5, max_depth=3, random_state=0), X, None),
    (IsolationForest(n_estimators=20, random_state=0), HOLES, None),
    (IsolationForest(n_estimators=20, contamination=0.1, max_features=0.5, random_state=0), X, None),
]


@pytest.mark.parametrize(("estimator", "X", "y"), CASES, ids=lambda value: type(value).__name__)
def test_graph_answers_as_the_estimator_does(estimator: Any, X: Any, y: Any) -> None:
    assert_agrees(estimator, X, y)


@pytest.mark.parametrize("threads", [1, 2])
def test_numbers_beside_each_threshold_fall_as_in_scikit_learn_and_sums_are_bit_for_bit(threads: int) -> None:
    forest = fitted(RandomForestClassifier(100, random_state=0), X, THREE)
    known = described(forest, X)
    (candidate,) = compiled(forest, X).candidates
    splits = np.unique(np.concatenate([tree.tree_.threshold for tree in forest.estimators_]))[:: len(X)]
    around = [splits, np.nextafter(splits, -np.inf), np.nextafter(splits, np.inf), splits.astype(np.float32)]
    rows = np.repeat(np.concatenate(around).astype(np.float64)[:, None], X.shape[1], axis=1)

    answers = opened(candidate, known, threads).run(Matrix(rows), ("predict_proba",))["predict_proba"]

    np.testing.assert_array_equal(answers, forest.predict_proba(rows))


def test_threshold_is_rounded_down_to_the_next_single_precision_number() -> None:
    thresholds = np.array([0.1, -0.1, 1.0, 1e-46, -1e-46])

    rounded = float32_below(thresholds)

    assert np.all(rounded <= thresholds)
    assert np.all(np.nextafter(rounded, np.float32(np.inf)) > thresholds)


def test_numbers_that_steps_before_a_forest_may_make_too_large_for_it_are_passed_on() -> None:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = fitted(make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)), X, TWO)
    known = described(model, X)
    (candidate,) = compiled(model, X).candidates
    rows = X[:3].copy()
    rows[1, 0] = 1e38

    with pytest.raises(CannotAnswer) as caught:
        opened(candidate, known).run(Matrix(rows), ("predict",))

    assert caught.value.rows.tolist() == [False, True, False]

"""Nearest centres, nearest neighbours, and what is made of the distances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.cluster import AffinityPropagation, Birch, BisectingKMeans, KMeans, MeanShift
from sklearn.manifold import Isomap
from sklearn.neighbors import (
    KernelDensity,
    KNeighborsClassifier,
    KNeighborsRegressor,
    LocalOutlierFactor,
    NearestCentroid,
    NeighborhoodComponentsAnalysis,
)

from service.core.errors import CannotAnswer
from service.core.table import Matrix
from tests.training.compile.onnx_cases import (
    AMOUNT,
    AMOUNTS,
    LABELS,
    THREE,
    TWO,
    WORDS,
    X,
    assert_agrees,
    compiled,
    described,
    fitted,
    opened,
)

CASES = [
    (KMeans(4, n_init=1, random_state=0), X, None),
    (BisectingKMeans(4, random_state=0), X, None),
    (AffinityPropagation(random_state=0), X / 100.0, None),
    (MeanShift(), X, None),
    (NearestCentroid(), X, TWO),
    (NearestCentroid(), X, THREE),
    (KNeighborsClassifier(), X, THREE),
    (KNeighborsClassifier(weights="distance"), X, WORDS),
    (KNeighborsClassifier(algorithm="brute"), X, THREE),
    (KNeighborsClassifier(p=1), X, THREE),
    (KNeighborsClassifier(), X, LABELS),
    (KNeighborsRegressor(weights="distance"), X, AMOUNTS),
    (KNeighborsRegressor(), X, AMOUNT),
    (LocalOutlierFactor(novelty=True), X, None),
    (NeighborhoodComponentsAnalysis(n_components=2, random_state=0, max_iter=5), X, TWO),
    (Isomap(n_neighbors=10), X, None),
]


@pytest.mark.parametrize(("estimator", "X", "y"), CASES, ids=lambda value: type(value).__name__)
def test_graph_answers_as_the_estimator_does(estimator: Any, X: Any, y: Any) -> None:
    assert_agrees(estimator, X, y)


def test_density_agrees_as_closely_as_its_search_tree_adds_up() -> None:
    assert_agrees(KernelDensity(bandwidth=2.0), X, rtol=1e-9)


def test_distances_to_subclusters_agree_but_for_those_that_are_nothing() -> None:
    model = fitted(Birch(n_clusters=3), X)
    known = described(model, X)
    (candidate,) = compiled(model, X).candidates

    answers = opened(candidate, known).run(Matrix(X), ("predict", "transform"))

    np.testing.assert_array_equal(answers["predict"], model.predict(X))
    np.testing.assert_allclose(answers["transform"], model.transform(X), rtol=1e-9, atol=1e-4)


def test_a_row_between_two_equally_near_neighbours_is_passed_on() -> None:
    points, answers = np.array([[0.0], [1.0], [2.0], [9.0]]), np.array([0, 1, 2, 3])
    model = fitted(KNeighborsRegressor(1), points, answers)
    known = described(model, points)
    (candidate,) = compiled(model, points).candidates

    with pytest.raises(CannotAnswer) as caught:
        opened(candidate, known).run(Matrix(np.array([[0.4], [1.5], [8.0]])), ("predict",))

    assert caught.value.rows.tolist() == [False, True, False]

"""Many models and one answer, or one model for each of several targets."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    RandomForestClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeRegressor

from tests.training.compile.onnx_cases import AMOUNT, AMOUNTS, LABELS, THREE, WORDS, X, assert_agrees

LINEAR = ("linear", LogisticRegression())
BAYES = ("bayes", GaussianNB())
FOREST = ("forest", RandomForestClassifier(5, random_state=0))
RIDGE = ("ridge", Ridge())
TREE = ("tree", DecisionTreeRegressor(max_depth=3))


CASES = [
    (VotingClassifier([LINEAR, BAYES, FOREST]), X, THREE),
    (VotingClassifier([LINEAR, FOREST], voting="soft", weights=[1, 2]), X, WORDS),
    (VotingRegressor([RIDGE, TREE], weights=[1, 3]), X, AMOUNT),
    (StackingClassifier([LINEAR, ("svm", LinearSVC())]), X, WORDS),
    (StackingClassifier([FOREST, BAYES], passthrough=True), X, THREE),
    (StackingRegressor([RIDGE, TREE]), X, AMOUNT),
    (BaggingClassifier(n_estimators=4, max_features=0.5, random_state=0), X, THREE),
    (BaggingClassifier(SVC(), n_estimators=3, random_state=0), X, THREE),
    (BaggingClassifier(LogisticRegression(), n_estimators=3, random_state=0), X, WORDS),
    (BaggingRegressor(n_estimators=4, random_state=0), X, AMOUNT),
    (AdaBoostClassifier(n_estimators=6, random_state=0), X, THREE),
    (AdaBoostClassifier(n_estimators=6, random_state=0), X, WORDS),
    (AdaBoostRegressor(n_estimators=6, random_state=0), X, AMOUNT),
    (CalibratedClassifierCV(LinearSVC(), cv=2), X, THREE),
    (CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=2), X, WORDS),
    (MultiOutputClassifier(LogisticRegression()), X, LABELS),
    (MultiOutputRegressor(Ridge()), X, AMOUNTS),
    (ClassifierChain(RandomForestClassifier(5, random_state=0), order=[1, 0]), X, LABELS),
    (RegressorChain(Ridge(), order=[1, 0]), X, AMOUNTS),
    (DummyClassifier(), X, THREE),
    (DummyRegressor(strategy="median"), X, AMOUNT),
]


@pytest.mark.parametrize(("estimator", "X", "y"), CASES, ids=lambda value: type(value).__name__)
def test_graph_answers_as_the_estimator_does(estimator: Any, X: Any, y: Any) -> None:
    assert_agrees(estimator, X, y)

"""Linear models, and what is linear in disguise."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.cross_decomposition import CCA, PLSRegression
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import (
    Lasso,
    LinearRegression,
    LogisticRegression,
    MultiTaskLasso,
    Perceptron,
    PoissonRegressor,
    RidgeClassifier,
    SGDClassifier,
    SGDOneClassSVM,
    TweedieRegressor,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from tests.training.compile.onnx_cases import AMOUNT, AMOUNTS, LABELS, THREE, TWO, WORDS, X, assert_agrees

CASES = [
    (LinearRegression(), X, AMOUNT),
    (LinearRegression(), X, AMOUNTS),
    (LinearRegression(), X, AMOUNT.reshape(-1, 1)),
    (Lasso(), X, AMOUNT),
    (MultiTaskLasso(), X, AMOUNTS),
    (PoissonRegressor(), X, abs(AMOUNT)),
    (TweedieRegressor(power=0), X, AMOUNT),
    (LogisticRegression(), X, TWO),
    (LogisticRegression(), X, WORDS),
    (LogisticRegression(), X, THREE),
    (LogisticRegression(), X, TWO == 1),
    (LogisticRegression(), X, TWO.astype(float)),
    (make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)), X, THREE),
    (make_pipeline(StandardScaler(), SGDClassifier(loss="modified_huber", random_state=0)), X, THREE),
    (make_pipeline(StandardScaler(), SGDClassifier(loss="modified_huber", random_state=0)), X, TWO),
    (Perceptron(), X, TWO),
    (RidgeClassifier(), X, THREE),
    (RidgeClassifier(), X, WORDS),
    (LinearSVC(), X, THREE),
    (LinearDiscriminantAnalysis(), X, THREE),
    (LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto"), X, TWO),
    (OneVsRestClassifier(LogisticRegression()), X, THREE),
    (OneVsRestClassifier(LogisticRegression()), X, WORDS),
    (OneVsRestClassifier(LogisticRegression()), X, LABELS),
    (OneVsRestClassifier(DecisionTreeClassifier(max_depth=2)), X, THREE),
    (OneVsOneClassifier(LinearSVC()), X, THREE),
    (OneVsOneClassifier(LinearSVC()), X, TWO),
    (OneVsOneClassifier(GaussianNB()), X, THREE),
    (OutputCodeClassifier(LogisticRegression(), code_size=3, random_state=0), X, THREE),
    (CCA(n_components=1), X, AMOUNTS),
    (PLSRegression(n_components=2), X, AMOUNT),
    (SGDOneClassSVM(random_state=0), X, None),
]


@pytest.mark.parametrize(("estimator", "X", "y"), CASES, ids=lambda value: type(value).__name__)
def test_graph_answers_as_the_estimator_does(estimator: Any, X: Any, y: Any) -> None:
    assert_agrees(estimator, X, y)

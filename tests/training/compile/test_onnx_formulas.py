"""Who answers for an estimator, and what follows from a formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.training.compile.onnx_cases import THREE, WORDS, X, fitted
from training.compile import onnx_families  # noqa: F401  -- registers the formulas
from training.compile.onnx_formulas import Labels, NoFormula, answering, ask, computes, kind_of, labels
from training.compile.onnx_graph import Graph, Tensor


class OwnRegression(LinearRegression):  # type: ignore[misc]
    """A subclass may compute anything."""


def rows() -> Tensor:
    return Graph().input("x", "double", (None, None))


def test_a_subclass_has_no_formula() -> None:
    assert kind_of(LinearRegression()) == "LinearRegression"
    assert kind_of(OwnRegression()) == ""
    with pytest.raises(NoFormula, match=r"OwnRegression\.predict has no formula"):
        ask(fitted(OwnRegression(), X, X[:, 0]), "predict", rows())


def test_the_model_at_the_end_of_searches_and_steps_answers() -> None:
    search = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {}, cv=2)

    assert isinstance(answering(fitted(search, X, THREE)), LogisticRegression)


@pytest.mark.parametrize(
    ("estimator", "y", "expected"),
    [(LinearRegression(), X[:, 0], True), (LogisticRegression(), THREE, False)],
    ids=["regression", "classification"],
)
def test_regressions_compute_and_classifiers_label(estimator: Any, y: Any, expected: bool) -> None:
    assert computes(fitted(make_pipeline(StandardScaler(), estimator), X, y)) is expected


@pytest.mark.parametrize(
    ("estimator", "y", "is_single"),
    [
        (LogisticRegression(), WORDS, True),
        (LogisticRegression(), THREE, False),
        (RandomForestClassifier(3), WORDS, False),
    ],
    ids=["two classes by decision", "three classes", "two classes by probability"],
)
def test_labels_come_from_the_decision_or_else_from_the_probabilities(estimator: Any, y: Any, is_single: bool) -> None:
    (found,) = labels(fitted(estimator, X, y), rows())

    assert found.is_single is is_single
    assert found.classes.tolist() == sorted(set(y))


def test_labels_that_are_no_numbers_cannot_be_computed_with() -> None:
    with pytest.raises(NoFormula, match="no numbers"):
        Labels(rows(), np.array(["a", "b"])).values()

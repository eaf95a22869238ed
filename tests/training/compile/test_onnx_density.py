"""Naive Bayes, Gaussian mixtures and discriminants."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.covariance import EllipticEnvelope
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB

from tests.training.compile.onnx_cases import POSITIVE, THREE, TWO, WHOLE, WORDS, X, assert_agrees

CASES = [
    (GaussianNB(), X, THREE),
    (BernoulliNB(binarize=1.0), X, WORDS),
    (MultinomialNB(), POSITIVE, THREE),
    (ComplementNB(), POSITIVE, THREE),
    (CategoricalNB(), WHOLE + 3.0, TWO),
    (GaussianMixture(3, random_state=0), X, None),
    (GaussianMixture(3, covariance_type="tied", random_state=0), X, None),
    (GaussianMixture(3, covariance_type="diag", random_state=0), X, None),
    (GaussianMixture(3, covariance_type="spherical", random_state=0), X, None),
    (BayesianGaussianMixture(n_components=2, random_state=0), X, None),
    (QuadraticDiscriminantAnalysis(), X, TWO),
    (QuadraticDiscriminantAnalysis(), X, THREE),
    (EllipticEnvelope(random_state=0), X, None),
]


@pytest.mark.parametrize(("estimator", "X", "y"), CASES, ids=lambda value: type(value).__name__)
def test_graph_answers_as_the_estimator_does(estimator: Any, X: Any, y: Any) -> None:
    assert_agrees(estimator, X, y)

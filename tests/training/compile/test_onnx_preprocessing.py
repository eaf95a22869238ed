"""Scalers, imputers, selectors and other steps before a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.cluster import FeatureAgglomeration
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import IterativeImputer, MissingIndicator, SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.kernel_approximation import AdditiveChi2Sampler, RBFSampler, SkewedChi2Sampler
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
)

from tests.training.compile.onnx_cases import AMOUNT, HOLES, POSITIVE, TWO, WHOLE, X, assert_agrees, compiled, fitted

CASES = [
    (StandardScaler(), HOLES, None),
    (StandardScaler(with_mean=False), X, None),
    (MinMaxScaler(clip=True), X, None),
    (MaxAbsScaler(), X, None),
    (RobustScaler(), X, None),
    (Normalizer("l1"), X, None),
    (Normalizer("max"), X, None),
    (Binarizer(threshold=0.5), X, None),
    (PolynomialFeatures(3), X, None),
    (PolynomialFeatures(2, interaction_only=True, include_bias=False), X, None),
    (KBinsDiscretizer(4, encode="onehot", quantile_method="averaged_inverted_cdf"), X, None),
    (KBinsDiscretizer(4, encode="ordinal", strategy="uniform"), X, None),
    (PowerTransformer(), HOLES, None),
    (PowerTransformer(method="box-cox"), POSITIVE, None),
    (QuantileTransformer(n_quantiles=20), HOLES, None),
    (SplineTransformer(4, degree=2, include_bias=False), X, None),
    (FunctionTransformer(), X, None),
    (FunctionTransformer(np.log1p), POSITIVE, None),
    (FunctionTransformer(np.expm1), X / 100.0, None),
    (SelectKBest(k=2), X, TWO),
    (VarianceThreshold(1.0), X, None),
    (SimpleImputer(), HOLES, None),
    (SimpleImputer(add_indicator=True), HOLES, None),
    (SimpleImputer(missing_values=0.0, strategy="constant", fill_value=7.0), WHOLE, None),
    (IterativeImputer(max_iter=2, random_state=0), HOLES, None),
    (MissingIndicator(), HOLES, None),
    (TfidfTransformer(sublinear_tf=True), abs(WHOLE), None),
    (AdditiveChi2Sampler(), POSITIVE, None),
    (RBFSampler(gamma=0.01, random_state=0), X, None),
    (SkewedChi2Sampler(random_state=0), POSITIVE, None),
    (FeatureAgglomeration(2), X, None),
    (IsotonicRegression(out_of_bounds="clip"), X[:, 0], AMOUNT),
]


@pytest.mark.parametrize(("estimator", "X", "y"), CASES, ids=lambda value: type(value).__name__)
def test_graph_answers_as_the_estimator_does(estimator: Any, X: Any, y: Any) -> None:
    assert_agrees(estimator, X, y)


def test_a_function_of_ones_own_is_left_to_the_estimator() -> None:
    found = compiled(fitted(FunctionTransformer(np.round), X), X)

    assert found.candidates == ()
    assert "a function of its own" in found.reasons["transform"]

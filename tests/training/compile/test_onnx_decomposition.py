"""Projections onto components."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.decomposition import PCA, FactorAnalysis, FastICA, IncrementalPCA, SparsePCA, TruncatedSVD
from sklearn.random_projection import SparseRandomProjection

from tests.training.compile.onnx_cases import X, assert_agrees

CASES = [
    (PCA(3, whiten=True), X, None),
    (IncrementalPCA(3), X, None),
    (TruncatedSVD(2, random_state=0), X, None),
    (SparseRandomProjection(3, random_state=0), X, None),
    (FastICA(2, random_state=0), X, None),
    (FactorAnalysis(2), X, None),
    (SparsePCA(2, max_iter=5, random_state=0), X, None),
]


@pytest.mark.parametrize(("estimator", "X", "y"), CASES, ids=lambda value: type(value).__name__)
def test_graph_answers_as_the_estimator_does(estimator: Any, X: Any, y: Any) -> None:
    assert_agrees(estimator, X, y)

# An estimator's attributes have no types, and so has what a tensor makes with them.
# mypy: disable-error-code=no-any-return
"""Projections onto components."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.compile.onnx_formulas import formula
from training.compile.onnx_graph import Tensor


@formula("transform", "PCA", "IncrementalPCA")
def principal(e: Any, x: Tensor) -> Tensor:
    y = x @ e.components_.T - e.mean_ @ e.components_.T
    if not e.whiten:
        return y
    return y / np.maximum(np.sqrt(e.explained_variance_), np.finfo(e.explained_variance_.dtype).eps)


@formula("transform", "TruncatedSVD", "GaussianRandomProjection", "SparseRandomProjection")
def project(e: Any, x: Tensor) -> Tensor:
    components = e.components_
    return x @ (components.toarray() if hasattr(components, "toarray") else components).T


@formula("transform", "FastICA")
def independent(e: Any, x: Tensor) -> Tensor:
    return (x - e.mean_ if e.whiten else x) @ e.components_.T


@formula("transform", "FactorAnalysis")
def factors(e: Any, x: Tensor) -> Tensor:
    weights = e.components_ / e.noise_variance_
    spread = np.linalg.inv(np.eye(len(e.components_)) + weights @ e.components_.T)
    return (x - e.mean_) @ weights.T @ spread


@formula("transform", "SparsePCA", "MiniBatchSparsePCA")
def sparse_principal(e: Any, x: Tensor) -> Tensor:
    """Ridge regression on the components, solved once for all rows."""
    c = e.components_
    gram = c @ c.T + e.ridge_alpha * np.eye(len(c))
    return (x - e.mean_) @ np.linalg.solve(gram, c).T

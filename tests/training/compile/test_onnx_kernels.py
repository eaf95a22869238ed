"""Support vectors, Gaussian processes and other sums over kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import KernelPCA
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Matern, RationalQuadratic, WhiteKernel
from sklearn.kernel_approximation import Nystroem
from sklearn.kernel_ridge import KernelRidge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import SVC, SVR, NuSVC, OneClassSVM

from service.core.table import Matrix
from tests.training.compile.onnx_cases import (
    AMOUNT,
    AMOUNTS,
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
    (make_pipeline(StandardScaler(), SVC()), X, TWO),
    (make_pipeline(StandardScaler(), SVC()), X, THREE),
    (make_pipeline(StandardScaler(), SVC(kernel="poly", decision_function_shape="ovo")), X, THREE),
    (make_pipeline(StandardScaler(), SVC(break_ties=True)), X, THREE),
    (make_pipeline(StandardScaler(), NuSVC(nu=0.1, kernel="linear")), X, WORDS),
    (make_pipeline(StandardScaler(), SVR(kernel="sigmoid")), X, AMOUNT),
    (make_pipeline(StandardScaler(), OneClassSVM()), X, None),
    (make_pipeline(StandardScaler(), KernelRidge(kernel="laplacian")), X, AMOUNTS),
    (make_pipeline(StandardScaler(), KernelPCA(2, kernel="cosine")), X, None),
    (make_pipeline(StandardScaler(), Nystroem(n_components=10, random_state=0)), X, None),
    (make_pipeline(StandardScaler(), LabelSpreading(kernel="rbf", gamma=0.5)), X, TWO),
]


@pytest.mark.parametrize(("estimator", "X", "y"), CASES, ids=lambda value: type(value).__name__)
def test_graph_answers_as_the_estimator_does(estimator: Any, X: Any, y: Any) -> None:
    assert_agrees(estimator, X, y)


@pytest.mark.parametrize(
    "kernel",
    [
        ConstantKernel(2.0) * RBF([1.0] * X.shape[1]) + WhiteKernel(),
        Matern(nu=0.5) + DotProduct() + WhiteKernel(),
        Matern(nu=2.5) + RationalQuadratic() + WhiteKernel(),
    ],
    ids=["RBF", "Matern", "mixture of scales"],
)
def test_gaussian_process_gives_its_mean(kernel: Any) -> None:
    process = GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True)

    assert_agrees(make_pipeline(StandardScaler(), process), X, AMOUNT, rtol=1e-8)


def test_a_row_on_the_border_of_two_classes_is_of_the_second_as_libsvm_votes() -> None:
    points = np.array([[-1.0], [1.0]])
    model = fitted(SVC(kernel="linear"), points, ["left", "right"])
    known = described(model, points)
    (candidate,) = compiled(model, points).candidates

    label = opened(candidate, known).run(Matrix(np.zeros((1, 1))), ("predict",))["predict"]

    assert list(label) == model.predict([[0.0]]).tolist() == ["right"]

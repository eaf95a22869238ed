# An estimator's attributes have no types, and so has what a tensor makes with them.
# mypy: disable-error-code=no-any-return
"""Support vectors, Gaussian processes and other sums over kernels."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.compile.onnx_formulas import Labels, NoFormula, formula
from training.compile.onnx_graph import Tensor
from training.compile.onnx_linear import ovr_scores
from training.compile.onnx_neighbors import exact_distances, exact_squares, neighbours, project_kernel, squares
from training.compile.onnx_preprocessing import unit

CLASSIFIERS: Final = ("SVC", "NuSVC")


def kernel(x: Tensor, y: Any, name: Any, *, gamma: float | None, coef0: float = 1.0, degree: float = 3.0) -> Tensor:
    """Between the rows of x and those of y, shape (rows, len(y)). Source: `sklearn.metrics.pairwise`."""
    y = np.asarray(y, dtype=float)
    x.graph.row_bytes = max(x.graph.row_bytes, len(y) * 8)
    gamma = 1.0 / y.shape[1] if gamma is None else float(gamma)
    match name:
        case "linear":
            return x @ y.T
        case "rbf":
            return (-gamma * squares(x, y)).op("Exp")
        case "poly" | "polynomial":
            return (x @ y.T * gamma + float(coef0)) ** float(degree)
        case "sigmoid":
            return (x @ y.T * gamma + float(coef0)).op("Tanh")
        case "laplacian":
            return (-gamma * exact_distances(x, y, "manhattan")).op("Exp")
        case "cosine":
            return unit(x, "l2") @ (y / np.where((n := np.linalg.norm(y, axis=1, keepdims=True)) == 0, 1.0, n)).T
        case _:
            raise NoFormula(f"the kernel {name!r}" if isinstance(name, str) else "a kernel of its own")


def _support(e: Any, x: Tensor) -> Tensor:
    if e._sparse:
        raise NoFormula("support vectors of a sparse matrix")
    return kernel(x, e.support_vectors_, e.kernel, gamma=e._gamma, coef0=e.coef0, degree=e.degree)


def _duels(e: Any, x: Tensor) -> Tensor:
    """libsvm's decision values of classes i < j, shape (rows, pairs): positive is for i.

    Source: `svm_predict_values` in libsvm: the support vectors of i with the coefficients against j, and back.
    """
    n, starts = len(e.classes_), np.concatenate([[0], np.cumsum(e._n_support)])
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    weights: NDArray[np.float64] = np.zeros((len(e.support_vectors_), len(pairs)))
    for pair, (i, j) in enumerate(pairs):
        for one, other in ((i, j - 1), (j, i)):
            rows = slice(starts[one], starts[one + 1])
            weights[rows, pair] = e._dual_coef_[other, rows]
    return _support(e, x) @ weights + e._intercept_


@formula("decision_function", *CLASSIFIERS)
def margins(e: Any, x: Tensor) -> Tensor:
    duels = _duels(e, x)
    if len(e.classes_) == 2:
        return -duels.squeeze()
    if e.decision_function_shape == "ovo":
        return duels
    return ovr_scores((duels < 0.0).cast("double"), duels, len(e.classes_))


@formula("labels", *CLASSIFIERS)
def vote(e: Any, x: Tensor) -> Labels:
    """libsvm counts won duels, and takes the first class of the most."""
    classes = np.asarray(e.classes_)
    if len(classes) == 2:
        return Labels(margins(e, x), classes, is_single=True, is_inclusive=True)
    if e.break_ties and e.decision_function_shape == "ovr":
        return Labels(margins(e, x), classes)
    first, second = _duels_to_votes(len(classes))
    wins = (_duels(e, x) > 0.0).cast("double")
    return Labels(wins @ first + (1.0 - wins) @ second, classes)


def _duels_to_votes(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    return np.eye(n)[[i for i, _ in pairs]], np.eye(n)[[j for _, j in pairs]]


@formula("predict", "SVR", "NuSVR")
def regression(e: Any, x: Tensor) -> Tensor:
    return _support(e, x) @ e._dual_coef_[0] + float(e._intercept_[0])


@formula("decision_function", "OneClassSVM")
def one_class(e: Any, x: Tensor) -> Tensor:
    return regression(e, x)


@formula("score_samples", "OneClassSVM")
def one_class_scores(e: Any, x: Tensor) -> Tensor:
    return regression(e, x) + float(np.reshape(e.offset_, -1)[0])


@formula("labels", "OneClassSVM")
def one_class_labels(e: Any, x: Tensor) -> Labels:
    return Labels(one_class(e, x), np.array([-1, 1]), is_single=True)


@formula("predict", "KernelRidge")
def ridge(e: Any, x: Tensor) -> Tensor:
    if e.kernel_params:
        raise NoFormula("a kernel with parameters of its own")
    found = kernel(x, e.X_fit_, e.kernel, gamma=e.gamma, coef0=e.coef0, degree=e.degree)
    return found @ e.dual_coef_


@formula("transform", "KernelPCA")
def principal(e: Any, x: Tensor) -> Tensor:
    if e.kernel == "precomputed":
        return project_kernel(e, x)
    if e.kernel_params:
        raise NoFormula("a kernel with parameters of its own")
    return project_kernel(e, kernel(x, e.X_fit_, e.kernel, gamma=e.gamma_, coef0=e.coef0, degree=e.degree))


@formula("transform", "Nystroem")
def nystroem(e: Any, x: Tensor) -> Tensor:
    if e.kernel_params:
        raise NoFormula("a kernel with parameters of its own")
    given = {key: getattr(e, key) for key in ("coef0", "degree") if getattr(e, key) is not None}
    return kernel(x, e.components_, e.kernel, gamma=e.gamma, **given) @ e.normalization_.T


@formula("predict_proba", "LabelPropagation", "LabelSpreading")
def spread(e: Any, x: Tensor) -> Tensor:
    if e.kernel == "rbf":
        p = kernel(x, e.X_, "rbf", gamma=e.gamma) @ e.label_distributions_
    elif e.kernel == "knn" and e.nn_fit is not None:
        _, places = neighbours(e.nn_fit, x, e.nn_fit.n_neighbors)
        p = places.lookup(np.asarray(e.label_distributions_, dtype=float)).sum()
    else:
        raise NoFormula("a kernel of its own")
    return p / p.sum(keepdims=True)


# -- Gaussian processes --------------------------------------------------------------------------


def covariance(k: Any, x: Tensor, y: NDArray[Any]) -> Tensor:
    """`k(x, y)` of a fitted kernel of `sklearn.gaussian_process.kernels`."""
    match type(k).__name__:
        case "Sum":
            return covariance(k.k1, x, y) + covariance(k.k2, x, y)
        case "Product":
            return covariance(k.k1, x, y) * covariance(k.k2, x, y)
        case "Exponentiation":
            return covariance(k.kernel, x, y) ** float(k.exponent)
        case "ConstantKernel":
            return _zeros(x, y) + float(k.constant_value)
        case "WhiteKernel":
            return _zeros(x, y)
        case "DotProduct":
            return x @ y.T + float(k.sigma_0) ** 2
        case "RBF":
            return (-0.5 * exact_squares(x / k.length_scale, y / k.length_scale)).op("Exp")
        case "Matern":
            return _matern(float(k.nu), exact_distances(x / k.length_scale, y / k.length_scale))
        case "RationalQuadratic":
            return (exact_squares(x, y) / (2.0 * k.alpha * k.length_scale**2) + 1.0) ** -float(k.alpha)
        case "ExpSineSquared":
            turn = (exact_distances(x, y) * (np.pi / k.periodicity)).op("Sin") / float(k.length_scale)
            return (-2.0 * (turn * turn)).op("Exp")
        case name:
            raise NoFormula(f"a Gaussian process with the kernel {name}")


def _zeros(x: Tensor, y: NDArray[Any]) -> Tensor:
    return x.columns([0]) * 0.0 + np.zeros(len(y))


def _matern(nu: float, far: Tensor) -> Tensor:
    if nu == 0.5:
        return (-far).op("Exp")
    if nu == 1.5:
        k = far * np.sqrt(3.0)
        return (1.0 + k) * (-k).op("Exp")
    if nu == 2.5:
        k = far * np.sqrt(5.0)
        return (1.0 + k + k * k / 3.0) * (-k).op("Exp")
    if nu == np.inf:
        return (-(far * far) / 2.0).op("Exp")
    raise NoFormula(f"a Matern kernel of order {nu:g}")


@formula("predict", "GaussianProcessRegressor")
def process(e: Any, x: Tensor) -> Tensor:
    known = np.asarray(e.X_train_, dtype=float)
    x.graph.row_bytes = max(x.graph.row_bytes, len(known) * 8)
    return covariance(e.kernel_, x, known) @ e.alpha_ * e._y_train_std + e._y_train_mean


@formula("labels", "GaussianProcessClassifier")
def process_labels(e: Any, x: Tensor) -> Labels:
    """Of two classes, the sign of the most probable latent function; more need an integral."""
    one = e.base_estimator_
    if len(e.classes_) != 2 or hasattr(one, "estimators_"):
        raise NoFormula("a Gaussian process of more than two classes")
    latent = covariance(one.kernel_, x, np.asarray(one.X_train_, dtype=float)) @ (one.y_train_ - one.pi_)
    return Labels(latent, np.asarray(e.classes_), is_single=True)

# An estimator's attributes have no types, and so has what a tensor makes with them.
# mypy: disable-error-code=no-any-return
"""Nearest centres, nearest neighbours, and what is made of the distances to them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.compile.onnx_formulas import Labels, NoFormula, formula, one_hot
from training.compile.onnx_graph import Tensor

# Two distances that differ by less are a tie: which neighbour is taken depends on the search tree.
TIE: Final = 1e-12


def squares(x: Tensor, y: Any) -> Tensor:
    """Squared euclidean distances to the rows of `y`, shape (rows, len(y)), as `euclidean_distances` has them."""
    y = np.asarray(y, dtype=float)
    return ((x * x).sum(keepdims=True) - 2.0 * (x @ y.T) + (y**2).sum(axis=1)).clip(low=0.0)


def distances(x: Tensor, y: Any) -> Tensor:
    return squares(x, y).op("Sqrt")


def exact_distances(x: Tensor, y: Any, metric: str = "euclidean") -> Tensor:
    """From differences, as a search tree computes them: no digits are lost near zero."""
    match metric:
        case "euclidean":
            return exact_squares(x, y).op("Sqrt")
        case "manhattan":
            return _steps(x, y).op("Abs").sum(axis=2)
    raise NoFormula(f"neighbours by the metric {metric!r}")


def exact_squares(x: Tensor, y: Any) -> Tensor:
    steps = _steps(x, y)
    return (steps * steps).sum(axis=2)


def _steps(x: Tensor, y: Any) -> Tensor:
    """Differences of every row from every row of y: shape (rows, len(y), columns)."""
    y = np.asarray(y, dtype=float)
    x.graph.row_bytes = max(x.graph.row_bytes, y.size * 8)
    return x.expand() - y


# -- clusters ------------------------------------------------------------------------------------


@formula("transform", "KMeans", "MiniBatchKMeans", "BisectingKMeans")
def to_centres(e: Any, x: Tensor) -> Tensor:
    return distances(x, e.cluster_centers_)


@formula("transform", "Birch")
def to_subclusters(e: Any, x: Tensor) -> Tensor:
    return distances(x, e.subcluster_centers_)


def nearest(x: Tensor, centres: Any, classes: Any = None) -> Labels:
    """The class of the nearest centre. What is the same for all centres is left out of the distance."""
    centres = np.asarray(centres, dtype=float)
    scores = x @ (2.0 * centres.T) - (centres**2).sum(axis=1)
    return Labels(scores, np.arange(len(centres)) if classes is None else np.asarray(classes))


@formula("labels", "KMeans", "MiniBatchKMeans", "AffinityPropagation", "MeanShift")
def nearest_centre(e: Any, x: Tensor) -> Labels:
    return nearest(x, e.cluster_centers_)


@formula("labels", "Birch")
def nearest_subcluster(e: Any, x: Tensor) -> Labels:
    return nearest(x, e.subcluster_centers_, e.subcluster_labels_)


@formula("labels", "BisectingKMeans")
def bisected(e: Any, x: Tensor) -> Labels:
    """Down the tree, to the nearer of two centres."""

    def below(node: Any) -> Tensor:
        if node.left is None:
            return (x.column(0) * 0.0).cast("int64") + int(node.label)
        centres = np.vstack((node.left.center, node.right.center)) + getattr(e, "_X_mean", 0.0)
        return nearest(x, centres).index().equals(0).where(below(node.left), below(node.right))

    n = len(e.cluster_centers_)
    return Labels(one_hot(below(e._bisecting_tree), n), np.arange(n))


@formula("labels", "NearestCentroid")
def nearest_centroid(e: Any, x: Tensor) -> Labels:
    if e.metric != "euclidean":
        raise NoFormula(f"centroids by the metric {e.metric!r}")
    if np.isclose(e.class_prior_, 1 / len(e.classes_)).all():
        return nearest(x, e.centroids_, e.classes_)
    return Labels(discriminants(e, x), np.asarray(e.classes_))


def discriminants(e: Any, x: Tensor) -> Tensor:
    """Source: `sklearn.neighbors.NearestCentroid._decision_function`."""
    if e.metric != "euclidean":
        raise NoFormula(f"centroids by the metric {e.metric!r}")
    spread = np.where(e.within_class_std_dev_ != 0, e.within_class_std_dev_, 1.0)
    return 2.0 * np.log(e.class_prior_) - squares(x / spread, e.centroids_ / spread)


# -- neighbours ----------------------------------------------------------------------------------


def neighbours(e: Any, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances and places of the k nearest rows of the training, shape (rows, k) each, the nearest first."""
    if not isinstance(e._fit_X, np.ndarray):
        raise NoFormula("neighbours in a sparse matrix")
    if e._fit_method == "brute" and e.effective_metric_ == "euclidean":
        far = distances(x, e._fit_X)
    else:
        far = exact_distances(x, e._fit_X, e.effective_metric_)
    n = min(k + 1, len(e._fit_X))
    near, places = x.graph.ops("TopK", (far, np.array([n])), ("double", "int64"), axis=1, largest=0, sorted=1)
    if n > k:
        last, beyond = near.column(k - 1), near.column(k)
        x.graph.doubts.append(beyond - last <= beyond * TIE)
        near, places = near.columns(np.arange(k)), places.columns(np.arange(k))
    return near, places


def _weights(e: Any, near: Tensor) -> Tensor | None:
    """Source: `sklearn.neighbors._base._get_weights`."""
    if e.weights in (None, "uniform"):
        return None
    if e.weights != "distance":
        raise NoFormula("neighbours weighed by a function of its own")
    is_here = near.equals(0.0)
    here = is_here.cast("double")
    return (here.max(keepdims=True) > 0.0).where(here, 1.0 / is_here.where(1.0, near))


@formula("predict_proba", "KNeighborsClassifier")
def neighbours_proba(e: Any, x: Tensor) -> Tensor | list[Tensor]:
    near, places = neighbours(e, x, e.n_neighbors)
    weights = _weights(e, near)
    targets = e._y if e.outputs_2d_ else e._y.reshape(-1, 1)
    classes = e.classes_ if e.outputs_2d_ else [e.classes_]
    result = []
    for target, known in zip(targets.T, classes, strict=True):
        votes = places.lookup(np.eye(len(known))[target])
        votes = votes if weights is None else votes * weights.expand(2)
        total = votes.sum()
        result.append(total / total.sum(keepdims=True))
    return result if e.outputs_2d_ else result[0]


@formula("predict", "KNeighborsRegressor")
def neighbours_mean(e: Any, x: Tensor) -> Tensor:
    near, places = neighbours(e, x, e.n_neighbors)
    weights = _weights(e, near)
    answers = places.lookup(np.asarray(e._y, dtype=float))
    if weights is None:
        return answers.mean()
    if e._y.ndim == 1:
        return (answers * weights).sum() / weights.sum()
    return (answers * weights.expand(2)).sum() / weights.sum(keepdims=True)


@formula("score_samples", "LocalOutlierFactor")
def outlier_factor(e: Any, x: Tensor) -> Tensor:
    """Source: `sklearn.neighbors.LocalOutlierFactor.score_samples`."""
    near, places = neighbours(e, x, e.n_neighbors_)
    reach = near.op("Max", places.lookup(e._distances_fit_X_[:, e.n_neighbors_ - 1]))
    density = 1.0 / (reach.mean() + 1e-10)
    return -(places.lookup(np.asarray(e._lrd)) / density.expand()).mean()


@formula("decision_function", "LocalOutlierFactor")
def outlier_decision(e: Any, x: Tensor) -> Tensor:
    return outlier_factor(e, x) - float(e.offset_)


@formula("labels", "LocalOutlierFactor")
def outlier_labels(e: Any, x: Tensor) -> Labels:
    return Labels(outlier_decision(e, x), np.array([-1, 1]), is_single=True, is_inclusive=True)


@formula("transform", "NeighborhoodComponentsAnalysis")
def components(e: Any, x: Tensor) -> Tensor:
    return x @ e.components_.T


@formula("transform", "Isomap")
def geodesics(e: Any, x: Tensor) -> Tensor:
    """Source: `sklearn.manifold.Isomap.transform`."""
    if e.n_neighbors is None:
        raise NoFormula("neighbours within a radius")
    near, places = neighbours(e.nbrs_, x, e.nbrs_.n_neighbors)
    known = np.asarray(e.dist_matrix_, dtype=float)
    x.graph.row_bytes = max(x.graph.row_bytes, known.shape[1] * e.nbrs_.n_neighbors * 8)
    shortest = (places.lookup(known) + near.expand(2)).min()
    return project_kernel(e.kernel_pca_, -0.5 * (shortest * shortest))


def project_kernel(e: Any, kernel: Tensor) -> Tensor:
    """The last half of `KernelPCA.transform`."""
    centred = centre(e._centerer, kernel)
    kept = np.flatnonzero(e.eigenvalues_)
    scaled = np.zeros_like(e.eigenvectors_)
    scaled[:, kept] = e.eigenvectors_[:, kept] / np.sqrt(e.eigenvalues_[kept])
    return centred @ scaled


@formula("transform", "KernelCenterer")
def centre(e: Any, kernel: Tensor) -> Tensor:
    means = kernel.sum(keepdims=True) / float(len(e.K_fit_rows_))
    return kernel - e.K_fit_rows_ - means + float(e.K_fit_all_)


@formula("score_samples", "KernelDensity")
def density(e: Any, x: Tensor) -> Tensor:
    tree = e.tree_
    if e.kernel != "gaussian" or tree.sample_weight is not None or e.metric != "euclidean":
        raise NoFormula("a density with another kernel than the plain gaussian")
    known: NDArray[Any] = np.asarray(tree.data)
    n, width = known.shape
    far = exact_distances(x, known)
    scale = 0.5 * width * np.log(2.0 * np.pi) + width * np.log(e.bandwidth_) + np.log(n)
    return (-0.5 * (far * far) / e.bandwidth_**2).logsumexp() - scale

# An estimator's attributes have no types, and so has what a tensor makes with them.
# mypy: disable-error-code=no-any-return
"""Gradient boosting, on sorted columns or on histograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.compile.onnx_formulas import Labels, NoFormula, Rows, ask, both, formula, matrix, sigmoid, softmax
from training.compile.onnx_graph import Tensor, concat
from training.compile.onnx_trees import Tree, each, tree_of

CLASSIFIERS = ("GradientBoostingClassifier", "HistGradientBoostingClassifier")
REGRESSORS = ("GradientBoostingRegressor", "HistGradientBoostingRegressor")


@formula("decision_function", *CLASSIFIERS, raw=True)
def decision(e: Any, x: Rows) -> Tensor:
    raw = sums(e, x)
    return raw.squeeze() if len(e.classes_) == 2 else raw


@formula("predict_proba", *CLASSIFIERS, raw=True)
def probabilities(e: Any, x: Rows) -> Tensor:
    raw = sums(e, x)
    loss = type(e._loss).__name__
    if loss == "ExponentialLoss":
        return both(sigmoid(2.0 * raw.squeeze()))
    if loss not in ("HalfBinomialLoss", "HalfMultinomialLoss"):
        raise NoFormula(f"boosting with {loss}")
    return both(sigmoid(raw.squeeze())) if len(e.classes_) == 2 else softmax(raw)


@formula("predict", *REGRESSORS, raw=True)
def regression(e: Any, x: Rows) -> Tensor:
    raw = sums(e, x).squeeze()
    if type(e).__name__ == "GradientBoostingRegressor":
        return raw
    link = type(e._loss.link).__name__
    if link not in ("LogLink", "IdentityLink"):
        raise NoFormula(f"boosting with {link}")
    return raw.op("Exp") if link == "LogLink" else raw


@formula("labels", "GradientBoostingClassifier")
def labels(e: Any, x: Tensor) -> Labels:
    raw = sums(e, x)
    if len(e.classes_) == 2:
        return Labels(raw.squeeze(), np.asarray(e.classes_), is_single=True, is_inclusive=True)
    return Labels(raw, np.asarray(e.classes_))


def sums(e: Any, x: Rows) -> Tensor:
    """The start plus all trees, before any link: shape (rows, trees per stage)."""
    if type(e).__name__.startswith("Hist"):
        return _histogram_sums(e, x)
    if not (isinstance(e.init_, str) or type(e.init_).__name__ in ("DummyClassifier", "DummyRegressor")):
        raise NoFormula("boosting that starts from another estimator")
    start = e._raw_predict_init(np.zeros((1, e.n_features_in_), dtype=np.float32))[0]
    stages = [[tree_of(t, t.tree_.value.reshape(-1, 1) * e.learning_rate) for t in stage] for stage in e.estimators_]
    return _boosted(matrix(x), stages, start)


def _boosted(
    x: Tensor, stages: Sequence[Sequence[Tree]], start: NDArray[np.float64], *, is_double: bool = False
) -> Tensor:
    # The start goes into the first stage's leaves: so the additions are those of scikit-learn, in its order.
    first = [replace(tree, values=tree.values + value) for tree, value in zip(stages[0], start, strict=True)]
    flat = [tree for stage in (first, *stages[1:]) for tree in stage]
    return each(x, flat, is_double=is_double).reshape(-1, len(stages), len(start)).sum()


# -- histograms ----------------------------------------------------------------------------------


def _histogram_sums(e: Any, x: Rows) -> Tensor:
    start = np.asarray(e._baseline_prediction, dtype=float).reshape(-1)
    numbers = matrix(x) if e._preprocessor is None else ask(e._preprocessor, "transform", x)
    sides = _Sides(e.n_features_in_)
    stages = [[_tree(one, sides) for one in stage] for stage in e._predictors]
    return _boosted(sides.beside(numbers), stages, start, is_double=True)


def _tree(predictor: Any, sides: _Sides) -> Tree:
    nodes = predictor.nodes
    is_leaf = nodes["is_leaf"].astype(bool)
    feature = nodes["feature_idx"].astype(np.int64)
    threshold = nodes["num_threshold"].astype(np.float64)
    for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~is_leaf):
        left = _members(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]])
        feature[node] = sides.column(int(feature[node]), left, bool(nodes["missing_go_to_left"][node]))
        threshold[node] = 0.5
    return Tree(
        left=np.where(is_leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(is_leaf, -1, nodes["right"].astype(np.int64)),
        feature=feature,
        threshold=threshold,
        missing_left=nodes["missing_go_to_left"].astype(bool),
        values=nodes["value"].astype(np.float64).reshape(-1, 1),
    )


def _members(bits: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Shape (256,): which codes are in the set."""
    return np.unpackbits(np.ascontiguousarray(bits, dtype="<u4").view(np.uint8), bitorder="little").astype(bool)


class _Sides:
    """Columns that say to which side of a split on categories a row goes: 0 is left, 1 is right.

    The encoder in front leaves codes from 0 to 254, and NaN for what is missing or unknown.
    """

    def __init__(self, n_columns: int) -> None:
        self._first = n_columns
        self._tables: dict[tuple[int, bytes], int] = {}

    def column(self, feature: int, left: NDArray[np.bool_], missing_left: bool) -> int:
        table = np.append(~left, not missing_left)
        return self._tables.setdefault((feature, table.tobytes()), self._first + len(self._tables))

    def beside(self, x: Tensor) -> Tensor:
        if not self._tables:
            return x
        added = []
        for (feature, table), _ in self._tables.items():
            code = x.column(feature)
            index = code.isnan().where(256.0, code).cast("int64")
            added.append(index.lookup(np.frombuffer(table, dtype=bool).astype(float)).expand())
        return concat([x, *added])

# An estimator's attributes have no types, and so has what a tensor makes with them.
# mypy: disable-error-code=no-any-return
"""Trees, decided and summed exactly as scikit-learn does.

onnxruntime's operator for whole forests adds up in single precision. Here it only finds the leaf of each
tree; the leaves' values stay double and are added in the order of the trees. A forest's comparisons are
in single precision, as scikit-learn's own are: a threshold in double precision is rounded down to the
next float32, which decides `x <= t` alike for every float32 x.
Histogram boosting compares doubles (`onnx_boosting.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from training.compile.onnx_formulas import Labels, NoFormula, formula
from training.compile.onnx_graph import ML, Tensor, concat

FORESTS: Final = ("RandomForestClassifier", "ExtraTreesClassifier")
FOREST_REGRESSORS: Final = ("RandomForestRegressor", "ExtraTreesRegressor")
TREES: Final = ("DecisionTreeClassifier", "ExtraTreeClassifier")
TREE_REGRESSORS: Final = ("DecisionTreeRegressor", "ExtraTreeRegressor")
# Leaf numbers travel as float32, which holds every integer up to here.
MOST_LEAVES: Final = 2**24


@dataclass(frozen=True, eq=False)
class Tree:
    """One binary tree: arrays of shape (nodes,); `left` is -1 at leaves; `x <= threshold` goes left."""

    left: NDArray[Any]
    right: NDArray[Any]
    feature: NDArray[Any]
    threshold: NDArray[np.float64]
    missing_left: NDArray[np.bool_]
    values: NDArray[np.float64]  # (nodes, width): the leaves' are used


def tree_of(e: Any, values: NDArray[np.float64] | None = None, features: Any = None) -> Tree:
    """scikit-learn's tree; `features` are the columns that this one was given, if not all."""
    t = e.tree_
    feature = t.feature if features is None else np.asarray(features)[np.maximum(t.feature, 0)]
    values = t.value.reshape(t.node_count, -1) if values is None else values
    return Tree(t.children_left, t.children_right, feature, t.threshold, t.missing_go_to_left.astype(bool), values)


def float32_below(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The greatest float32 that is not greater."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    above = rounded.astype(np.float64) > values
    rounded[above] = np.nextafter(rounded[above], np.float32(-np.inf))
    return rounded


def leaves(x: Tensor, trees: Sequence[Tree], *, is_double: bool = False) -> Tensor:
    """The leaf that each tree finds: shape (rows, trees), counted through all trees in order."""
    parts: dict[str, list[Any]] = {
        name: [] for name in ("feature", "split", "yes", "no", "yes_leaf", "no_leaf", "missing")
    }
    roots, targets, n_inner, n_leaves = [], [], 0, 0
    for index, tree in enumerate(_with_a_split(tree) for tree in trees):
        is_leaf = tree.left < 0
        inner = np.flatnonzero(~is_leaf)
        position = np.where(is_leaf, n_leaves + np.cumsum(is_leaf) - 1, n_inner + np.cumsum(~is_leaf) - 1)
        left, right = tree.left[inner], tree.right[inner]
        threshold = tree.threshold[inner]
        for name, values in (
            ("feature", tree.feature[inner]),
            ("split", threshold if is_double else float32_below(threshold)),
            ("yes", position[left]),
            ("no", position[right]),
            ("yes_leaf", is_leaf[left]),
            ("no_leaf", is_leaf[right]),
            ("missing", tree.missing_left[inner]),
        ):
            parts[name].append(values)
        roots.append(n_inner)
        targets.append(np.full(int(is_leaf.sum()), index))
        n_inner, n_leaves = n_inner + len(inner), n_leaves + int(is_leaf.sum())
    if n_leaves > MOST_LEAVES:
        raise NoFormula(f"{n_leaves} leaves; {MOST_LEAVES} can be told apart")
    whole = {name: np.concatenate(values) for name, values in parts.items()}
    x.graph.casts_computed |= not (is_double or x.is_input)
    number = np.float64 if is_double else np.float32
    dtype = "double" if is_double else "float"
    found = x.graph.op(
        "TreeEnsemble",
        x.cast(dtype),
        dtype=dtype,
        domain=ML,
        n_targets=len(trees),
        aggregate_function=1,  # sum, of one leaf for each target
        post_transform=0,
        tree_roots=roots,
        nodes_featureids=whole["feature"].astype(np.int64).tolist(),
        nodes_splits=numpy_helper.from_array(whole["split"].astype(number), "splits"),
        nodes_modes=numpy_helper.from_array(np.zeros(n_inner, dtype=np.uint8), "modes"),
        nodes_truenodeids=whole["yes"].astype(np.int64).tolist(),
        nodes_falsenodeids=whole["no"].astype(np.int64).tolist(),
        nodes_trueleafs=whole["yes_leaf"].astype(np.int64).tolist(),
        nodes_falseleafs=whole["no_leaf"].astype(np.int64).tolist(),
        nodes_missing_value_tracks_true=whole["missing"].astype(np.int64).tolist(),
        leaf_targetids=np.concatenate(targets).tolist(),
        leaf_weights=numpy_helper.from_array(np.arange(n_leaves, dtype=number), "leaves"),
    )
    return found.cast("int32")


def _with_a_split(tree: Tree) -> Tree:
    """A tree that is a single leaf gets a split whose sides are alike: the operator knows no other trees."""
    if tree.left[0] >= 0:
        return tree
    return Tree(
        left=np.array([1, -1, -1]),
        right=np.array([2, -1, -1]),
        feature=np.zeros(3, dtype=int),
        threshold=np.zeros(3),
        missing_left=np.zeros(3, dtype=bool),
        values=np.repeat(tree.values[:1], 3, axis=0),
    )


def leaf_values(trees: Sequence[Tree]) -> NDArray[np.float64]:
    """Shape (leaves, width), in the order in which `leaves` counts."""
    whole = [_with_a_split(tree) for tree in trees]
    return np.concatenate([tree.values[tree.left < 0] for tree in whole])


def each(x: Tensor, trees: Sequence[Tree], *, is_double: bool = False) -> Tensor:
    """What each tree answers: shape (rows, trees, width), or (rows, trees) where the width is 1."""
    values = leaf_values(trees)
    x.graph.row_bytes = max(x.graph.row_bytes, len(trees) * values.shape[1] * 8)
    found = leaves(x, trees, is_double=is_double)
    return found.lookup(values[:, 0] if values.shape[1] == 1 else values)


def _split_targets(e: Any, p: Tensor) -> Tensor | list[Tensor]:
    """Probabilities of shape (rows, targets * classes at most), apart."""
    if e.n_outputs_ == 1:
        return p
    widest = max(e.n_classes_)
    return [p.columns(np.arange(n) + k * widest) for k, n in enumerate(e.n_classes_)]


@formula("predict_proba", *TREES)
def tree_proba(e: Any, x: Tensor) -> Tensor | list[Tensor]:
    return _split_targets(e, each(x, [tree_of(e)]).squeeze())


@formula("predict", *TREE_REGRESSORS)
def tree_regression(e: Any, x: Tensor) -> Tensor:
    return each(x, [tree_of(e)]).squeeze()


@formula("predict_proba", *FORESTS)
def forest_proba(e: Any, x: Tensor) -> Tensor | list[Tensor]:
    if e.n_outputs_ == 1 and e.n_classes_ == 1:
        raise NoFormula("a forest of one class")
    return _split_targets(e, each(x, [tree_of(tree) for tree in e.estimators_]).sum() / float(len(e.estimators_)))


@formula("predict", *FOREST_REGRESSORS)
def forest_regression(e: Any, x: Tensor) -> Tensor:
    return each(x, [tree_of(tree) for tree in e.estimators_]).sum() / float(len(e.estimators_))


@formula("transform", "RandomTreesEmbedding")
def embedding(e: Any, x: Tensor) -> Tensor:
    """Which leaf of each tree, one-hot; leaves that no row of the training reached have no column."""
    trees = [tree_of(tree) for tree in e.estimators_]
    found = leaves(x, trees)
    categories = e.one_hot_encoder_.categories_
    parts, start = [], 0
    for index, tree in enumerate(trees):
        nodes = np.flatnonzero(_with_a_split(tree).left < 0) if tree.left[0] >= 0 else np.zeros(2, dtype=int)
        table = (nodes[:, None] == np.asarray(categories[index])[None, :]).astype(float)
        parts.append((found.column(index) - np.int32(start)).lookup(table))
        start += len(nodes)
    return concat(parts)


@formula("score_samples", "IsolationForest")
def isolation(e: Any, x: Tensor) -> Tensor:
    """Source: `sklearn.ensemble.IsolationForest._compute_score_samples`."""
    from sklearn.ensemble._iforest import _average_path_length

    trees = []
    for tree, features, lengths, depths in zip(
        e.estimators_, e.estimators_features_, e._average_path_length_per_tree, e._decision_path_lengths, strict=True
    ):
        trees.append(tree_of(tree, (np.asarray(depths) + np.asarray(lengths) - 1.0).reshape(-1, 1), features))
    deepest = len(trees) * float(_average_path_length([e._max_samples])[0])
    total = each(x, trees).sum()
    if deepest == 0:
        return -(total * 0.0 + 1.0)
    return -(x.graph.constant(2.0) ** (-total / deepest))


@formula("decision_function", "IsolationForest")
def isolation_decision(e: Any, x: Tensor) -> Tensor:
    scores = isolation(e, x)
    return scores - float(e.offset_)


@formula("labels", "IsolationForest")
def isolation_labels(e: Any, x: Tensor) -> Labels:
    return Labels(isolation_decision(e, x), np.array([-1, 1]), is_single=True, is_inclusive=True)

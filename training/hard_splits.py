"""Where trees change their mind: thresholds read off them, and boundaries found by asking.

A change is (row, column, value): put `value` into `column` of the sample's row `row`. The row is one
that comes to the split, so that both sides of it give different answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.core.signature import FLOATS, INTS, Signature
from service.core.table import Table, column_arrays

Change = tuple[int, int, Any]
# Rows and changes in, answers of shape (changes, numbers) out.
Ask = Callable[[list[Change]], NDArray[Any]]

# Trees, and splits on the way of a row through each, that are looked at.
TREES: Final = 12
SPLITS: Final = 4
# Columns in which boundaries are sought, points on the first grid, and points within an interval at each step.
COLUMNS: Final = 12
GRID: Final = 24
POINTS: Final = 15
# A step divides an interval by 16: together by 2^64, which leaves neighbours but for boundaries next to zero.
STEPS: Final = 16
SEARCH_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Tree:
    """One array each over the nodes; `feature` is -1 at leaves, and -2 where the split is none of numbers."""

    feature: NDArray[Any]
    threshold: NDArray[Any]
    left: NDArray[Any]
    right: NDArray[Any]


def threshold_changes(estimator: Any, signature: Signature, sample: Table, rows: list[int]) -> list[Change]:
    """At and beside thresholds of scikit-learn's trees, where these see the table's columns as they are."""
    arrays = column_arrays(sample)
    if not rows or any(array.dtype.kind not in "fiu" for array in arrays):
        return []
    changes: list[Change] = []
    random = np.random.default_rng(0)
    trees = list(_trees(estimator, len(arrays)))
    for number, index in enumerate(random.permutation(len(trees))[:TREES].tolist()):
        row = rows[number % len(rows)]
        path = list(_path(trees[index], np.array([float(array[row]) for array in arrays])))
        for feature, threshold in [path[i] for i in random.permutation(len(path))[:SPLITS]]:
            changes += [(row, feature, value) for value in beside(threshold, signature.columns[feature].dtype)]
    return changes


def beside(threshold: float, dtype: str) -> list[Any]:
    """The threshold and its neighbours: in float64, in float32, and where float64 is rounded to the next float32.

    Integers have two: those on either side.
    """
    if dtype in INTS:
        return [int(np.floor(threshold)), int(np.floor(threshold)) + 1]
    near = np.float32(threshold)
    above, below = np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))
    # Halfway between two float32 numbers lies where their rounding turns; the threshold of a tree often lies there.
    halfway = [(float(near) + float(other)) / 2 for other in (above, below)]
    found = [threshold, np.nextafter(threshold, np.inf), np.nextafter(threshold, -np.inf), near, above, below]
    found += [np.nextafter(halfway[0], np.inf), np.nextafter(halfway[1], -np.inf)]
    return list(dict.fromkeys(float(value) for value in found))


def _trees(estimator: Any, width: int) -> Iterator[_Tree]:
    """The trees in it that take `width` columns; of scikit-learn's kinds, and none of anything else."""
    if is_tree(estimator):
        if estimator.n_features_in_ == width:
            tree = estimator.tree_
            feature = np.where(tree.children_left == -1, -1, tree.feature)
            yield _Tree(feature, tree.threshold, tree.children_left, tree.children_right)
    elif hasattr(estimator, "_predictors"):  # histogram boosting; categorical columns are put first there
        categorical = getattr(estimator, "is_categorical_", None)
        first = np.zeros(width, dtype=bool) if categorical is None else categorical
        order = np.concatenate([np.flatnonzero(first), np.flatnonzero(~first)])
        for predictor in (each for several in estimator._predictors for each in several):
            nodes = predictor.nodes
            feature = np.where(nodes["is_leaf"], -1, np.where(nodes["is_categorical"], -2, order[nodes["feature_idx"]]))
            yield _Tree(feature, nodes["num_threshold"], nodes["left"], nodes["right"])
    else:
        for inner in inner_estimators(estimator):
            if is_tree(inner):
                yield from _trees(inner, width)


def is_tree(estimator: Any) -> bool:
    """Whether it is a single decision tree; what others call `tree_` finds neighbours."""
    return hasattr(getattr(estimator, "tree_", None), "children_left")


def inner_estimators(estimator: Any) -> list[Any]:
    """The members of an ensemble: a list, or an array of one for each stage and class."""
    members = getattr(estimator, "estimators_", ())
    # Not np.ravel of a list: ensembles and pipelines are sequences themselves, and would be unpacked.
    return list(members.ravel()) if isinstance(members, np.ndarray) else list(members)


def _path(tree: _Tree, row: NDArray[np.float64]) -> Iterator[tuple[int, float]]:
    """The splits that a row meets: column and threshold."""
    node = 0
    while tree.feature[node] >= 0:
        feature, threshold = int(tree.feature[node]), float(tree.threshold[node])
        if np.isfinite(threshold):
            yield feature, threshold
        # Where a missing value goes makes no difference here: either way leads to splits.
        node = int(tree.left[node] if not row[feature] > threshold else tree.right[node])


def boundary_changes(ask: Ask, signature: Signature, sample: Table, rows: list[int]) -> list[Change]:
    """On both sides of steps in the estimator's answer, found by asking it, to the last bit.

    All columns are searched together, in sixteen calls at most. On a slow host the search ends
    early, and the values lie further from the step.
    """
    numeric = [
        index
        for index, (column, array) in enumerate(zip(signature.columns, column_arrays(sample), strict=True))
        if column.dtype in (*FLOATS, *INTS) and column.categories is None and array.dtype.kind in "fiu"
    ]
    chosen = np.random.default_rng(1).permutation(numeric)[:COLUMNS].tolist() if rows else []
    until = time.monotonic() + SEARCH_S
    intervals = [
        (rows[number % len(rows)], column, ends)
        for number, column in enumerate(chosen)
        if (ends := _ends(column_arrays(sample)[column], signature.columns[column].dtype)) is not None
    ]
    points = GRID
    for _ in range(STEPS):
        if not intervals or time.monotonic() > until:
            break
        grids = [_between(*ends, points, signature.columns[column].dtype) for _, column, ends in intervals]
        answers = ask([(row, column, v) for (row, column, _), grid in zip(intervals, grids, strict=True) for v in grid])
        narrower, start = [], 0
        for (row, column, _), grid in zip(intervals, grids, strict=True):
            step = _first_step(answers[start : start + len(grid)])
            start += len(grid)
            if step is not None:
                narrower.append((row, column, (grid[step], grid[step + 1])))
        if narrower == intervals:
            break
        intervals, points = narrower, POINTS + 2
    return [
        (row, column, value)
        for row, column, (low, high) in intervals
        for value in _around(low, high, signature.columns[column].dtype)
    ]


def _ends(values: NDArray[Any], dtype: str) -> tuple[Any, Any] | None:
    finite = values[np.isfinite(values)]
    if not finite.size or finite.min() == finite.max():
        return None
    number = int if dtype in INTS else float  # an integer column with missing values is float64
    return number(finite.min()), number(finite.max())


def _between(low: Any, high: Any, points: int, dtype: str) -> list[Any]:
    """Up to that many values from `low` to `high`, both among them, each of the column's own type."""
    if dtype in INTS:
        count = min(points, high - low + 1)
        return [low + (high - low) * i // (count - 1) for i in range(count)] if count > 1 else [low]
    values = np.linspace(low, high, points).astype(dtype)
    values[0], values[-1] = low, high
    return [float(value) for value in np.unique(values)]


def _first_step(answers: NDArray[Any]) -> int | None:
    """The first point whose answer is not that of the point after it; the middle one of many."""
    steps = np.flatnonzero((answers[1:] != answers[:-1]).any(axis=1))
    return int(steps[len(steps) // 2]) if steps.size else None


def _around(low: Any, high: Any, dtype: str) -> list[Any]:
    if dtype in INTS:
        return [low, high]
    return [low, high, float(np.nextafter(low, -np.inf)), float(np.nextafter(high, np.inf))]

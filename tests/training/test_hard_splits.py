"""Thresholds that are read, and boundaries that are found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KernelDensity
from sklearn.tree import DecisionTreeClassifier

from service.core.signature import Column, Container, DType, Signature
from service.core.table import Matrix
from training.hard_splits import Change, beside, boundary_changes, inner_estimators, is_tree, threshold_changes

ROWS = np.random.default_rng(0).normal(size=(200, 3))
LABELS = (ROWS[:, 0] > 0.25).astype(int)


def signature(dtype: DType) -> Signature:
    columns = tuple(Column(name=f"x{i}", dtype=dtype) for i in range(3))
    return Signature(container=Container.ARRAY, columns=columns, outputs=())


def test_beside_a_threshold_lie_its_neighbours_in_both_precisions() -> None:
    found = beside(0.1, "float64")

    near = np.float32(0.1)
    assert {0.1, np.nextafter(0.1, 1), np.nextafter(0.1, -1)} <= set(found)
    assert {float(near), float(np.nextafter(near, np.float32(1))), float(np.nextafter(near, np.float32(-1)))} <= set(
        found
    )


def test_beside_a_threshold_float32_rounds_to_three_numbers() -> None:
    assert len({np.float32(value) for value in beside(0.1, "float64")}) == 3


def test_integers_lie_on_either_side() -> None:
    assert beside(2.5, "int64") == [2, 3]
    assert beside(-2.5, "int64") == [-3, -2]


@pytest.mark.parametrize(
    "estimator",
    [
        DecisionTreeClassifier(max_depth=2),
        RandomForestClassifier(n_estimators=3),
        GradientBoostingClassifier(n_estimators=3),
        HistGradientBoostingClassifier(max_iter=3),
        BaggingClassifier(n_estimators=3),
        IsolationForest(n_estimators=3),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_values_read_off_trees_lie_on_both_sides_of_their_splits(estimator: Any) -> None:
    estimator.fit(ROWS, LABELS)

    changes = threshold_changes(estimator, signature("float64"), Matrix(ROWS), [0, 1])

    assert {row for row, _, _ in changes} <= {0, 1}
    assert {column for _, column, _ in changes} <= {0, 1, 2}
    assert len(changes) >= 8


def test_values_beside_a_root_change_the_answer() -> None:
    tree = DecisionTreeClassifier(max_depth=1).fit(ROWS, LABELS)

    changes = threshold_changes(tree, signature("float64"), Matrix(ROWS), [0])

    assert len({int(tree.predict(_changed(ROWS, change))[0]) for change in changes}) == 2


def test_categorical_columns_of_histograms_are_counted_as_the_table_does() -> None:
    rows = ROWS.copy()
    rows[:, 2] = np.arange(200) % 3
    model = HistGradientBoostingClassifier(max_iter=3, categorical_features=[2]).fit(rows, LABELS)

    changes = threshold_changes(model, signature("float64"), Matrix(rows), [0])

    assert {column for _, column, _ in changes} <= {0, 1}
    assert any(column == 0 for _, column, _ in changes)


def test_what_is_no_tree_has_no_thresholds() -> None:
    assert threshold_changes(LogisticRegression().fit(ROWS, LABELS), signature("float64"), Matrix(ROWS), [0]) == []
    assert not is_tree(KernelDensity().fit(ROWS))


def test_members_that_are_sequences_themselves_stay_whole() -> None:
    forest, single = RandomForestClassifier(n_estimators=3), DecisionTreeClassifier()
    voting = VotingClassifier([("forest", forest), ("single", single)]).fit(ROWS, LABELS)

    assert [type(member) for member in inner_estimators(voting)] == [RandomForestClassifier, DecisionTreeClassifier]


def test_boundaries_are_found_to_the_last_bit() -> None:
    step = 0.123456789012345

    def ask(changes: list[Change]) -> Any:
        return np.array([[value > step if column == 1 else False] for _, column, value in changes])

    changes = boundary_changes(ask, signature("float64"), Matrix(ROWS), [0, 1, 2])

    assert {column for _, column, _ in changes} == {1}
    assert {step, np.nextafter(step, 1)} <= {value for _, _, value in changes}


def test_boundaries_between_integers_are_integers() -> None:
    rows = np.array([[0, 0, 0], [100, 1000, 5]])

    def ask(changes: list[Change]) -> Any:
        return np.array([[value > 37 if column == 0 else False] for _, column, value in changes])

    changes = boundary_changes(ask, signature("int64"), Matrix(rows), [0])

    assert [value for _, _, value in changes] == [37, 38]


def test_an_answer_without_steps_has_no_boundaries() -> None:
    assert boundary_changes(lambda changes: np.zeros((len(changes), 1)), signature("float64"), Matrix(ROWS), [0]) == []


def test_a_search_takes_sixteen_calls_at_most() -> None:
    calls = []

    def ask(changes: list[Change]) -> Any:
        calls.append(len(changes))
        return np.array([[value > 0.1] for _, _, value in changes])

    boundary_changes(ask, signature("float64"), Matrix(ROWS), [0])

    assert len(calls) <= 16


def _changed(rows: Any, change: Change) -> Any:
    row, column, value = change
    return np.array([[value if i == column else rows[row, i] for i in range(rows.shape[1])]])

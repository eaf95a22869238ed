"""A search in single precision with an end in double."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from service.runtimes.cuml_neighbours import Neighbours
from tests.service.runtimes.fake_cuml import FakeTwin

RANDOM = np.random.RandomState(0)
POINTS = RANDOM.normal(size=(400, 6))
QUERIES = RANDOM.normal(size=(50, 6))


class FakeSearch(FakeTwin):
    name = "KNeighborsRegressor"


def searched(points: Any, rows: Any, **settings: Any) -> tuple[Any, Any, Any]:
    """What the estimator finds, what we find through float32, and which rows are not certain."""
    estimator = KNeighborsRegressor(**settings).fit(points, np.arange(len(points)))
    search = Neighbours(estimator, None)  # type: ignore[arg-type]
    ready = copy.copy(estimator)
    ready._fit_X = search.narrowed()
    found, unsure = search.find(FakeSearch(ready), rows)
    return estimator.kneighbors(rows), found, unsure


@pytest.mark.parametrize(
    "settings",
    [
        {"n_neighbors": 1},
        {"n_neighbors": 7, "metric": "manhattan"},
        {"metric": "chebyshev"},
        {"p": 3, "algorithm": "brute"},
        {"p": 1},
        {"n_neighbors": 400},
    ],
    ids=repr,
)
def test_distances_and_neighbours_are_those_of_the_estimator(settings: dict[str, Any]) -> None:
    (distances, indices), found, unsure = searched(POINTS, QUERIES, **settings)

    assert not unsure.any()
    np.testing.assert_array_equal(found[1], indices)
    np.testing.assert_allclose(found[0], distances, rtol=1e-14)


def test_points_that_single_precision_cannot_tell_apart_are_told_apart() -> None:
    points = np.linspace(0, 1e-6, 12)[:, None] + 1000.0

    (_, indices), found, unsure = searched(points, np.array([[1000.0 + 4.6e-7]]), n_neighbors=3)

    assert not unsure.any()
    np.testing.assert_array_equal(found[1], indices)


def test_a_large_common_offset_does_no_harm() -> None:
    (_, indices), found, unsure = searched(POINTS + 1e6, QUERIES + 1e6)

    assert not unsure.any()
    np.testing.assert_array_equal(found[1], indices)


def test_a_tie_at_the_last_neighbour_is_not_certain() -> None:
    points = np.array([[0.0], [2.0], [5.0], [9.0], [14.0]])

    _, _, unsure = searched(points, np.array([[1.0], [1.1]]), n_neighbors=1)

    assert unsure.tolist() == [True, False]


def test_a_crowd_that_the_search_may_have_cut_off_is_not_certain() -> None:
    crowd = 1.0 + np.arange(100)[:, None] * 1e-9
    points = np.vstack([crowd, [[-3.0]], [[5.0]]])

    _, _, unsure = searched(points, np.array([[1.00000003], [4.9]]), n_neighbors=1)

    assert unsure.tolist() == [True, False]


def test_a_row_beyond_single_precision_is_not_certain() -> None:
    _, _, unsure = searched(POINTS, np.array([np.full(6, 1e39), np.zeros(6)]))

    assert unsure.tolist() == [True, False]


@pytest.mark.parametrize(
    ("estimator", "why"),
    [
        (KNeighborsClassifier(weights=lambda distances: distances), "a function"),
        (KNeighborsClassifier(metric="canberra"), "centred"),
        (KNeighborsClassifier(metric_params={"w": np.ones(6)}), "centred"),
    ],
)
def test_what_cannot_be_searched_like_this_has_a_reason(estimator: Any, why: str) -> None:
    estimator.fit(POINTS, np.arange(400) % 2)

    assert why in str(Neighbours.refusal(estimator))

"""Base scores that are added first, as the libraries add them."""

from __future__ import annotations

import numpy as np
import pytest
import treelite
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from training.compile.treelite_trees import base_first

ROWS = np.random.default_rng(0).normal(size=(300, 4))
LABELS = (ROWS[:, 0] > 0).astype(int) + (ROWS[:, 1] > 0.5)


@pytest.mark.parametrize("labels", [LABELS, LABELS > 1], ids=["three classes", "two classes"])
def test_sums_that_begin_with_the_base_are_the_estimators_own(labels: np.ndarray) -> None:
    model = HistGradientBoostingClassifier(max_iter=20).fit(ROWS, labels)
    own = model.decision_function(ROWS).reshape(len(ROWS), -1)

    trees = treelite.sklearn.import_model(model)
    last = treelite.gtil.predict(trees, ROWS, pred_margin=True)[:, 0]
    first = treelite.gtil.predict(base_first(trees), ROWS, pred_margin=True)[:, 0]

    assert np.array_equal(first, own)
    assert not np.array_equal(last, own)


def test_a_base_that_is_known_better_takes_the_models_place() -> None:
    model = HistGradientBoostingClassifier(max_iter=5).fit(ROWS, LABELS > 1)
    trees = treelite.sklearn.import_model(model)

    moved = base_first(trees, [10.0])

    difference = treelite.gtil.predict(moved, ROWS, pred_margin=True) - treelite.gtil.predict(
        trees, ROWS, pred_margin=True
    )
    assert np.allclose(difference, 10.0 - model._baseline_prediction.item())


def test_a_model_without_a_base_stays_as_it_is() -> None:
    trees = treelite.sklearn.import_model(RandomForestClassifier(n_estimators=3).fit(ROWS, LABELS))

    assert base_first(trees) is trees

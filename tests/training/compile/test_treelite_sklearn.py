"""scikit-learn's trees in Treelite: the same numbers, bit for bit, at the hard rows too."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression

from service.core.table import copied
from service.runtimes.describe import describe
from service.runtimes.estimator import EstimatorEngine
from service.runtimes.treelite import open_treelite
from training.compile.treelite import compile_treelite
from training.compile.treelite_sklearn import read_sklearn
from training.compile.treelite_trees import NotCompiled
from training.hard_rows import hard_rows

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(300, 5))
HOLES = np.where(RANDOM.random(ROWS.shape) < 0.1, np.nan, ROWS)
TWO = (ROWS[:, 0] * ROWS[:, 1] > 0).astype(int)
THREE = TWO + (ROWS[:, 2] > 0.3)
AMOUNTS = ROWS[:, 0] * 3 + ROWS[:, 1] ** 2
FEW: dict[str, Any] = {"n_estimators": 7, "random_state": 0}
TABLE = pd.DataFrame(
    {
        "amount": ROWS[:, 0],
        "city": pd.Categorical(RANDOM.choice(["Graz", "Linz", "Wien"], 300), categories=["Wien", "Linz", "Graz"]),
        "zone": pd.Categorical(RANDOM.choice([3, 1, 7], 300)),
    }
)
TABLE.loc[::9, "city"] = None
CODES = np.column_stack([ROWS[:, 0], RANDOM.integers(0, 5, 300) * 1.5])

CASES = [
    pytest.param(RandomForestClassifier(n_estimators=20, max_depth=3, random_state=0), ROWS, THREE, id="forest"),
    pytest.param(RandomForestClassifier(**FEW), HOLES, THREE, id="forest with holes"),
    pytest.param(RandomForestClassifier(class_weight="balanced", **FEW), ROWS, TWO, id="weighted forest"),
    pytest.param(RandomForestClassifier(**FEW), ROWS, np.column_stack([TWO, THREE]), id="forest of two targets"),
    pytest.param(RandomForestRegressor(**FEW), ROWS, AMOUNTS, id="forest of amounts"),
    pytest.param(RandomForestRegressor(**FEW), ROWS, np.column_stack([AMOUNTS, TWO]), id="forest of two amounts"),
    pytest.param(ExtraTreesClassifier(bootstrap=True, **FEW), ROWS, THREE, id="extra trees"),
    pytest.param(ExtraTreesRegressor(**FEW), ROWS.astype(np.float32), AMOUNTS, id="extra trees of amounts"),
    pytest.param(GradientBoostingClassifier(**FEW), ROWS, TWO, id="boosting"),
    pytest.param(GradientBoostingClassifier(**FEW), ROWS, THREE, id="boosting of three"),
    pytest.param(GradientBoostingClassifier(loss="exponential", **FEW), ROWS, TWO, id="exponential loss"),
    pytest.param(GradientBoostingClassifier(init="zero", **FEW), ROWS, THREE, id="boosting from zero"),
    pytest.param(GradientBoostingRegressor(loss="huber", **FEW), ROWS, AMOUNTS, id="boosting of amounts"),
    pytest.param(HistGradientBoostingClassifier(max_iter=7), HOLES, TWO, id="histograms"),
    pytest.param(HistGradientBoostingClassifier(max_iter=7), HOLES, THREE, id="histograms of three"),
    pytest.param(
        HistGradientBoostingClassifier(max_iter=7, categorical_features="from_dtype"), TABLE, THREE, id="pandas"
    ),
    pytest.param(HistGradientBoostingClassifier(max_iter=7, categorical_features=[1]), CODES, THREE, id="codes"),
    pytest.param(HistGradientBoostingRegressor(max_iter=7), HOLES, AMOUNTS, id="histograms of amounts"),
    pytest.param(
        HistGradientBoostingRegressor(max_iter=7, loss="poisson"), ROWS, np.abs(AMOUNTS), id="histograms of counts"
    ),
    pytest.param(IsolationForest(**FEW), ROWS, None, id="isolation"),
    pytest.param(
        IsolationForest(contamination=0.1, max_features=0.5, max_samples=50, **FEW), ROWS, None, id="isolation of some"
    ),
]


@pytest.mark.parametrize(("estimator", "sample", "target"), CASES)
def test_every_output_is_the_estimators_own_on_sample_and_hard_rows(estimator: Any, sample: Any, target: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a few trees cannot learn
        estimator.fit(sample) if target is None else estimator.fit(sample, target)
    described = describe(estimator, sample)
    signature = described.signature
    hard = hard_rows(estimator, signature, described.sample, limit=80)

    (candidate,) = compile_treelite(estimator, signature, described.sample).candidates
    engine = open_treelite(candidate.files, signature, candidate.options)

    assert candidate.outputs == signature.output_names
    for rows in (described.sample, hard):
        for name in signature.output_names:
            own = EstimatorEngine(estimator, signature).run(copied(rows), (name,))[name]
            found = engine.run(rows, (name,))[name]
            # Only the exp of a link differs between scipy and numpy, and in the last digit.
            has_link = candidate.options["scores"] == "margins" and name in ("predict_proba", "predict_log_proba")
            rtol = 1e-12 if has_link else 0
            pairs = zip(own, found, strict=True) if isinstance(own, list) else [(own, found)]
            for one, other in pairs:
                np.testing.assert_allclose(np.asarray(other), np.asarray(one), rtol=rtol, atol=0)
                assert np.asarray(other).dtype == np.asarray(one).dtype


@pytest.mark.parametrize(
    ("estimator", "target", "why"),
    [
        pytest.param(AdaBoostClassifier(n_estimators=3), THREE, "AdaBoostClassifier is not", id="another ensemble"),
        pytest.param(RandomForestClassifier(**FEW), TWO * 0, "one class only", id="one class"),
        pytest.param(GradientBoostingClassifier(init=LogisticRegression(), **FEW), TWO, "init", id="init of its own"),
        pytest.param(
            GradientBoostingClassifier(init=DummyClassifier(strategy="stratified"), **FEW), TWO, "init", id="chance"
        ),
        pytest.param(HistGradientBoostingRegressor(loss="gamma", max_iter=3), AMOUNTS, None, id="log link"),
    ],
)
def test_what_has_no_trees_for_treelite_is_a_reason(estimator: Any, target: Any, why: str | None) -> None:
    estimator.fit(ROWS, np.abs(target))

    if why is None:
        assert read_sklearn(estimator).recipe.link == "exponential"
    else:
        with pytest.raises(NotCompiled, match=why):
            read_sklearn(estimator)


def test_an_isolation_forest_of_one_row_is_a_reason() -> None:
    forest = IsolationForest(max_samples=1, **FEW).fit(ROWS)

    with pytest.raises(NotCompiled, match="every score is the same"):
        read_sklearn(forest)

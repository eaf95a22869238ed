"""XGBoost's and LightGBM's trees in Treelite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from service.core.errors import CannotAnswer
from service.core.table import copied
from service.runtimes.describe import describe
from service.runtimes.estimator import EstimatorEngine
from service.runtimes.treelite import TREES, open_treelite
from service.runtimes.treelite_library import Trees
from training.compile.candidate import Compiled
from training.compile.treelite import compile_treelite
from training.hard_rows import hard_rows

xgboost = pytest.importorskip("xgboost")
lightgbm = pytest.importorskip("lightgbm")

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(300, 5))
HOLES = np.where(RANDOM.random(ROWS.shape) < 0.1, np.nan, ROWS)
TWO = (ROWS[:, 0] * ROWS[:, 1] > 0).astype(int)
THREE = TWO + (ROWS[:, 2] > 0.3)
AMOUNTS = ROWS[:, 0] * 3 + ROWS[:, 1] ** 2
COUNTS = np.abs(AMOUNTS)
TABLE = pd.DataFrame({"amount": ROWS[:, 0], "city": pd.Categorical(RANDOM.choice(["Graz", "Linz", "Wien"], 300))})
TABLE.loc[::9, "city"] = None


def xgb(kind: str = "XGBClassifier", **options: Any) -> Any:
    return getattr(xgboost, kind)(n_estimators=7, **options)


def lgb(kind: str = "LGBMClassifier", **options: Any) -> Any:
    return getattr(lightgbm, kind)(n_estimators=7, verbose=-1, **options)


def compiled(estimator: Any, sample: Any) -> Compiled:
    described = describe(estimator, sample)
    return compile_treelite(estimator, described.signature, described.sample)


@pytest.mark.parametrize(
    ("estimator", "sample", "target", "rtol"),
    [
        # XGBoost's exp is its own, and single precision.
        pytest.param(xgb(), HOLES, TWO, 1e-6, id="xgboost"),
        pytest.param(xgb(), HOLES, THREE, 1e-6, id="xgboost of three"),
        pytest.param(xgb(objective="multi:softmax"), ROWS, THREE, 1e-6, id="xgboost of labels"),
        pytest.param(xgb("XGBRFClassifier"), ROWS, TWO, 1e-6, id="xgboost forest"),
        pytest.param(xgb(booster="dart", rate_drop=0.5), ROWS, TWO, 1e-6, id="xgboost dart"),
        pytest.param(xgb("XGBRegressor"), HOLES, AMOUNTS, 0, id="xgboost of amounts"),
        pytest.param(xgb("XGBRegressor"), ROWS, np.column_stack([AMOUNTS, TWO]), 0, id="xgboost of two amounts"),
        pytest.param(xgb("XGBRegressor", objective="count:poisson"), ROWS, COUNTS, 1e-6, id="xgboost of counts"),
        # LightGBM's is the C library's, and double.
        pytest.param(lgb(), HOLES, TWO, 1e-12, id="lightgbm"),
        pytest.param(lgb(), HOLES, np.array(["a", "b", "c"])[THREE], 1e-12, id="lightgbm of three"),
        pytest.param(lgb(objective="multiclassova", sigmoid=0.7), ROWS, THREE, 1e-12, id="lightgbm one by one"),
        pytest.param(lgb(sigmoid=0.7), ROWS, TWO, 1e-12, id="lightgbm with a slope"),
        pytest.param(lgb(), TABLE, TWO, 1e-12, id="lightgbm with pandas categories"),
        pytest.param(lgb("LGBMRegressor"), HOLES, AMOUNTS, 0, id="lightgbm of amounts"),
        pytest.param(lgb("LGBMRegressor", reg_sqrt=True), ROWS, AMOUNTS, 0, id="lightgbm of roots"),
        pytest.param(lgb("LGBMRegressor", objective="poisson"), ROWS, COUNTS, 1e-12, id="lightgbm of counts"),
    ],
)
def test_answers_are_the_librarys_own_on_sample_and_hard_rows(
    estimator: Any, sample: Any, target: Any, rtol: float
) -> None:
    estimator.fit(sample, target)
    described = describe(estimator, sample)
    signature = described.signature
    hard = hard_rows(estimator, signature, described.sample, limit=80)

    (candidate,) = compile_treelite(estimator, signature, described.sample).candidates
    engine = open_treelite(candidate.files, signature, candidate.options)

    assert set(candidate.outputs) == set(signature.output_names)
    for rows in (described.sample, hard):
        for name in signature.output_names:
            own = np.asarray(EstimatorEngine(estimator, signature).run(copied(rows), (name,))[name])
            try:
                found, sure = engine.run(rows, (name,))[name], np.ones(rows.n_rows, dtype=bool)
            except CannotAnswer as error:
                assert name == "predict"
                found, sure = (error.answers or {})[name], ~error.rows
            values = np.asarray(found)
            assert values.dtype == own.dtype
            if own.dtype.kind == "f":
                np.testing.assert_allclose(values, own, rtol=rtol, atol=rtol)
            else:
                assert np.array_equal(values[sure], own[sure])


@pytest.mark.parametrize(
    ("estimator", "target"),
    [
        # A base whose logarithm rounds otherwise in double precision.
        pytest.param(xgb(), ROWS[:, 0] > np.quantile(ROWS[:, 0], 0.1), id="two classes"),
        pytest.param(xgb(), THREE, id="three classes"),
        pytest.param(xgb("XGBRegressor", objective="count:poisson"), COUNTS, id="counts"),
    ],
)
def test_sums_are_xgboosts_own_bit_for_bit(estimator: Any, target: Any) -> None:
    estimator.fit(ROWS, target)

    (candidate,) = compiled(estimator, ROWS).candidates
    sums = Trees(candidate.files[TREES], 1).scores(ROWS.astype(np.float32))

    assert np.array_equal(sums.ravel(), estimator.predict(ROWS, output_margin=True).ravel())


def test_only_the_best_iterations_are_compiled() -> None:
    model = xgboost.XGBClassifier(n_estimators=100, early_stopping_rounds=2)
    model.fit(ROWS[:200], TWO[:200], eval_set=[(ROWS[200:], RANDOM.permutation(TWO[200:]))], verbose=False)
    described = describe(model, ROWS)
    (candidate,) = compile_treelite(model, described.signature, described.sample).candidates

    found = open_treelite(candidate.files, described.signature, candidate.options).run(
        described.sample, ("predict_proba",)
    )

    np.testing.assert_allclose(np.asarray(found["predict_proba"]), model.predict_proba(ROWS), rtol=1e-6, atol=1e-6)


def test_only_single_precision_links_are_not_double() -> None:
    regression, logistic = xgb("XGBRegressor").fit(ROWS, AMOUNTS), xgb().fit(ROWS, TWO)

    assert [compiled(model, ROWS).candidates[0].is_double for model in (regression, logistic)] == [True, False]


@pytest.mark.parametrize(
    ("estimator", "sample", "target", "why"),
    [
        pytest.param(xgb(booster="gblinear"), ROWS, TWO, "no trees", id="linear booster"),
        pytest.param(xgb(missing=-1.0), ROWS, TWO, "stands for missing", id="another missing value"),
        pytest.param(xgb(enable_categorical=True), TABLE, TWO, "codes the categories", id="xgboost categories"),
        pytest.param(xgb(objective="binary:hinge"), ROWS, TWO, "hinge", id="hinge"),
        pytest.param(xgb(objective="binary:logitraw"), ROWS, TWO, "no probabilities", id="raw"),
        pytest.param(lgb("LGBMRegressor", linear_tree=True), ROWS, AMOUNTS, "linear models", id="linear leaves"),
        pytest.param(lgb(zero_as_missing=True), np.round(ROWS), TWO, "zero stands for missing", id="zero is missing"),
    ],
)
def test_what_treelite_lacks_is_a_reason(estimator: Any, sample: Any, target: Any, why: str) -> None:
    estimator.fit(sample, target)

    result = compiled(estimator, sample)

    assert not result.candidates
    assert why in result.reasons[""]

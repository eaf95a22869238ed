from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import SVR

from training.data import DataUnusable, Task
from training.pipeline import (
    ESTIMATORS,
    MANY_ROWS,
    EstimatorUnknown,
    build_pipeline,
    estimator_class,
    make_estimator,
    sort_columns,
)

ROWS = 40


def mixed_table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": np.where(rng.random(ROWS) < 0.2, np.nan, rng.normal(40, 10, ROWS)),
            "visits": rng.integers(0, 9, ROWS),
            "city": rng.choice(["Graz", "Linz", None], ROWS),
            "plan": pd.Categorical(rng.choice(["basic", "pro"], ROWS)),
            "active": rng.random(ROWS) < 0.5,
        }
    )


LABELS = np.array(["no", "yes"])[np.arange(ROWS) % 2]


def test_columns_are_sorted_by_what_they_hold() -> None:
    columns = sort_columns(mixed_table())

    assert columns.numeric == ("age", "visits")
    assert columns.categorical == ("city", "plan", "active")
    assert columns.dropped == {}


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        pytest.param("id", [f"C{i}" for i in range(ROWS)], "identifier or free text", id="all distinct"),
        pytest.param("when", pd.date_range("2026-01-01", periods=ROWS), "derive numbers", id="date"),
        pytest.param("empty", [np.nan] * ROWS, "every value is missing", id="empty"),
        pytest.param("mixed", ["a", 1] * (ROWS // 2), "int, str", id="several kinds"),
        pytest.param("lists", [[1]] * ROWS, "list", id="no plain values"),
        pytest.param("Unnamed: 0", range(ROWS), "row numbers", id="index of pandas"),
    ],
)
def test_a_column_that_cannot_be_used_is_dropped_with_a_reason(name: str, values: Any, reason: str) -> None:
    X = mixed_table().assign(**{name: values})

    columns = sort_columns(X)

    assert list(columns.dropped) == [name]
    assert reason in columns.dropped[name]


def test_columns_that_leave_nothing_to_learn_from_are_refused() -> None:
    with pytest.raises(DataUnusable, match=r"no column is left.*empty: every value is missing"):
        sort_columns(pd.DataFrame({"empty": [None, None]}))


@pytest.mark.parametrize(
    ("name", "task", "rows", "expected"),
    [
        ("auto", Task.CLASSIFICATION, 100, "RandomForestClassifier"),
        ("auto", Task.REGRESSION, MANY_ROWS, "HistGradientBoostingRegressor"),
        ("linear", Task.CLASSIFICATION, 100, "LogisticRegression"),
        ("linear", Task.REGRESSION, 100, "LinearRegression"),
        ("logistic", Task.REGRESSION, 100, "LogisticRegression"),
        ("lasso", Task.CLASSIFICATION, 100, "Lasso"),
        ("LGBMRegressor", Task.CLASSIFICATION, 100, "LGBMRegressor"),
        ("BaggingClassifier", Task.REGRESSION, 100, "BaggingClassifier"),
    ],
)
def test_a_name_and_the_task_choose_the_class(name: str, task: Task, rows: int, expected: str) -> None:
    assert estimator_class(name, task, rows).__name__ == expected


def test_an_unknown_estimator_is_answered_with_the_known_ones() -> None:
    with pytest.raises(EstimatorUnknown, match=r"'forest'; there are auto, .*random-forest"):
        estimator_class("forest", Task.CLASSIFICATION, 100)


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ESTIMATORS, "xgboost", ("not_installed_here.XGBClassifier", None))

    with pytest.raises(EstimatorUnknown, match="pip install not_installed_here"):
        estimator_class("xgboost", Task.CLASSIFICATION, 100)


def test_an_estimator_has_a_seed_and_the_given_parameters() -> None:
    estimator = make_estimator(RandomForestClassifier, {"n_estimators": 7})

    assert estimator.random_state == 0
    assert estimator.n_estimators == 7


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        pytest.param(Ridge, {"depth": 3}, "no parameter 'depth'; it has alpha", id="unknown parameter"),
        pytest.param(VotingClassifier, {}, "built around other estimators", id="built around others"),
    ],
)
def test_an_estimator_that_cannot_be_made_is_refused(kind: Any, params: dict[str, Any], message: str) -> None:
    with pytest.raises(EstimatorUnknown, match=message):
        make_estimator(kind, params)


def test_numbers_are_imputed_and_scaled_where_the_estimator_needs_it() -> None:
    X = mixed_table()[["age", "visits"]]

    linear = build_pipeline(sort_columns(X), LogisticRegression(), LABELS)
    forest = build_pipeline(sort_columns(X), RandomForestClassifier(), LABELS)

    assert list(linear.named_steps) == ["simpleimputer", "standardscaler", "logisticregression"]
    assert isinstance(forest, RandomForestClassifier)  # it takes missing values, whatever their scale


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
@pytest.mark.parametrize("task", Task)
def test_every_friendly_estimator_learns_from_mixed_columns_with_holes(name: str, task: Task) -> None:
    X = mixed_table()
    kind = estimator_class(name, task, ROWS)
    y = LABELS if hasattr(kind, "predict_proba") or "Classifier" in kind.__name__ else np.arange(ROWS, dtype=float)
    quick = {"n_estimators": 5} if "n_estimators" in kind().get_params() else {}
    if "mlp" in name:
        quick = {"solver": "lbfgs", "max_iter": 5000}
    pipeline = build_pipeline(sort_columns(X), make_estimator(kind, quick), y)

    answers = pipeline.fit(X, y).predict(X)

    assert answers.shape == (ROWS,)
    assert answers.dtype.kind == y.dtype.kind


def test_a_forest_takes_missing_numbers_beside_many_categories() -> None:
    # So many that scikit-learn would make the rows sparse, in which forests refuse missing values.
    random = np.random.RandomState(0)
    X = pd.DataFrame({"a": random.normal(size=200), "b": random.choice([f"v{i}" for i in range(40)], 200)})
    X.loc[::3, "a"] = np.nan
    y = random.randint(0, 2, 200)

    model = build_pipeline(sort_columns(X), RandomForestClassifier(3), y).fit(X, y)

    assert model.predict(X).shape == (200,)


def test_a_category_never_seen_is_answered() -> None:
    X = mixed_table()
    pipeline = build_pipeline(sort_columns(X), Ridge(), LABELS).fit(X, np.arange(ROWS))

    answer = pipeline.predict(X.head(1).assign(city="Villach"))

    assert np.isfinite(answer).all()


def test_rare_categories_share_a_column() -> None:
    words = [f"w{i}" for i in range(300)]
    X = pd.DataFrame({"word": words * 3})

    encoder = build_pipeline(sort_columns(X), Ridge(), np.arange(900)).fit(X, np.arange(900))[0]

    assert encoder.transform(X.head(1)).shape == (1, 100)


def test_a_column_that_is_empty_in_the_fitted_rows_alone_stays() -> None:
    X = pd.DataFrame({"a": np.arange(6.0), "b": [np.nan] * 5 + [1.0]})

    pipeline = build_pipeline(sort_columns(X), SVR(), np.arange(6)).fit(X.head(5), np.arange(5))

    assert pipeline.named_steps["standardscaler"].n_features_in_ == 2


def test_steps_are_scikit_learns_own() -> None:
    X = mixed_table()

    pipeline = build_pipeline(sort_columns(X), HistGradientBoostingRegressor(), np.arange(ROWS)).fit(X, np.arange(ROWS))

    assert all(type(step).__module__.startswith("sklearn.") for step in pipeline)

"""Rows made to tell engines apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from service.core.signature import Signature
from service.core.table import Frame, Matrix, Table, column_arrays, missing
from service.protocols.native import Exchange, write_columns
from service.runtimes.describe import describe
from service.runtimes.estimator import EstimatorEngine
from tests.conformance import mixed
from training.hard_rows import changed, hard_rows
from training.hard_values import UNSEEN

ROWS = np.random.default_rng(0).normal(size=(200, 3))
LABELS = (ROWS[:, 0] + ROWS[:, 1] > 0.25).astype(int)


def made(estimator: Any, sample: Any, limit: int = 160) -> tuple[Table, Signature]:
    described = describe(estimator, sample)
    return hard_rows(estimator, described.signature, described.sample, limit=limit), described.signature


class Positive(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Refuses negative numbers."""

    def fit(self, X: Any, y: Any) -> Positive:
        self.n_features_in_, self.classes_ = X.shape[1], np.array([0, 1])
        return self

    def predict(self, X: Any) -> Any:
        if (X < 0).any():
            raise ValueError("a negative number")
        return (X[:, 0] > 1).astype(int)


def test_rounding_to_float32_changes_answers_of_histograms() -> None:
    model = HistGradientBoostingClassifier(max_iter=10).fit(ROWS, LABELS)

    rows, _ = made(model, ROWS)

    assert isinstance(rows, Matrix)
    rounded = rows.values.astype(np.float32).astype(np.float64)
    differs = model.decision_function(rows.values) != model.decision_function(rounded)
    assert differs.sum() >= 10


def test_steps_behind_a_pipeline_are_found() -> None:
    model = make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=10)).fit(ROWS, LABELS)

    rows, _ = made(model, ROWS)

    assert isinstance(rows, Matrix)
    # Another way to round the scaler is enough to come out on the other side of a split.
    scaler = model[0]
    scaled = rows.values * (1 / scaler.scale_) - scaler.mean_ / scaler.scale_
    assert (model[1].decision_function(scaled) != model.decision_function(rows.values)).any()


def test_the_rows_are_the_same_every_time() -> None:
    model = RandomForestClassifier(n_estimators=5, random_state=0).fit(ROWS, LABELS)

    (one, _), (other, _) = made(model, ROWS), made(model, ROWS)

    assert all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(column_arrays(one), column_arrays(other), strict=True)
    )


@pytest.mark.parametrize("limit", [0, 1, 7, 160])
def test_there_are_no_more_than_asked_for(limit: int) -> None:
    rows, _ = made(RandomForestClassifier(n_estimators=5).fit(ROWS, LABELS), ROWS, limit)

    assert rows.n_rows <= limit


def test_missing_values_come_one_by_one_and_all_at_once() -> None:
    rows, _ = made(RandomForestClassifier(n_estimators=5).fit(ROWS, LABELS), ROWS)

    assert isinstance(rows, Matrix)
    holes = np.isnan(rows.values).sum(axis=1)
    assert set(holes) == {0, 1, 3}


def test_a_column_that_may_not_be_missing_is_not() -> None:
    rows, signature = made(LinearRegression().fit(ROWS, LABELS), ROWS)

    assert not any(column.nullable for column in signature.columns)
    assert not any(missing(array).any() for array in column_arrays(rows))


def test_rows_that_the_estimator_refuses_are_left_out() -> None:
    rows, _ = made(Positive().fit(np.abs(ROWS), LABELS), np.abs(ROWS))

    assert rows.n_rows > 10
    assert not any((array < 0).any() for array in column_arrays(rows))


def test_unknown_categories_are_tried_where_the_estimator_takes_them() -> None:
    table = pd.DataFrame({"city": ["Graz", "Linz"] * 50, "plan": ["a", "b", "c", "d"] * 25}).astype(object)
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["city"]), (OneHotEncoder(handle_unknown="error"), ["plan"])
    )
    model = make_pipeline(columns, LogisticRegression()).fit(table, LABELS[:100])

    rows, _ = made(model, table)

    assert isinstance(rows, Frame)
    assert UNSEEN in rows.columns["city"]
    assert set(rows.columns["plan"]) == {"a", "b", "c", "d"}


def test_the_closest_calls_of_the_sample_are_among_them() -> None:
    model = LogisticRegression().fit(ROWS, LABELS)

    rows, _ = made(model, ROWS)

    assert isinstance(rows, Matrix)
    closest = ROWS[np.abs(model.decision_function(ROWS)).argmin()]
    assert (rows.values == closest).all(axis=1).any()


def test_texts_are_odd_texts() -> None:
    texts = ["great fun", "bad food", "great food", "awful"] * 5
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0] * 5)

    rows, _ = made(model, texts)

    assert isinstance(rows, Frame)
    (column,) = rows.columns.values()
    assert {"", "GREAT FOOD"} <= set(column)


def test_tables_of_every_kind_of_column_pass_through_json_and_are_answered() -> None:
    table = mixed.table()
    model = mixed.linear(table)

    rows, signature = made(model, table)
    body = orjson.dumps({"columns": write_columns(rows, signature)}, option=orjson.OPT_SERIALIZE_NUMPY)
    arrived = Exchange(body).read(signature).rows

    assert rows.n_rows > 100
    assert EstimatorEngine(model, signature).run(arrived, ("predict",))["predict"] is not None
    holes = {name for name, array in rows.columns.items() if missing(array).any()} if isinstance(rows, Frame) else set()
    assert holes == {column.name for column in signature.columns if column.nullable}


def test_a_missing_integer_makes_its_column_float() -> None:
    table = pd.DataFrame({"a": pd.array([1, 2, None, 4], dtype="Int64"), "b": [1, 2, 3, 4]})
    described = describe(HistGradientBoostingClassifier(min_samples_leaf=1).fit(table, [0, 1, 0, 1]), table)

    rows = changed(described.signature, described.sample, [[(0, 1, None)], [(1, 1, 7)]])

    assert isinstance(rows, Frame)
    assert np.array_equal(rows.columns["b"], [np.nan, 7.0], equal_nan=True)

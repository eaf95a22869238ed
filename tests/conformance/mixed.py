"""A table with a column of every kind that pandas has, and estimators that read all of it.

The servers import this module: its names are what `--trust` is given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

ROWS = 48
SIZES = ["S", "M", "L"]


class Mirror(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Answers with what it was given: the dtype of each column and the value, as text."""

    def fit(self, table: pd.DataFrame, y: Any = None) -> Mirror:
        self.feature_names_in_ = np.asarray(table.columns, dtype=object)
        self.n_features_in_ = table.shape[1]
        return self

    def transform(self, table: pd.DataFrame) -> Any:
        columns = [[f"{table[name].dtype} {value!r}" for value in table[name]] for name in table.columns]
        return np.array(columns, dtype=object).T


def seconds(table: pd.DataFrame) -> Any:
    """Datetimes as numbers; what is missing is -1."""
    return np.column_stack(
        [table[name].astype("int64").where(table[name].notna(), -1) / 1e18 for name in table.columns]
    )


def table() -> pd.DataFrame:
    random = np.random.RandomState(3)

    def holes(values: Any, dtype: Any, every: int) -> pd.Series:
        series = pd.Series(values).astype(dtype)
        series[::every] = None
        return series

    words = random.choice(["red", "green", "blue", "größe", "日本", "🦊", ""], ROWS)
    moments = pd.Series(pd.Timestamp("2024-03-30 22:15") + pd.to_timedelta(random.randint(0, 10**6, ROWS), unit="min"))
    return pd.DataFrame(
        {
            "float64": random.normal(size=ROWS) * 10.0 ** random.randint(-300, 300, ROWS),
            "float64 with holes": holes(random.normal(size=ROWS), "float64", 5),
            "float32": random.normal(size=ROWS).astype("float32"),
            "int8": random.randint(-128, 128, ROWS).astype("int8"),
            "uint64": random.randint(0, 2**53, ROWS).astype("uint64"),
            "int64": random.randint(-(2**53), 2**53, ROWS),
            "Int64": holes(random.randint(0, 100, ROWS), "Int64", 4),
            "Float64": holes(random.normal(size=ROWS), "Float64", 6),
            "bool": random.rand(ROWS) > 0.5,
            "boolean": holes(random.rand(ROWS) > 0.5, "boolean", 7),
            "text": pd.Series(words, dtype=object),
            "text with None": holes(words, object, 8),
            "text with NaN": pd.Series(words, dtype=object).where(random.rand(ROWS) > 0.2, np.nan),
            "string": holes(words, "string", 9),
            "str": holes(words, "str", 10),
            "category": pd.Series(pd.Categorical(words, categories=sorted(set(words)))),
            "category with holes": holes(random.choice(SIZES, ROWS), pd.CategoricalDtype(SIZES, ordered=True), 5),
            "category of numbers": pd.Series(pd.Categorical(random.randint(1, 4, ROWS), categories=[3, 1, 2])),
            "date": moments.dt.normalize(),
            "moment": moments,
            "moment with holes": holes(moments, moments.dtype, 6),
            "moment in Vienna": moments.dt.tz_localize("UTC").dt.tz_convert("Europe/Vienna"),
            "moment in UTC": moments.dt.tz_localize("UTC"),
            "nanoseconds": (moments.astype("datetime64[ns]") + pd.Timedelta(1, "ns")),
        }
    )


def cell(value: Any) -> Any:
    """A value of a data frame as a client would write it in JSON."""
    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if isinstance(value, np.generic) else value


def linear(rows: pd.DataFrame) -> Any:
    """Every kind of column through the encoder that it usually meets."""
    small = [name for name in rows if str(rows[name].dtype) in ("int8", "float32")] + ["float64 with holes"]
    nullable = ["Int64", "Float64"]
    words = ["text", "text with None", "text with NaN", "str", "category", "category with holes", "bool"]
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), [*small, *nullable]),
        (OneHotEncoder(handle_unknown="ignore"), words),
        (FunctionTransformer(seconds), ["date", "moment", "moment with holes", "moment in Vienna"]),
    )
    return make_pipeline(columns, LogisticRegression(max_iter=500)).fit(rows, rows["float32"] > 0)


def boosted(rows: pd.DataFrame) -> Any:
    """Categories of pandas, and missing values, as the estimator itself takes them."""
    chosen = rows[["float64 with holes", "category", "category with holes", "int8", "bool", "Int64"]]
    return HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=3).fit(chosen, rows["text"])

"""Columns and rows, read off a sample or off the estimator alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from service.core.artefact_errors import EstimatorUnusable
from service.core.signature import Container
from service.core.table import Frame, Matrix
from service.runtimes.sample import read_sample, sample_without_data

ANYTHING = FunctionTransformer()  # knows no columns, so the sample decides


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "int8", "uint64", "bool"])
def test_an_array_keeps_its_dtype(dtype: str) -> None:
    sample = read_sample(ANYTHING, np.ones((2, 3), dtype=dtype))

    assert sample.container is Container.ARRAY
    assert [(c.name, c.dtype) for c in sample.columns] == [("x0", dtype), ("x1", dtype), ("x2", dtype)]
    assert isinstance(sample.table, Matrix)
    assert sample.table.values.dtype == dtype


def test_numbers_tell_their_range() -> None:
    sample = read_sample(ANYTHING, np.array([[1.0], [np.nan], [-3.5]]))

    assert (sample.columns[0].low, sample.columns[0].high) == (-3.5, 1.0)


@pytest.mark.parametrize(
    ("values", "dtype", "pandas"),
    [
        pytest.param(pd.Series([1.5, 2.5]), "float64", "float64", id="numbers"),
        pytest.param(pd.Series([1, 2], dtype="int32"), "int32", "int32", id="integers"),
        pytest.param(pd.Series([True, False]), "bool", "bool", id="truths"),
        pytest.param(pd.Series(["a", None]), "string", "str", id="text"),
        pytest.param(pd.Series(["a", np.nan], dtype=object), "string", "object", id="text as objects"),
        pytest.param(pd.Series(["a", None], dtype="string"), "string", "string", id="text of the string type"),
        pytest.param(pd.Series([1, None], dtype="Int64"), "int64", "Int64", id="integers that may be missing"),
        pytest.param(pd.Series([1.5, None], dtype="Float64"), "float64", "Float64", id="numbers that may be missing"),
        pytest.param(pd.Series([True, None], dtype="boolean"), "bool", "boolean", id="truths that may be missing"),
        pytest.param(pd.Series([True, None], dtype=object), "bool", "object", id="truths as objects"),
        pytest.param(pd.Series([1, 2.5], dtype=object), "float64", "object", id="numbers as objects"),
        pytest.param(pd.to_datetime(pd.Series(["2020-01-01"] * 2)), "datetime", "datetime64[us]", id="dates"),
        pytest.param(pd.Series(["a", "b"], dtype="category"), "string", "category", id="a category of text"),
        pytest.param(pd.Series([3, 4], dtype="category"), "int64", "category", id="a category of integers"),
    ],
)
def test_a_data_frame_column_is_read_by_what_it_holds(values: Any, dtype: str, pandas: str) -> None:
    sample = read_sample(ANYTHING, pd.DataFrame({"column": values, "other": [1.0, 2.0]}))

    column = sample.columns[0]
    assert (column.name, column.dtype, column.pandas) == ("column", dtype, pandas)
    assert sample.container is Container.FRAME


def test_a_zone_makes_a_datetime_that_carries_an_offset() -> None:
    frame = pd.DataFrame({"when": pd.to_datetime(["2020-07-01T12:00"]).tz_localize("Europe/Vienna")})

    sample = read_sample(ANYTHING, frame)

    assert sample.columns[0].timezone == "Europe/Vienna"
    assert isinstance(sample.table, Frame)
    assert str(sample.table.columns["when"][0]) == "2020-07-01T10:00:00.000000"


def test_a_category_tells_its_values_and_their_order() -> None:
    size = pd.Categorical(["s", "l"], categories=["s", "m", "l"], ordered=True)

    column = read_sample(ANYTHING, pd.DataFrame({"size": size})).columns[0]

    assert (column.categories, column.ordered) == (["s", "m", "l"], True)


def test_columns_come_in_the_order_of_the_fit_and_others_are_passed_over() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [2.0, 1.0]})
    estimator = LinearRegression().fit(frame, [1.0, 2.0])

    sample = read_sample(estimator, frame.assign(target=1.0)[["target", "b", "a"]])

    assert [column.name for column in sample.columns] == ["a", "b"]


def test_an_array_for_an_estimator_fitted_on_a_frame_gets_its_names() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [2.0, 1.0]})
    estimator = LinearRegression().fit(frame, [1.0, 2.0])

    sample = read_sample(estimator, frame.to_numpy())

    assert sample.container is Container.FRAME
    assert [column.name for column in sample.columns] == ["a", "b"]


def test_a_frame_for_an_estimator_fitted_on_an_array_gives_names_for_people_only() -> None:
    estimator = LinearRegression().fit(np.eye(2), [1.0, 2.0])

    sample = read_sample(estimator, pd.DataFrame({"a": [1.0], "b": [2.0]}))

    assert sample.container is Container.ARRAY
    assert [column.name for column in sample.columns] == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "container", "name"),
    [
        pytest.param(["one text", "another"], Container.SERIES, "text", id="a list of texts"),
        pytest.param(pd.Series(["one", "two"], name="review"), Container.SERIES, "review", id="a series"),
        pytest.param(np.array([3, 1, 2]), Container.SERIES, "x0", id="labels"),
        pytest.param(sparse.csr_matrix(np.eye(2)), Container.SPARSE, "x0", id="a sparse matrix"),
    ],
)
def test_other_containers_are_told_apart(given: Any, container: Container, name: str) -> None:
    sample = read_sample(ANYTHING, given)

    assert sample.container is container
    assert sample.columns[0].name == name


@pytest.mark.parametrize(
    ("given", "told"),
    [
        pytest.param(np.ones((2, 3)), "has 3 columns; the estimator was fitted on 2", id="width"),
        pytest.param(np.ones((0, 2)), "empty", id="no rows"),
        pytest.param(pd.DataFrame({"a": [1.0]}).iloc[:0], "empty", id="no rows in a frame"),
        pytest.param(sparse.csr_matrix((0, 2)), "empty", id="no rows in a sparse matrix"),
        pytest.param(np.ones((2, 2, 2)), "3 dimensions", id="dimensions"),
        pytest.param([{"a": 1}, {"a": 2}], "type dict", id="rows as dicts"),
        pytest.param(np.ones((2, 2), dtype=complex), "complex128", id="complex numbers"),
        pytest.param(pd.DataFrame([[1.0, 2.0]], columns=["a", "a"]), "same name: a", id="a name twice"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused_in_words(given: Any, told: str) -> None:
    estimator = LinearRegression().fit(np.eye(2), [1.0, 2.0])

    with pytest.raises(EstimatorUnusable, match=told):
        read_sample(estimator, given)


def test_a_frame_that_lacks_columns_is_told_which() -> None:
    estimator = LinearRegression().fit(pd.DataFrame({"a": [1.0, 2.0], "b": [2.0, 1.0]}), [1.0, 2.0])

    with pytest.raises(EstimatorUnusable, match="lacks columns that the estimator was fitted on: b; it has a"):
        read_sample(estimator, pd.DataFrame({"a": [1.0]}))


def test_a_column_of_things_without_a_json_form_is_named() -> None:
    frame = pd.DataFrame({"span": pd.to_timedelta([1, 2], unit="h"), "mixed": [1, "a"]})

    with pytest.raises(EstimatorUnusable, match="'span'"):
        read_sample(ANYTHING, frame[["span"]])
    with pytest.raises(EstimatorUnusable, match="'mixed' holds values of type int, str"):
        read_sample(ANYTHING, frame[["mixed"]])


def test_without_a_sample_names_and_categories_come_from_the_estimator() -> None:
    frame = pd.DataFrame({"age": [1.0, 2.0], "city": ["Linz", "Graz"]})
    encode = make_column_transformer((StandardScaler(), ["age"]), (OneHotEncoder(), ["city"]))
    estimator = make_pipeline(encode, LogisticRegression()).fit(frame, [0, 1])

    sample = sample_without_data(estimator)

    assert [(c.name, c.dtype, c.categories) for c in sample.columns] == [
        ("age", "float64", None),
        ("city", "string", ["Graz", "Linz"]),
    ]
    assert sample.table.n_rows == 1


def test_without_a_sample_a_vectorizer_takes_texts() -> None:
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["good", "bad"], [1, 0])

    assert sample_without_data(estimator).container is Container.SERIES


def test_without_a_sample_and_without_a_memory_of_columns_a_sample_is_asked_for() -> None:
    with pytest.raises(EstimatorUnusable, match="export it with a sample"):
        sample_without_data(FunctionTransformer().fit(None))

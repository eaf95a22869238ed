"""What is seen in pipelines and column transformers without calling them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from service.runtimes.structure import (
    estimator_name,
    first_step,
    is_vectorizer,
    known_categories,
    reads_files,
    shared_steps,
    text_columns,
)

NAMES = ["age", "city", "job"]
ROWS = pd.DataFrame({"age": [1.0, 2.0, 3.0], "city": ["Graz", "Linz", "Graz"], "job": ["a", "b", None]})


@pytest.mark.parametrize(
    "selected",
    [
        pytest.param(["city", "job"], id="names"),
        pytest.param([1, 2], id="positions"),
        pytest.param([-2, -1], id="positions from the end"),
        pytest.param(slice(1, 3), id="a slice of positions"),
        pytest.param(slice("city", "job"), id="a slice of names, both ends included"),
        pytest.param([False, True, True], id="a mask"),
    ],
)
def test_categories_are_found_however_columns_are_selected(selected: Any) -> None:
    estimator = ColumnTransformer([("encode", OneHotEncoder(), selected)]).fit(ROWS)

    found = known_categories(estimator, NAMES)

    assert found == {"city": ["Graz", "Linz"], "job": ["a", "b"]}


def test_categories_are_found_behind_an_imputer_and_inside_a_search() -> None:
    encode = make_pipeline(SimpleImputer(strategy="most_frequent"), OrdinalEncoder())
    pipeline = make_pipeline(make_column_transformer((encode, ["city"])), LogisticRegression())
    search = GridSearchCV(pipeline, {"logisticregression__C": [1.0]}, cv=2)
    search.fit(pd.concat([ROWS] * 4), [0, 1, 0] * 4)

    assert known_categories(search, NAMES) == {"city": ["Graz", "Linz"]}


def test_categories_are_not_guessed_behind_a_step_that_mixes_columns() -> None:
    mixed = make_pipeline(FunctionTransformer(np.fliplr), OneHotEncoder()).fit(np.array([["a", "b"], ["c", "d"]]))

    assert known_categories(mixed, ["x0", "x1"]) == {}


def test_every_part_of_a_union_sees_every_column() -> None:
    union = FeatureUnion([("codes", OrdinalEncoder()), ("again", OneHotEncoder())]).fit(ROWS[["city"]])

    assert known_categories(union, ["city"]) == {"city": ["Graz", "Linz"]}


def test_a_column_for_a_vectorizer_is_text() -> None:
    estimator = make_column_transformer((CountVectorizer(), "city"), (StandardScaler(), ["age"])).fit(ROWS)

    assert text_columns(estimator, NAMES) == {"city"}


def test_the_first_step_is_looked_for_inwards() -> None:
    inner = make_pipeline(TfidfVectorizer(), LogisticRegression())

    assert is_vectorizer(first_step(Pipeline([("inner", inner)])))


def test_a_pipeline_is_split_before_its_last_step() -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(np.eye(3), [0, 1, 0])

    steps, last = shared_steps(pipeline) or (None, None)

    assert isinstance(last, LogisticRegression)
    assert isinstance(steps, Pipeline)


class OwnPipeline(Pipeline):  # type: ignore[misc]
    """May predict in a way of its own."""


@pytest.mark.parametrize(
    "estimator",
    [
        pytest.param(LogisticRegression(), id="no pipeline"),
        pytest.param(OwnPipeline([("scale", StandardScaler()), ("fit", LogisticRegression())]), id="a subclass"),
        pytest.param(Pipeline([("scale", StandardScaler()), ("last", "passthrough")]), id="nothing at the end"),
        pytest.param(Pipeline([("only", LogisticRegression())]), id="one step"),
    ],
)
def test_what_may_not_be_split_stays_whole(estimator: Any) -> None:
    assert shared_steps(estimator) is None


@pytest.mark.parametrize("kind", ["filename", "file"])
def test_a_vectorizer_that_opens_files_is_recognised_wherever_it_sits(kind: str) -> None:
    hidden = make_pipeline(make_column_transformer((CountVectorizer(input=kind), "city")), LogisticRegression())

    assert reads_files(hidden)
    assert not reads_files(make_pipeline(CountVectorizer(), RandomForestClassifier()))


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (Ridge(), "Ridge"),
        (make_pipeline(StandardScaler(), Ridge()), "Pipeline(StandardScaler, Ridge)"),
        (make_pipeline(make_pipeline("passthrough", PCA()), Ridge()), "Pipeline(Pipeline(passthrough, PCA), Ridge)"),
    ],
    ids=["one", "pipeline", "pipeline in a pipeline"],
)
def test_estimator_is_named_by_its_classes(estimator: Any, name: str) -> None:
    assert estimator_name(estimator) == name

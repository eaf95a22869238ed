"""The signature, read off fitted estimators and tried out on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import DBSCAN
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from service.core.artefact_errors import EstimatorUnusable
from service.core.signature import Output
from service.runtimes.describe import FLOAT32_MAX, describe

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3))
Y = RNG.integers(0, 3, size=30)


def output_of(estimator: Any, sample: Any, name: str) -> Output:
    return next(output for output in describe(estimator, sample).signature.outputs if output.name == name)


def test_an_imputer_lets_its_column_be_missing_and_the_others_not() -> None:
    frame = pd.DataFrame({"filled": [1.0, None, 3.0, 4.0], "bare": [1.0, 2.0, 3.0, 4.0]})
    fill = make_column_transformer((SimpleImputer(), ["filled"]), remainder="passthrough")
    estimator = make_pipeline(fill, LinearRegression()).fit(frame, [1.0, 2.0, 3.0, 4.0])

    columns = describe(estimator, frame).signature.columns

    assert {column.name: column.nullable for column in columns} == {"filled": True, "bare": False}


@pytest.mark.parametrize(
    ("handle_unknown", "closed"),
    [pytest.param("error", True, id="the encoder fails"), pytest.param("ignore", None, id="the encoder takes it")],
)
def test_categories_are_closed_where_the_estimator_fails_on_others(handle_unknown: str, closed: bool | None) -> None:
    frame = pd.DataFrame({"city": ["Graz", "Linz"] * 3})
    estimator = make_pipeline(OneHotEncoder(handle_unknown=handle_unknown), LogisticRegression())
    estimator.fit(frame, [0, 1] * 3)

    column = describe(estimator, frame).signature.columns[0]

    assert (column.categories, column.closed) == (["Graz", "Linz"], closed)


@pytest.mark.parametrize(
    ("estimator", "limit"),
    [
        pytest.param(RandomForestClassifier(3, random_state=0), FLOAT32_MAX, id="computes in float32"),
        pytest.param(HistGradientBoostingRegressor(max_iter=2), None, id="computes in float64"),
    ],
)
def test_large_numbers_are_limited_where_the_estimator_fails_on_them(estimator: Any, limit: float | None) -> None:
    columns = describe(estimator.fit(X, Y), X).signature.columns

    assert {column.max_abs for column in columns} == {limit}


@pytest.mark.parametrize(
    ("labels", "classes", "dtype"),
    [
        pytest.param(["no", "yes"], ["no", "yes"], "string", id="text"),
        pytest.param([False, True], [False, True], "bool", id="truths"),
        pytest.param([3, 7], [3, 7], "int64", id="integers"),
        pytest.param([0.0, 1.0], [0.0, 1.0], "float64", id="numbers"),
        pytest.param(np.array(["no", "yes"], dtype=object), ["no", "yes"], "object", id="objects"),
        pytest.param(np.array([b"no", b"yes"]), [{"b64": "bm8="}, {"b64": "eWVz"}], "bytes", id="bytes"),
    ],
)
def test_classes_of_any_label_type_are_shown_as_json_has_them(labels: Any, classes: list[Any], dtype: str) -> None:
    y = np.asarray(labels)[np.arange(30) % 2]
    estimator = RandomForestClassifier(3, random_state=0).fit(X, y)

    assert output_of(estimator, X, "predict_proba").classes == classes
    assert output_of(estimator, X, "predict").dtype == dtype


def test_several_targets_have_classes_each() -> None:
    y = np.column_stack([Y, Y > 0])
    estimator = MultiOutputClassifier(LogisticRegression()).fit(X, y)

    output = output_of(estimator, X, "predict_proba")

    assert output.targets == 2
    assert output.classes == [[0, 1, 2], [0, 1]]


def test_a_transformer_names_its_columns() -> None:
    encoder = OneHotEncoder().fit(pd.DataFrame({"city": ["Graz", "Linz"]}))

    output = output_of(encoder, pd.DataFrame({"city": ["Graz"]}), "transform")

    assert (output.sparse, output.columns) == (True, ["city_Graz", "city_Linz"])


def test_an_output_that_does_not_repeat_itself_is_left_out_with_its_reason() -> None:
    rbm = BernoulliRBM(2, n_iter=1).fit(np.abs(X) % 1)

    signature = describe(rbm, np.abs(X) % 1).signature

    assert signature.output_names == ("transform",)
    assert "other numbers when asked again" in (signature.left_out or {})["score_samples"]


class Doubling(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    def fit(self, X: Any, y: Any = None) -> Doubling:
        self.fitted_ = True
        return self

    def transform(self, X: Any) -> Any:
        return np.vstack([X, X])


@pytest.mark.parametrize(
    ("estimator", "told"),
    [
        pytest.param(LogisticRegression(), "not fitted yet", id="unfitted"),
        pytest.param(make_pipeline(StandardScaler(), LogisticRegression()), "not fitted yet", id="unfitted inside"),
        pytest.param(DBSCAN().fit(X), "nothing to serve", id="no output"),
        pytest.param(Doubling().fit(X), "answers 10 rows for 5", id="other rows than asked"),
    ],
)
def test_what_cannot_be_served_is_told_why(estimator: Any, told: str) -> None:
    with pytest.raises(EstimatorUnusable, match=told):
        describe(estimator, X)


def test_a_sample_that_the_estimator_refuses_is_told_in_its_words() -> None:
    estimator = LogisticRegression().fit(X, Y)

    with pytest.raises(EstimatorUnusable, match=r"refuses the sample.*NaN"):
        describe(estimator, np.full((3, 3), np.nan))


def test_integers_beyond_float64_keep_a_column_from_being_nullable() -> None:
    keys = np.array([[2**63 - 1], [2**53 + 1]], dtype=np.int64)

    column = describe(FunctionTransformer().fit(keys), keys).signature.columns[0]

    assert (column.dtype, column.nullable) == ("int64", False)


def test_a_vectorizer_that_opens_files_is_refused_before_it_opens_one(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("a few words")
    vectorizer = CountVectorizer(input="filename").fit([str(text)])

    with pytest.raises(EstimatorUnusable, match="input='content'"):
        describe(vectorizer, [str(text)])
    with pytest.raises(EstimatorUnusable, match="input='content'"):
        describe(vectorizer)

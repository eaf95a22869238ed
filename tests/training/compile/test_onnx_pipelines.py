"""Steps before a model: columns of numbers and text, side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import RFE
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    LabelBinarizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)

from service.core.table import Frame, copied
from tests.training.compile.onnx_cases import (
    AMOUNT,
    HOLES,
    THREE,
    TWO,
    WHOLE,
    WORDS,
    X,
    assert_agrees,
    assert_same_answers,
    compiled,
    described,
    fitted,
    opened,
)
from training.pipeline import build_pipeline, sort_columns

CASES = [
    (GridSearchCV(LogisticRegression(), {"C": [0.5, 1.0]}, cv=2), X, THREE),
    (RFE(LogisticRegression(), n_features_to_select=2), X, WORDS),
    # Two trees of five reach the threshold exactly.
    (FixedThresholdClassifier(RandomForestClassifier(5, random_state=0), threshold=0.4), X, WORDS),
    (TunedThresholdClassifierCV(LogisticRegression(), cv=2), X, WORDS),
    (TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1), X, abs(AMOUNT)),
    (TransformedTargetRegressor(Ridge(), transformer=StandardScaler()), X, AMOUNT),
    (FeatureUnion([("a", StandardScaler()), ("b", MinMaxScaler())], transformer_weights={"a": 2.0}), X, None),
    (ColumnTransformer([("a", StandardScaler(), [1, 0])], remainder="passthrough"), X, None),
    (make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()), WHOLE, TWO),
    (make_pipeline(FunctionTransformer(), OneHotEncoder(), LogisticRegression()), WHOLE, TWO),
    (OrdinalEncoder(), WHOLE.astype(np.int64), None),
    (LabelBinarizer(), THREE, None),
]

NUMBERS = [f"n{index}" for index in range(HOLES.shape[1])]
TEXTS = ["colour", "city", "plan"]


@pytest.mark.parametrize(("estimator", "X", "y"), CASES, ids=lambda value: type(value).__name__)
def test_graph_answers_as_the_estimator_does(estimator: Any, X: Any, y: Any) -> None:
    assert_agrees(estimator, X, y)


def mixed(marker: float | None) -> pd.DataFrame:
    """Numbers with holes, and texts of which some are rare and some are missing."""
    table = pd.DataFrame(HOLES, columns=NUMBERS)
    random = np.random.RandomState(1)
    for name, count in zip(TEXTS, (3, 12, 30), strict=True):
        values = random.choice([f"{name} {index}" for index in range(count)], len(table)).astype(object)
        values[random.rand(len(table)) < 0.1] = marker
        table[name] = pd.Series(values, dtype=object)
    table["member"] = random.rand(len(table)) < 0.5
    return table


def encoder(**params: Any) -> OneHotEncoder:
    return OneHotEncoder(**{"handle_unknown": "ignore", **params})


def pipeline(text: Any, model: Any, names: list[str] | None = None) -> Any:
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    return make_pipeline(
        ColumnTransformer([("numbers", numbers, NUMBERS), ("texts", text, names or TEXTS)], remainder="drop"), model
    )


PIPELINES = {
    "most frequent": lambda marker: make_pipeline(
        SimpleImputer(strategy="most_frequent", missing_values=marker), encoder()
    ),
    "constant": lambda marker: make_pipeline(
        SimpleImputer(strategy="constant", fill_value="none", missing_values=marker), encoder()
    ),
    "missing is a category": lambda marker: encoder(),
    "rare ones together": lambda marker: encoder(min_frequency=5, handle_unknown="infrequent_if_exist"),
    "one dropped": lambda marker: encoder(drop="first"),
    "ordinal": lambda marker: OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2
    ),
    "by target": lambda marker: TargetEncoder(random_state=0),
}


@pytest.mark.parametrize("marker", [None, np.nan], ids=["None", "NaN"])
@pytest.mark.parametrize("text", PIPELINES)
def test_texts_missing_rare_and_never_seen_are_answered_as_the_estimator_does(text: str, marker: Any) -> None:
    table = mixed(marker)
    model = pipeline(PIPELINES[text](marker), LogisticRegression(max_iter=500))
    assert_agrees(model, table, WORDS)
    known = described(model, table)
    (candidate,) = compiled(model, table).candidates

    rows = copied(known.sample)
    assert isinstance(rows, Frame)
    for name in TEXTS:
        rows.columns[name][:6] = ["never seen", "\0", "", "\ud800", None, " Colour 1"]

    assert_same_answers(model, known, opened(candidate, known), rows, candidate.outputs)


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(10, random_state=0),
        HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=5),
    ],
    ids=lambda model: type(model).__name__,
)
def test_trees_after_encoders_are_bit_for_bit(model: Any) -> None:
    assert_agrees(pipeline(encoder(sparse_output=False), model), mixed(np.nan), WORDS, rtol=1e-15)


def test_what_the_training_command_builds_is_compiled_whole() -> None:
    table = mixed(np.nan)

    assert_agrees(build_pipeline(sort_columns(table), LogisticRegression(max_iter=500), WORDS), table, WORDS)


def test_truths_and_pandas_categories_go_through_an_encoder() -> None:
    table = mixed(None)
    table["plan"] = table["plan"].astype("category")

    model = pipeline(encoder(), LogisticRegression(max_iter=500), ["colour", "plan", "member"])

    assert_agrees(model, table, WORDS)


def test_linear_model_behind_an_encoder_keeps_one_number_per_category() -> None:
    table = mixed(None)
    table["id"] = [f"customer {index}" for index in range(len(table))]
    model = fitted(pipeline(encoder(), LogisticRegression(max_iter=500), ["id"]), table, WORDS)

    (candidate,) = compiled(model, table).candidates

    assert len(candidate.files["onnx.onnx"]) < 8 * len(table) + 3000


def test_text_that_reaches_no_encoder_is_left_to_the_estimator() -> None:
    table = mixed(None)
    model = fitted(ColumnTransformer([("texts", SimpleImputer(strategy="most_frequent"), TEXTS)]), table)

    found = compiled(model, table)

    assert found.candidates == ()
    assert "colour" in found.reasons["transform"] or "text" in found.reasons["transform"]

"""Columns as inputs of a graph, and tables made by asking the fitted steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from tests.training.compile.onnx_cases import compiled, described, fitted
from training.compile.onnx_formulas import NoFormula
from training.compile.onnx_graph import Graph
from training.compile.onnx_inputs import Inputs, tabulate

TABLE = pd.DataFrame({"size": [1.0, 2.0, 3.0], "colour": ["red", "green", "red"], "city": ["a", "b", "c"]})


def inputs(estimator: Any, table: Any = TABLE) -> Inputs:
    known = described(estimator, table)
    return Inputs(Graph(), known.signature, known.sample)


def encoder(**params: Any) -> Any:
    return fitted(ColumnTransformer([("texts", OneHotEncoder(**params), ["colour", "city"])]), TABLE)


def test_only_columns_that_are_asked_for_enter_the_graph() -> None:
    model = encoder(handle_unknown="ignore")

    (candidate,) = compiled(model, TABLE).candidates

    assert candidate.options["numbers"] == []
    assert [entry["column"] for entry in candidate.options["codes"]] == ["colour", "city"]


def test_every_category_has_a_code_and_so_have_missing_and_unseen_where_they_are_answered() -> None:
    model = encoder(handle_unknown="ignore")

    (candidate,) = compiled(model, TABLE).candidates

    assert candidate.options["codes"] == [
        {"column": "colour", "values": ["green", "red"], "first": 0, "missing": 2, "unseen": 3},
        {"column": "city", "values": ["a", "b", "c"], "first": 4, "missing": 7, "unseen": 8},
    ]


def test_what_the_encoder_fails_on_has_no_code() -> None:
    (candidate,) = compiled(encoder(handle_unknown="error"), TABLE).candidates

    assert [(entry["missing"], entry["unseen"]) for entry in candidate.options["codes"]] == [(-1, -1), (-1, -1)]


def test_a_column_of_text_is_no_number() -> None:
    with pytest.raises(NoFormula, match="'colour' is used as a number"):
        inputs(encoder()).everything().numbers()


class Crossing(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Looks at two columns at once."""

    def fit(self, X: Any, y: Any = None) -> Crossing:
        self.categories_ = [np.unique(X[name]) for name in X]
        return self

    def transform(self, X: Any) -> Any:
        first, second = (X[name].to_numpy() for name in X)
        return ((first == "red") ^ (second == "a")).astype(float)[:, None]


def test_steps_that_look_at_two_columns_at_once_are_found_out() -> None:
    block = inputs(encoder()).everything().select([1, 2])
    crossing = Crossing().fit(TABLE[["colour", "city"]])

    with pytest.raises(NoFormula, match="two columns at once"):
        tabulate([crossing], block)


def test_categories_of_another_type_than_the_column_are_left_to_the_estimator() -> None:
    block = inputs(encoder()).everything().select([1])
    numbers = fitted(OrdinalEncoder(), np.array([[1.0], [2.0]]))

    with pytest.raises(NoFormula, match="another type"):
        tabulate([numbers], block)

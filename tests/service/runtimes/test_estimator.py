"""The engine that is the estimator itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from service.core.artefact_errors import EstimatorUnusable
from service.core.errors import ModelFailed, RowsRefused
from service.core.signature import Column, Container, Output, Signature
from service.core.table import Matrix, SparseRows
from service.runtimes.estimator import EstimatorEngine, n_rows, to_values

SIGNATURE = Signature(
    container=Container.ARRAY,
    columns=(Column(name="a", dtype="float64"), Column(name="b", dtype="float64")),
    outputs=(Output(name="predict", dtype="int64"),),
)
ROWS = Matrix(np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]]))


class CountingScaler(StandardScaler):  # type: ignore[misc]
    calls = 0

    def transform(self, X: Any, copy: bool | None = None) -> Any:
        type(self).calls += 1
        return super().transform(X, copy)


def test_several_outputs_share_the_steps_and_each_is_what_it_is_alone() -> None:
    pipeline = make_pipeline(CountingScaler(), LogisticRegression()).fit(ROWS.values, [0, 1, 1])
    engine = EstimatorEngine(pipeline, SIGNATURE)
    alone = {name: engine.run(ROWS, (name,))[name] for name in ("predict", "predict_proba", "decision_function")}
    CountingScaler.calls = 0

    together = engine.run(ROWS, tuple(alone))

    assert CountingScaler.calls == 1
    for name, values in alone.items():
        np.testing.assert_array_equal(together[name], values)


class Broken(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def predict(self, X: Any) -> Any:
        if self.error is not None:
            raise self.error
        return np.zeros(len(X) + 1)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(ValueError("secret"), RowsRefused, id="the rows are to blame"),
        pytest.param(KeyError("secret"), ModelFailed, id="the model is to blame"),
        pytest.param(None, ModelFailed, id="a row too many"),
    ],
)
def test_a_failure_says_who_is_to_blame_and_nothing_else(error: Exception | None, expected: type[Exception]) -> None:
    engine = EstimatorEngine(Broken(error), SIGNATURE)

    with pytest.raises(expected) as caught:
        engine.run(ROWS, ("predict",))

    assert "secret" not in str(caught.value)


def test_a_vectorizer_that_would_open_the_files_a_caller_names_is_refused() -> None:
    with pytest.raises(EstimatorUnusable, match="input='content'"):
        EstimatorEngine(make_pipeline(CountVectorizer(input="filename"), LogisticRegression()), SIGNATURE)


def test_answers_of_every_kind_become_values() -> None:
    matrix = np.eye(3)
    compressed = to_values(sparse.csc_matrix(matrix))

    assert isinstance(compressed, SparseRows)
    assert (compressed.width, n_rows(compressed), compressed.indptr.tolist()) == (3, 3, [0, 1, 2, 3])
    np.testing.assert_array_equal(to_values(pd.DataFrame(matrix)), matrix)
    np.testing.assert_array_equal(to_values([1, 2]), np.array([1, 2]))
    assert n_rows(to_values([matrix, matrix])) == 3
    with pytest.raises(TypeError, match="dict"):
        to_values({})


class Looking(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Answers whether its input lies column by column in memory."""

    def fit(self, X: Any, y: Any = None) -> Looking:
        self.fitted_ = True
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), X.flags.f_contiguous)

    def decision_function(self, X: Any) -> Any:
        return self.predict(X).astype(float)


def test_shared_steps_hand_each_output_the_memory_layout_it_has_alone() -> None:
    pipeline = make_pipeline(FunctionTransformer(np.asfortranarray), Looking()).fit(ROWS.values)

    answers = EstimatorEngine(pipeline, SIGNATURE).run(ROWS, ("predict", "decision_function"))

    assert all(bool(np.all(values)) for values in answers.values())


class Wrapped(Pipeline):  # type: ignore[misc]
    """A pipeline that is asked as a whole for each output."""


@pytest.mark.parametrize("kind", [Pipeline, Wrapped], ids=["steps shared", "asked as a whole"])
@pytest.mark.parametrize("container", [Container.ARRAY, Container.FRAME])
def test_outputs_do_not_disturb_each_other_where_the_estimator_works_in_place(
    kind: type[Pipeline], container: Container
) -> None:
    inner = Pipeline([("scale", StandardScaler(copy=False)), ("fit", LogisticRegression())])

    def rows() -> Any:
        values = ROWS.values.copy()
        return pd.DataFrame(values, columns=["a", "b"]) if container is Container.FRAME else values

    estimator = kind([("first", StandardScaler(copy=False)), ("inner", inner)]).fit(rows(), [0, 1, 1])
    engine = EstimatorEngine(estimator, SIGNATURE.model_copy(update={"container": container}))
    outputs = ("predict_proba", "decision_function", "predict")

    together = engine.run(Matrix(ROWS.values.copy()), outputs)

    for name in outputs:
        np.testing.assert_array_equal(together[name], getattr(estimator, name)(rows()))

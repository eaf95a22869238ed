"""Compiling as a whole: what is offered, what is not and why, and that the estimator stays as it is."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from service.core.table import Matrix
from tests.training.compile.onnx_cases import AMOUNT, THREE, TWO, X, compiled, described, fitted, opened
from training.compile import onnx


class OwnScaler(StandardScaler):  # type: ignore[misc]
    """A subclass may compute anything."""


def test_one_graph_in_double_precision_covers_every_output() -> None:
    model = fitted(make_pipeline(StandardScaler(), LogisticRegression()), X, THREE)

    found = compiled(model, X)

    (candidate,) = found.candidates
    assert (candidate.name, candidate.runtime, candidate.is_double) == ("onnx", "onnx", True)
    assert candidate.outputs == ("predict", "predict_proba", "predict_log_proba", "decision_function")
    assert found.reasons == {}
    assert json.loads(json.dumps(dict(candidate.options))) == dict(candidate.options)


def test_outputs_without_a_formula_come_by_skl2onnx_in_a_graph_of_their_own() -> None:
    model = fitted(make_pipeline(StandardScaler(), SVC(probability=True)), X, TWO)

    found = compiled(model, X)

    assert [(candidate.name, candidate.outputs) for candidate in found.candidates] == [
        ("onnx", ("predict", "decision_function")),
        ("onnx-single", ("predict_proba", "predict_log_proba")),
    ]


def test_compiling_changes_nothing_of_the_estimator() -> None:
    model = fitted(make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)), X, THREE)
    before = pickle.dumps(model)

    compiled(model, X)

    assert pickle.dumps(model) == before


def test_the_same_estimator_gives_the_same_file() -> None:
    model = fitted(RandomForestClassifier(5, random_state=0), X, THREE)

    first, second = (dict(compiled(model, X).candidates[0].files) for _ in range(2))

    assert first == second


def test_what_nobody_can_write_is_a_reason_of_one_line() -> None:
    model = fitted(make_pipeline(OwnScaler(), LogisticRegression()), X, TWO)

    found = compiled(model, X)

    assert found.candidates == ()
    assert set(found.reasons) >= {"predict", "predict_proba"}
    assert all("OwnScaler" in why and "\n" not in why for why in found.reasons.values())


def test_a_graph_that_is_too_large_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "MOST_BYTES", 1000)

    found = compiled(fitted(RandomForestClassifier(5, random_state=0), X, TWO), X)

    assert found.candidates == ()
    assert "at most" in found.reasons[""]


def test_large_batches_are_cut_where_something_in_between_would_be_large(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted(KNeighborsRegressor(), X, AMOUNT)
    known = described(model, X)
    rows = np.concatenate([X, X + 0.3])
    monkeypatch.setattr(onnx, "SLICE_BYTES", 7 * X.size * 8)

    (candidate,) = compiled(model, X).candidates

    assert candidate.options["slice_rows"] == 7
    answers: Any = opened(candidate, known).run(Matrix(rows), ("predict",))["predict"]
    np.testing.assert_allclose(answers, model.predict(rows), rtol=1e-12)
